"""GPT-2's own tokenizer, from the two files that OpenAI published."""

import json

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
    vocabulary = json.loads(fetch(VOCABULARY).read_text("utf-8"))
    special = {END_OF_TEXT: vocabulary.pop(END_OF_TEXT)}
    _version, *lines = fetch(MERGES).read_text("utf-8").splitlines()
    merges = [line.split(" ") for line in lines]
    return BytePairTokenizer(contents_of(vocabulary, merges, special), "gpt2")
