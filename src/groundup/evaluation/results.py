"""Saves the evaluation results of a run's checkpoints in the run's folder, for the model card."""

import hashlib
import json
from pathlib import Path
from typing import Any

from groundup.checkpoints.layouts.peft import ADAPTER_FILE
from groundup.checkpoints.layouts.weight_files import WEIGHTS_FILE
from groundup.checkpoints.lifecycle import MANIFEST, STEP_NAME
from groundup.errors import EvaluationError
from groundup.evaluation.task import Result
from groundup.files import parse_json, write_whole

FOLDER = "evaluations"
# of the values that `--json` prints: times, and pieces of the text
NOT_SAVED = {"seconds", "items_per_second", "tokens_per_second", "worst", "best"}


def save_result(result: Result, checkpoint: Path) -> Path | None:
    """Save what a task measured of a checkpoint in the folder of the checkpoint's run.

    An earlier file is replaced if the same was measured: the same task on the same items or text,
    with the same settings and the same weights. The file states the SHA-256 of the weights, because
    a run that is resumed from an earlier checkpoint may reach the same step with different weights.

    Args:
        result: What the task found out about the model.
        checkpoint: The folder of the checkpoint.

    Returns:
        The file, or None for a folder that is no run's checkpoint.

    Raises:
        EvaluationError: The file can't be written.
    """
    checkpoint = checkpoint.resolve()
    weights = _weights(checkpoint)
    if weights is None:
        return None
    found = result.to_json()
    question = {key: found[key] for key in result.identity if key in found}
    question |= {"conventions": sorted(found.get("cut", {})), "weights": weights}
    name = hashlib.sha256(json.dumps(question, sort_keys=True).encode("utf-8")).hexdigest()[:12]
    folder = checkpoint.parent.parent / FOLDER
    file = folder / f"{checkpoint.name}-{found['task']}-{name}.json"
    stated = {key: value for key, value in found.items() if key not in NOT_SAVED}
    try:
        folder.mkdir(exist_ok=True)
        write_whole(file, json.dumps(stated | {"weights": weights}, indent=2) + "\n")
    except OSError as error:
        raise EvaluationError(
            f"the result can't be kept in {file}: {error.strerror}. It is printed above"
        ) from error
    return file


def saved_results(checkpoint: Path) -> list[dict[str, Any]]:
    """Read the evaluation results that were saved of a checkpoint's weights, sorted by file name.

    Raises:
        EvaluationError: A file isn't what groundup saved.
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
    """The SHA-256 of a checkpoint's weights, by its manifest, which was verified in loading."""
    in_run = checkpoint.parent.name == "checkpoints" and STEP_NAME.fullmatch(checkpoint.name)
    if not in_run or not (checkpoint / MANIFEST).is_file():
        return None
    files = parse_json((checkpoint / MANIFEST).read_text("utf-8"))["files"]
    return files[WEIGHTS_FILE if WEIGHTS_FILE in files else ADAPTER_FILE]["sha256"]
