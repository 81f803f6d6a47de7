"""Results that stay: what was found of a run's checkpoint lies in the run's folder, and its model
card states it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from groundup.checkpoints.layouts.peft import ADAPTER_FILE
from groundup.checkpoints.layouts.weight_files import WEIGHTS_FILE
from groundup.checkpoints.publish import MANIFEST, STEP_NAME
from groundup.errors import EvaluationError
from groundup.files import parse_json, write_whole

FOLDER = "evaluations"
# times, and pieces of the text
UNSTABLE = {"seconds", "items_per_second", "tokens_per_second", "worst", "best"}

Result = dict[str, Any]  # what `groundup evaluate --json` prints


def keep(result: Result, checkpoint: Path) -> Path | None:
    """Write a result into the run of a checkpoint, in place of the same question's before; None for
    any other folder.

    The weights are named by their SHA-256: after a run was resumed from further back, a step may
    have others. Raises EvaluationError.
    """
    checkpoint = checkpoint.resolve()
    run = checkpoint.parent.parent
    weights = _weights(checkpoint)
    if weights is None:
        return None
    asked = {
        key: value
        for key, value in result.items()
        if isinstance(value, str | int) and key != "model"
    }
    asked |= {"conventions": sorted(result.get("cut", {})), "weights": weights}
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8")).hexdigest()[:12]
    file = run / FOLDER / f"{checkpoint.name}-{result['task']}-{name}.json"
    stated = {key: value for key, value in result.items() if key not in UNSTABLE} | {
        "weights": weights
    }
    try:
        file.parent.mkdir(exist_ok=True)
        write_whole(file, json.dumps(stated, indent=2) + "\n")
    except OSError as error:
        raise EvaluationError(
            f"the result can't be kept in {file}: {error.strerror}. It is printed above"
        ) from error
    return file


def kept_of(checkpoint: Path) -> list[Result]:
    """The results that were kept of exactly these weights, in the order of their files. Raises
    EvaluationError.
    """
    weights, found = _weights(checkpoint), []
    for file in sorted((checkpoint.parent.parent / FOLDER).glob("*.json")):
        try:
            result = parse_json(file.read_text("utf-8"))
            if result["weights"] == weights and result["task"]:
                found.append(result)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{file} isn't a result that groundup kept. Evaluate again, or delete it"
            ) from error
    return found


def _weights(checkpoint: Path) -> str | None:
    """The SHA-256 of a checkpoint's weights, by its manifest, which was verified when it was
    loaded; else None.
    """
    in_run = checkpoint.parent.name == "checkpoints" and STEP_NAME.fullmatch(checkpoint.name)
    if not in_run or not (checkpoint / MANIFEST).is_file():
        return None
    files = parse_json((checkpoint / MANIFEST).read_text("utf-8"))["files"]
    return files[WEIGHTS_FILE if WEIGHTS_FILE in files else ADAPTER_FILE]["sha256"]
