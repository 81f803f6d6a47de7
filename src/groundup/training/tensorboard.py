"""TensorBoard's event files, which a recipe can ask for if TensorBoard is installed."""

from typing import Any

from groundup.errors import MachineError
from groundup.runs.folder import MetricsReader, RunFolder

NAMES = {
    "loss": "loss/step",
    "learning_rate": "optimizer/learning_rate",
    "gradient_norm": "optimizer/gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
}


class TensorBoard:
    """A writer of one event file.

    What an earlier process wrote of the last step and of later ones is purged. What metrics.jsonl
    has of the last step is then written again, because some of it may have to be measured anew.

    Args:
        run: The run's folder, in which metrics.jsonl has nothing of later steps.
        done: The number of completed steps.

    Raises:
        MachineError: TensorBoard isn't installed.
    """

    def __init__(self, run: RunFolder, done: int) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=done)
        for line in MetricsReader(run).new_lines():
            if line["step"] == done:
                self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        """Write a scalar for each value that TensorBoard should draw, over the step.

        Args:
            line: A line of metrics.jsonl.
        """
        for field, name in NAMES.items():
            if line.get(field) is not None:
                self.writer.add_scalar(name, line[field], line["step"])
        if "accuracy" in line:
            name = f"{line['kind']}/{line['convention']}_{line['measure']}"
            self.writer.add_scalar(name, line["accuracy"], line["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        self.writer.close()


def check_installed() -> None:
    """Check that TensorBoard is installed.

    Raises:
        MachineError: TensorBoard isn't installed.
    """
    try:
        import tensorboard as _  # noqa: F401
    except ImportError:
        raise MachineError(
            "train.log = tensorboard needs the extra: pip install 'groundup[tensorboard]', or "
            "choose --train.log none"
        ) from None
