"""What a run is given besides its recipe, and what is read with it: corpora and the tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from groundup.data.corpora import Corpus, open_corpora
from groundup.data.dataset import check_tokenizer, tokenizer_of_shards
from groundup.errors import RecipeError
from groundup.parallel.world import World, main_first
from groundup.recipes.schema import Recipe
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer
from groundup.training.journal import Journal
from groundup.training.stopping import StopRequest


@dataclass(frozen=True)
class Surroundings:
    """What a run is given besides its recipe: the processes it shares, where it tells, who may stop
    it.
    """

    world: World
    journal: Journal
    stop: StopRequest


def read_corpora(name: str, folder: Path, around: Surroundings) -> list[Corpus]:
    """The corpora, paths relative to where the run began; the main process first, which may have to
    download.
    """
    around.journal.say(f"reading {name}")
    return main_first(around.world, lambda: open_corpora(name, folder))


def choose_tokenizer(
    recipe: Recipe,
    given: Tokenizer | None,
    corpora: list[Corpus],
    folder: Path,
    around: Surroundings,
) -> Tokenizer | None:
    """That of the model to go on with, or the one that the recipe names, its path relative to
    `folder`, or the shards'.

    None where it is to be made of the corpus's characters. The main process loads first, which may
    have to download. Raises RecipeError where two are given and differ, TokenizerError and
    CorpusError.
    """
    name = recipe.data.tokenizer
    of_shards = tokenizer_of_shards(corpora)
    if name == "auto":
        chosen = given or of_shards
        check_tokenizer(
            corpora,
            chosen,
            "data.tokenizer = auto" if given is None else "that of the model to start from",
        )
        return chosen
    named = (
        of_shards if name == "characters" and isinstance(of_shards, CharacterTokenizer) else None
    )
    if name != "characters":
        path = folder / name
        place = path if name != "gpt2" and path.exists() else name
        named = main_first(around.world, lambda: load_tokenizer(place))
    is_characters = name == "characters" and isinstance(given, CharacterTokenizer)
    if (
        given is not None
        and not is_characters
        and (named is None or named.identity != given.identity)
    ):
        raise RecipeError(
            f"data.tokenizer = {name}, but the model to start from has another: leave it out"
        )
    check_tokenizer(corpora, given or named, f"data.tokenizer = {name}")
    return given or named
