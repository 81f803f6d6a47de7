"""`groundup prepare`: makes shuffled, verified shards of any text, in constant memory.

First every part of the input is encoded into run files. Then every shard is gathered from the run
files. The index is written last. A preparation that was stopped at any time can be resumed.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from groundup.data.shard_folder import INDEX, TOKENIZER_FOLDER, ShardFolder, open_folder, read_index
from groundup.data.splits import token_dtype
from groundup.errors import CorpusError
from groundup.machine.cores import usable_cores
from groundup.prepare.hub_datasets import named_dataset
from groundup.prepare.inputs import CHANGED, Part
from groundup.prepare.plan import (
    DOWNLOADS,
    PLAN,
    WORK,
    Plan,
    Preparation,
    explained,
    inputs_of,
    parts_of,
)
from groundup.prepare.progress import Progress
from groundup.prepare.workers import Call, Runner, Workers, run_here
from groundup.tokenizers.base import tokenizer_sha256
from groundup.tokenizers.load import load_tokenizer

LOCK_SECONDS = 1.0


def prepare(preparation: Preparation, out: Path, workers: int = 0, ray: str = "") -> ShardFolder:
    """Make shards of a source, and gather statistics of the documents.

    A preparation that was stopped is resumed. The shards of a finished one are only opened.

    Args:
        preparation: What to prepare, and how.
        out: The folder of the shards.
        workers: The number of processes; 0 takes one for each usable core.
        ray: The address of a Ray cluster that shares the disk; empty works on this machine.

    Returns:
        The open folder.

    Raises:
        GroundupError: The source, the tokenizer or the folder can't be used.
    """
    out = out.expanduser().resolve()
    _check_output(out, preparation)
    if (out / INDEX).is_file():
        _check_finished(out, preparation)
    else:
        with explained(out):
            (out / WORK).mkdir(parents=True, exist_ok=True)
            with _locked(out), runner(workers, ray) as run:
                if not (out / INDEX).is_file():  # another process may have come first
                    # a path is of this machine
                    plan = plan_in(out, preparation, run_here if ray else run)
                    _prepare(out, plan, run, workers or usable_cores())
    shutil.rmtree(out / WORK, ignore_errors=True)
    return open_folder(out)


def _check_output(out: Path, preparation: Preparation) -> None:
    """Refuse a folder with something else in it, and one that would be read itself."""
    if out.exists() and not out.is_dir():
        raise CorpusError(f"--out {out} is a file; give a folder")
    is_ours = (out / WORK).is_dir() or (out / INDEX).is_file()
    if out.is_dir() and not is_ours and any(out.iterdir()):
        remedy = "give an empty folder, or one that isn't there yet"
        raise CorpusError(f"--out {out} has something else in it; {remedy}")
    source = Path(preparation.source).expanduser().resolve()
    if source.is_dir() and out.is_relative_to(source):
        what = f"--out {out} lies in the source {source} and would be read itself"
        raise CorpusError(f"{what}; give a folder elsewhere")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One process at a time; what is refused before there is a plan leaves nothing behind."""
    try:
        with FileLock(out / WORK / "lock", timeout=LOCK_SECONDS):
            try:
                yield
            finally:
                _remove_if_not_begun(out)
    except PermissionError as error:
        what = f"{error.filename} can't be written: {error.strerror}"
        raise CorpusError(f"{what}. Give another --out") from error
    except Timeout as error:
        raise CorpusError(f"another process is preparing {out}: wait for it, or end it") from error


