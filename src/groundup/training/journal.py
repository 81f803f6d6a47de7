"""The journal: records what a run measures as it goes, and shows it.

The main process has a journal that writes and shows; the journals of other processes do nothing.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from groundup.console import plain_console, report
from groundup.evaluation.task import TASKS, TITLES
from groundup.evaluation.units import perplexity
from groundup.recipes.schema import Recipe
from groundup.runs.folder import MetricsReader, RunFolder
from groundup.runs.plot import RunCurves, plot_losses
from groundup.runs.records import EvaluationRecord, Record, StepRecord, TaskRecord
from groundup.training.costs import TimeBudget
from groundup.training.tensorboard import TensorBoard

REDRAW_AFTER = 60.0  # seconds between two drawings of loss.png while training goes on


class Journal:
    """A journal that does nothing, which every process but the main one keeps."""

    def say(self, text: str) -> None:
        """Show a line to the user."""

    def step(self, record: StepRecord) -> None:
        """Record an optimizer step."""

    def length(self, recipe: Recipe, budget: TimeBudget) -> None:
        """Record the length in steps that was decided for a run with a time budget."""

    def evaluation(self, record: EvaluationRecord) -> None:
        """Record losses that were measured."""

    def sample(self, evaluation: EvaluationRecord, text: str) -> None:
        """Record a text that was sampled."""

    def scores(self, record: TaskRecord) -> None:
        """Record how the model did at a task."""

    @contextmanager
    def harmless(self, what: str) -> Iterator[None]:
        """Let training go on where the body, which only reports, fails.

        Args:
            what: What the body does, for the user.
        """
        try:
            yield
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.say(f"{what} failed ({reason[:200]}): training goes on")

    @contextmanager
    def open(self, run: RunFolder, done: int, steps: int, tensorboard: bool) -> Iterator[None]:
        """Keep the journal of a run open while the body trains it.

        Args:
            run: The folder that records go to.
            done: The number of completed steps.
            steps: The number of all steps.
            tensorboard: Whether TensorBoard's event file is written too.
        """
        yield


class _Terminal(Console):
    """A console that tells its user of a closed pipe, and doesn't end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError("Broken pipe")


class MainJournal(Journal):
    """The journal that writes into the run's folder, and shows a bar or a line an evaluation."""

    def __init__(self) -> None:
        self.console = plain_console(_Terminal, soft_wrap=True)
        self.run: RunFolder | None = None
        self.tensorboard: TensorBoard | None = None
        self.last_drawn = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def say(self, text: str, style: str = "") -> None:
        try:
            self.console.print(Text(text, style=style))
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            self.fall_silent(error)

    def fall_silent(self, error: Exception) -> None:
        """Print nothing more where stdout can't be written, and say so once on stderr."""
        self.console.quiet = True
        with suppress(OSError, ValueError):
            report(f"groundup: nobody reads stdout any more ({error}): training goes on")
        with suppress(OSError, ValueError):  # what waits to be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextmanager
    def open(self, run: RunFolder, done: int, steps: int, tensorboard: bool) -> Iterator[None]:
        self.run, self.metrics, self.curves = run, MetricsReader(run), RunCurves(TITLES)
        self.tensorboard = TensorBoard(run, done) if tensorboard else None
        self.task = self.bar.add_task(run.name, total=steps, completed=done, loss="-", speed="-")
        with self.harmless("the progress bar"):
            self.bar.start()
        try:
            yield
        finally:
            with self.harmless("the progress bar"):
                self.bar.stop()
            if self.tensorboard is not None:
                with self.harmless("TensorBoard's file"):
                    self.tensorboard.close()
            self.draw(run)

    def draw(self, run: RunFolder) -> None:
        """Draw the picture of the losses."""
        with self.harmless("the picture of the losses"):
            self.curves.add(self.metrics.new_lines())
            plot_losses(self.curves, run.path / "loss.png", run.name)
        self.last_drawn = time.monotonic()

    def record(self, record: Record) -> RunFolder:
        """Write a record to metrics.jsonl, and to TensorBoard where the recipe asks for it."""
        assert self.run is not None
        line = record.to_json()
        self.run.append_metrics(line)
        if self.tensorboard is not None:
            with self.harmless("TensorBoard's file"):
                self.tensorboard.write(line)
        return self.run

    def length(self, recipe: Recipe, budget: TimeBudget) -> None:
        assert self.run is not None
        self.run.write(recipe, self.run.read_facts() | {"time_budget": budget.to_json()})
        self.bar.update(self.task, total=budget.decided)
        self.say(
            f"step {budget.review:>6,}  {budget.seconds / 60:g} minutes are {budget.decided:,} "
            f"steps by what the first ones took; {budget.planned:,} were planned"
        )

    def step(self, record: StepRecord) -> None:
        self.record(record)
        speed = f"{record.tokens_per_second:,.0f}"
        self.bar.update(self.task, completed=record.step, loss=f"{record.loss:.3f}", speed=speed)

    def evaluation(self, record: EvaluationRecord) -> None:
        run = self.record(record)
        training = "" if record.train_loss is None else f"train {_loss(record.train_loss)}  "
        self.say(
            f"step {record.step:>6,}  {training}validation {_loss(record.validation_loss)}  "
            f"{record.bits_per_byte:.3f} bits a byte  {record.tokens:,} tokens  "
            f"{record.seconds:.0f} s"
        )
        if record.validation_losses:
            losses = record.validation_losses.items()
            self.say("  " + "  ".join(f"{name} {_loss(loss)}" for name, loss in losses))
        if time.monotonic() - self.last_drawn > REDRAW_AFTER:
            self.draw(run)

    def sample(self, evaluation: EvaluationRecord, text: str) -> None:
        assert self.run is not None
        self.run.append_sample(evaluation.step, evaluation.validation_loss, text)
        if self.console.is_terminal:
            self.say(text.strip("\n"), style="dim")

    def scores(self, record: TaskRecord) -> None:
        self.record(record)
        low, high = record.interval
        self.say(
            f"step {record.step:>6,}  {TASKS[record.task].title} {record.accuracy:.1%} by "
            f"{record.convention} {record.measure}  95% interval {100 * low:.1f} to "
            f"{100 * high:.1f}%  {record.items:,} "
            f"{'unofficial items' if record.official is False else 'items'}"
        )


def _loss(loss: float) -> str:
    return f"{loss:.4f} (perplexity {perplexity(loss):.2f})"
