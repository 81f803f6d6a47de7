"""GPT-2's own tokenizer, from the two files that OpenAI published."""

from pathlib import Path

from groundup.errors import TokenizerError
from groundup.files import read_json
from groundup.hub.cache import fetch
from groundup.hub.download import RemoteFile
from groundup.tokenizers.base import END_OF_TEXT
from groundup.tokenizers.bytepair import BytePairTokenizer, contents_of

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
INSTEAD = "use a tokenizer that needs no network: --data.tokenizer characters"
BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
JSON_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES = RemoteFile(f"{URL}/vocab.bpe", "gpt2/vocab.bpe", 456_318, BPE_SHA256, INSTEAD)
VOCABULARY = RemoteFile(f"{URL}/encoder.json", "gpt2/encoder.json", 1_042_301, JSON_SHA256, INSTEAD)


def gpt2_tokenizer() -> BytePairTokenizer:
    """Make GPT-2's tokenizer of 50,257 tokens (Radford et al. 2019, section 2.2).

    Raises:
        CorpusError: OpenAI's two files can't be downloaded.
    """
    return tokenizer_of_files(fetch(VOCABULARY), fetch(MERGES), "gpt2")


def tokenizer_of_files(vocabulary: Path, merges: Path, name: str) -> BytePairTokenizer:
    """Make a tokenizer like GPT-2's from the two files that it was published as.

    Args:
        vocabulary: The file of the tokens and their ids, as JSON.
        merges: The file of the merges, one a line.
        name: What messages call the tokenizer.

    Raises:
        TokenizerError: A file is damaged.
    """
    try:
        ids = dict(read_json(vocabulary))
        special = {END_OF_TEXT: ids.pop(END_OF_TEXT)} if END_OF_TEXT in ids else {}
        lines = merges.read_text("utf-8").splitlines()
    except (OSError, ValueError, TypeError) as error:
        raise TokenizerError(f"{name} is a damaged tokenizer: {error}") from error
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    return BytePairTokenizer(contents_of(ids, pairs, special), name)
