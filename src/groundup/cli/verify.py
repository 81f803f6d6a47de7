"""`groundup verify` on the command line: thin and lazy."""

from typing import Annotated

from cyclopts import Parameter


def verify_claims(
    model: Annotated[
        str | None,
        Parameter(
            help=(
                "A run, a model folder, or gpt2 or OWNER/NAME of the hub; small random models if "
                "left out."
            )
        ),
    ] = None,
    /,
    *,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    json: Annotated[
        bool, Parameter(help="One JSON object instead of a table.", negative=())
    ] = False,
) -> None:
    """Prove on this machine that all parts compute the same: each claim with its error and its
    bound.
    """
    from groundup.verification.verify import print_verification

    raise SystemExit(print_verification(model, device, json))