def _remove_if_not_begun(out: Path) -> None:
    if not (out / WORK / PLAN).is_file() and not (out / INDEX).is_file():
        shutil.rmtree(out / WORK)
        shutil.rmtree(out / TOKENIZER_FOLDER, ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()


def _check_finished(out: Path, preparation: Preparation) -> None:
    """Refuse where `out` holds another preparation, or the source has other files now."""
    index = read_index(out / INDEX)
    if not {"preparation", "inputs"} <= index.keys():
        what = "shards that `groundup prepare` didn't make"
        raise CorpusError(f"--out {out} has {what}: give another folder")
    try:
        before = Preparation(**index["preparation"])
    except TypeError as error:
        what = f"{out} was prepared by another version of groundup ({error})"
        raise CorpusError(f"{what}: give another --out") from error
    _check_same(out, before, index["tokenizer"]["sha256"], preparation)
    if not is_remote(preparation):
        inputs = inputs_of(parts_of(preparation))
        if index["inputs"] != inputs:
            what = f"{out} was prepared from other files than {preparation.source} has now"
            raise CorpusError(f"{what}: give another --out")


def is_remote(preparation: Preparation) -> bool:
    """Tell whether the source is on the hub; the files of such a source are listed only once."""
    return named_dataset(preparation.source, preparation.sample or None) is not None


def _check_same(out: Path, before: Preparation, tokenizer: str, now: Preparation) -> None:
    """Refuse another preparation, and another tokenizer under the same name."""
    wanted = asdict(now)
    for name, value in asdict(before).items():
        if wanted[name] != value:
            what = f"{out} was begun with {name} = {value}, not {wanted[name]}"
            raise CorpusError(f"{what}: give another --out, or delete it")
    is_characters = now.tokenizer == "characters"
    if not is_characters and tokenizer_sha256(load_tokenizer(now.tokenizer)) != tokenizer:
        what = f"tokenizer {now.tokenizer} isn't the one that {out} was begun with"
        raise CorpusError(f"{what}: give another --out")


def _check_disk(out: Path, plan: Plan, workers: int) -> None:
    """Refuse where what will be written can't have room."""
    # runs and shards, for a while both
    need = int(2.1 * plan.expected_tokens * token_dtype(plan.vocab_size).itemsize)
    remote = sorted(part.remote.size for part in plan.parts if part.remote)
    # each worker has a file, until its documents are tokens; with a limit as many are kept
    need += sum(remote[-workers * (2 if plan.preparation.limit else 1) :])
    need -= sum(path.stat().st_size for path in (out / WORK).rglob("*"))
    free = shutil.disk_usage(out).free
    if free < need:
        needs = f"{need / 1e9:.1f} GB, half of it for the time of the preparation"
        remedy = "Make room, choose another disk with --out, or take less with --tokens"
        has = f"but its disk has {free / 1e9:.1f} GB free"
        raise CorpusError(f"{out} needs about {needs}, {has}. {remedy}")


@contextmanager
def runner(workers: int, ray: str) -> Iterator[Runner]:
    """Choose what makes the function calls of a preparation, and end its processes afterwards.

    Args:
        workers: The number of processes; 0 takes one for each usable core.
        ray: The address of a Ray cluster; empty works on this machine.

    Yields:
        A function that takes function calls and yields their results.

    Raises:
        GroundupError: There is no such cluster, or no such number of processes.
    """
    if ray:
        from groundup.prepare.ray import join_cluster, run_on_cluster

        join_cluster(ray)
        yield run_on_cluster
        return
    if workers < 0:
        raise CorpusError(f"--workers {workers} must be a number of processes, from 1")
    count = workers or usable_cores()
    if count == 1:
        yield run_here
    else:
        with Workers(count) as processes:
            yield processes.run


def _prepare(out: Path, plan: Plan, run: Runner, workers: int) -> None:
    """Both phases, and the index."""
    _check_disk(out, plan, workers)
    with Progress(plan) as progress:
        shared = {"out": str(out), "parts": encode_parts(out, plan, run, progress, workers)}
        [(_, counts)] = run([("count_shards", shared)])
        calls = [("write_shard", shared | {"number": n}) for n in range(sum(counts.values()))]
        for done, _ in enumerate(run(calls), start=1):
            progress.shard(done, len(calls))
    _one(run, ("write_index", shared))


def plan_in(out: Path, preparation: Preparation, run: Runner) -> Plan:
    """Read the plan in the output folder, or make the plan if there is none.

    Raises:
        GroundupError: The source can't be used, or the plan there is of something else.
    """
    if not (out / WORK / PLAN).is_file():
        _one(run, ("make_plan", {"out": str(out), "preparation": asdict(preparation)}))
        return Plan.read(out / WORK)
    plan = Plan.read(out / WORK)
    _check_same(out, plan.preparation, plan.made_by, preparation)
    if not is_remote(preparation):
        parts = parts_of(preparation)
        if tuple(parts) != plan.parts:
            remedy = f"Delete {out} and prepare again, or restore the source"
            raise CorpusError(f"{CHANGED.format(preparation.source)} {remedy}")
    return plan


def _one(run: Runner, call: Call) -> None:
    """Run a single call."""
    for _ in run([call]):
        pass


def encode_parts(out: Path, plan: Plan, run: Runner, progress: Progress, workers: int) -> int:
    """Encode parts up to the limit of tokens; the last ends with the document that reaches it.

    The last part is encoded again, up to that document. While it isn't known which one is last, as
    many downloaded files of encoded parts are kept as there are workers; if the last part's isn't
    among them, it is downloaded again.

    Returns:
        The number of parts that were encoded, from the first on.
    """
    limit, taken, total, tokens = plan.preparation.limit, 0, 0, 0

    def call(number: int, most: int) -> Call:
        return "encode_part", {"out": str(out), "number": number, "limit": most}

    while taken < len(plan.parts) and (not limit or total < limit):
        found = {}
        calls = (call(number, limit) for number in _wave(plan, taken, limit - total))
        for (_, arguments), result in run(calls):
            number = arguments["number"]
            found[number] = result["tokens"]
            progress.part(plan.parts[number], result)
            while taken in found and (not limit or total < limit):
                tokens = found[taken]
                total, taken = total + tokens, taken + 1
                if total < limit:  # then it is never encoded again
                    _forget_download(out, plan.parts[taken - 1])
            done = sorted(number for number in found if limit and number >= taken)
            for early in done[:-workers]:  # the later ones are the likelier to be last
                _forget_download(out, plan.parts[early])
    if 0 < limit < total:
        _one(run, call(taken - 1, limit - (total - tokens)))
    for part in plan.parts if limit else ():
        _forget_download(out, part)
    return taken


def _forget_download(out: Path, part: Part) -> None:
    """Delete the file of a part on the hub, whose documents are tokens now."""
    if part.remote:
        (out / WORK / DOWNLOADS / part.remote.path).unlink(missing_ok=True)


def _wave(plan: Plan, first: int, wanted: int) -> Iterator[int]:
    """Parts from `first` on that should have as many tokens as are wanted; without a limit all."""
    for number in range(first, len(plan.parts)):
        yield number
        wanted -= int(plan.parts[number].size * plan.tokens_per_byte)
        if plan.preparation.limit and wanted <= 0:
            return
