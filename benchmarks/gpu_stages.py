"""One stage of gpu.py, in a process of its own: prints what it finds as lines of JSON.

    python benchmarks/gpu_stages.py STAGE --folder FOLDER --ends TIME [--toy]

A line holds what was found since the line before, so that nothing is lost when a later part fails.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpu_checks import equality, waits
from gpu_place import Place, place_of
from gpu_runs import recipe, resume
from gpu_speed import decoding, environment, kernels, save, throughput

STAGES: dict[str, Callable[[Place], Iterator[dict[str, Any]]]] = {
    "environment": environment,
    "equality": equality,
    "waits": waits,
    "resume": resume,
    "throughput": throughput,
    "decoding": decoding,
    "save": save,
    "kernels": kernels,
    "recipe": recipe,
}


def main(words: list[str] | None = None) -> None:
    """Run the stage that the words of the command line name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--ends", type=float, required=True, help="when it is killed, by the monotonic clock"
    )
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args(words)
    stdout, sys.stdout = sys.stdout, sys.stderr  # where nothing but ours may stand

    def say(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=stdout, flush=True)

    try:
        place = place_of(given.stage, given.folder, given.ends, given.toy)
        say({"device": str(place.device)})
        for found in STAGES[given.stage](place):
            say(found)
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).strip().splitlines() or [""])[0]
        say({"error": f"{type(error).__name__}: {reason}"[:500]})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
