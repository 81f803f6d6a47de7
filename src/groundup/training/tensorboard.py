"""TensorBoard's event files, which a recipe can ask for if TensorBoard is installed."""

from pathlib import Path

from groundup.errors import MachineError
from groundup.runs.records import Record, TaskRecord

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

    Args:
        folder: The run's folder.
        done: The number of completed steps; what an earlier, killed process wrote of later steps
            is purged.

    Raises:
        MachineError: TensorBoard isn't installed.
    """

    def __init__(self, folder: Path, done: int) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        purge_step = done + 1 if done else None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def write(self, record: Record) -> None:
        """Write a scalar for each value that TensorBoard should draw, over the step."""
        for field, name in NAMES.items():
            if (value := getattr(record, field, None)) is not None:
                self.writer.add_scalar(name, value, record.step)
        if isinstance(record, TaskRecord):
            name = f"{record.task}/{record.convention}_{record.measure}"
            self.writer.add_scalar(name, record.accuracy, record.step)

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
