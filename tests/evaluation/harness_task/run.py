"""Runs lm-evaluation-harness on `model` and `items.jsonl` in this folder, and prints what it found
as JSON. Further arguments of its model class are given as one JSON object, in which `model_class`
takes another class than that of Hugging Face's models.

A process of its own, because it has to be offline before it imports anything; not the harness's own
command, which reads its thousands of tasks first.
"""

import json
import sys
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager


def main() -> None:
    """Its Hugging Face model class on the CPU, in the folder's precision; each item's sample, and
    the accuracies.
    """
    more = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    kind = more.pop("model_class", "hf")
    own = {"pretrained": "model", "dtype": "auto"} if kind == "hf" else {}
    found = simple_evaluate(
        model=kind,
        model_args=own | more,
        tasks=["hellaswag_file"],
        batch_size=4,
        device="cpu",
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(Path(__file__).parent), include_defaults=False),
    )
    kept = {
        "samples": found["samples"]["hellaswag_file"],
        "results": found["results"]["hellaswag_file"],
    }
    sys.stdout.write(json.dumps(kept, default=str) + "\n")


if __name__ == "__main__":
    main()
