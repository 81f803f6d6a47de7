"""The flags that several commands share, and the recipe that these flags give."""

from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from groundup.errors import GroundupError
from groundup.recipes import files
from groundup.recipes.scaling import scaled
from groundup.recipes.schema import OLDER_NAMES, SECTIONS, Recipe, Tables, field_types

if TYPE_CHECKING:
    from groundup.generation.writer import Precision

# of the classes made below: left to itself, it says they are built in
NAMESPACE = {"__module__": __name__}


def _optional_section(name: str) -> type:
    """A section of the recipe whose every field may be left out: that isn't its default."""
    types = field_types(name)
    shown = {key: (kind, Parameter(help=text)) for key, (kind, text) in types.items()}
    older = OLDER_NAMES.items() if name == "eval" else ()
    hidden = {old: (types[key][0], Parameter(show=False)) for old, key in older}
    both = shown | hidden
    flags = [(key, Annotated[kind | None, what], None) for key, (kind, what) in both.items()]
    return make_dataclass(f"{name.capitalize()}Flags", flags, namespace=NAMESPACE)


_sections = {name: _optional_section(name) for name in SECTIONS if name != "about"}
_all = [(name, section, field(default_factory=section)) for name, section in _sections.items()]
# every recipe field as `--section.field`
RecipeFlags = make_dataclass("RecipeFlags", _all, namespace=NAMESPACE)


@Parameter(name="*")
@dataclass(frozen=True)
class WeightFlags:
    """The weights with which a model computes.

    Args:
        dtype: auto, float32 or bfloat16: the weights. auto: the model's own; and where groundup's
            C++ writes, bfloat16 for models of 16 million parameters or more.
        quantize: int8: weights of 8 bits, for half the memory of bfloat16.
    """

    dtype: str = "auto"
    quantize: Literal["int8"] | None = None

    def precision(self) -> "Precision":
        """Return how a model computes.

        Raises:
            GenerationError: A value is none of those that there are.
        """
        from groundup.generation.writer import Precision

        given = asdict(self)
        return Precision(**given | {"quantize": self.quantize or ""})


@Parameter(name="*")
@dataclass(frozen=True)
class WriterFlags(WeightFlags):
    """The weights with which a model writes, and what multiplies them.

    Args:
        compile: auto, on or off: write by groundup's C++ on a CPU, or by torch; on a GPU, on
            compiles a step.
    """

    compile: str = "auto"


if TYPE_CHECKING:
    Flags = Any
else:  # a class made just above, which no type checker knows
    Flags = Annotated[RecipeFlags | None, Parameter(name="*")]


def given_fields(flags: Any, short: Tables) -> Tables:
    """Return the fields of the recipe that were given on the command line.

    Args:
        flags: `--section.field` flags, of which those that weren't given are None.
        short: Flags of other names, by the section and the field that they stand for.

    Raises:
        GroundupError: A field was given twice, with two values.
    """
    tables: Tables = {name: {} for name in SECTIONS}
    for name, section in vars(flags).items() if flags else ():
        tables[name] |= {key: value for key, value in asdict(section).items() if value is not None}
    for name, section in short.items():
        for key, value in section.items():
            if value is not None and tables[name].setdefault(key, value) != value:
                raise GroundupError(
                    f"--{key} {value} and --{name}.{key} {tables[name][key]} contradict each other"
                )
    return {name: section for name, section in tables.items() if section}


def load_given(recipe: str | None, config: Path | None, size: int | None, given: Tables) -> Recipe:
    """Load a packaged recipe, a recipe file over it, both scaled to a size, and the flags over all.

    The shape of the model to start from, if there is one, lies below all these layers: it holds
    where no layer states another.

    Args:
        recipe: The name of a packaged recipe; quickstart where neither a name nor a file is given.
        config: A recipe file.
        size: The number of layers to scale to.
        given: The fields given on the command line.

    Raises:
        GroundupError: The recipe can't be read or contradicts itself.
    """
    flags, layers = files.overrides(given), list[files.Layer]()
    if recipe is not None or config is None:
        layers.append(files.packaged(recipe or "quickstart"))
    if config is not None:
        layers.append(files.recipe_file(config))
    if init := files.model_to_start_from(*layers, flags):
        from groundup.training.initial import shape_layer

        layers.insert(0, shape_layer(init))
    if size is not None:
        shape = scaled(files.load_recipe(*layers), size)
        layers.append(files.Layer(shape, source=f"--size {size}"))
    return files.load_recipe(*layers, flags)


def check_alone(model: str, given: Tables, others: dict[str, Any]) -> None:
    """Refuse what says something of a recipe beside `--model`.

    Args:
        model: The name of the model.
        given: The fields of a recipe that were given.
        others: Words and flags, and what was given for each; None for what wasn't.

    Raises:
        GroundupError: Something was given.
    """
    fields = [f"--{name}.{key}" for name, section in given.items() for key in section]
    if wrong := [name for name, value in others.items() if value is not None] + fields:
        raise GroundupError(f"--model {model} is a model without a recipe: leave out {wrong[0]}")


SHORTEST = 8  # tokens of a context that is worth printing


def shorter_context(training: int, validation: int = 2) -> list[str] | None:
    """Return the flag that `groundup train` needs for a small text, or None if no flag helps.

    Args:
        training: The number of tokens to learn from, in the longest stream of them.
        validation: The number of tokens to be measured on.
    """
    most = training // 2
    if most < SHORTEST or validation < 2:
        return None
    fits = most >= files.load_recipe("quickstart").model.block_size
    return [] if fits else ["--model.block-size", str(most)]
