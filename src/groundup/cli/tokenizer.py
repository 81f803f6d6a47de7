"""`groundup tokenizer` on the command line: as thin and as lazy as the rest of it."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

tokenizers = App(
    name="tokenizer", help="Learn a tokenizer, look at what one does to a text, or compare several."
)

CorpusName = Annotated[
    str, Parameter(help="python-docs, shakespeare, or a file or folder of text.")
]


@tokenizers.command(name="train")
def learn_tokenizer(
    corpus: CorpusName,
    /,
    *,
    out: Annotated[
        Path, Parameter(help="The folder to save it in; transformers' AutoTokenizer loads it too.")
    ],
    vocab_size: Annotated[int, Parameter(help="Tokens, <|endoftext|> included.")] = 4096,
) -> None:
    """Learn byte-level BPE from a text, as GPT-2's tokenizer was learned."""
    from groundup.cli.tokenizer_tools import learn

    learn(corpus, vocab_size, out)


@tokenizers.command(name="show")
def show_tokens(
    text: Annotated[str, Parameter(help="The text to cut into tokens.")],
    /,
    *,
    tokenizer: Annotated[str, Parameter(help="gpt2, or a folder with a tokenizer.json.")] = "gpt2",
) -> None:
    """Show a text's tokens in colours, with their ids."""
    from groundup.cli.tokenizer_tools import show

    show(text, tokenizer)


@tokenizers.command(name="compare")
def compare_tokenizers(
    *names: Annotated[str, Parameter(help="characters, gpt2, or folders with a tokenizer.json.")],
    corpus: CorpusName = "python-docs",
) -> None:
    """Compare bytes a token and speed on a text."""
    from groundup.cli.tokenizer_tools import compare

    compare(corpus, list(names) or ["characters", "gpt2"])
