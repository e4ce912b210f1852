"""One run of an experiment, from its job to its figures; it leaves them in a folder, and a run that is there is not repeated."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llamazoo.ablation.environment import machine
from llamazoo.ablation.fresh import as_usual, fresh_model
from llamazoo.ablation.measure import Memory, decode_tokens_per_second, losses_at
from llamazoo.ablation.outcomes import on_probe
from llamazoo.ablation.plan import Job
from llamazoo.ablation.results import CurvePoint, Outcome, Run
from llamazoo.data.example import DataSet
from llamazoo.errors import DivergedError, TrainingError
from llamazoo.registry import Registry
from llamazoo.training.claim import claimed
from llamazoo.training.loop import train
from llamazoo.training.pinned import pinned
from llamazoo.training.watch import Watcher

__all__ = ["Done", "RunTiming", "done", "perform", "run_of"]

RESULT = "result.json"


class RunTiming(BaseModel):
    """What a run took, which no two runs have in common."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    train_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    peak_memory_bytes: int | None
    seconds: float


class Done(BaseModel):
    """result.json of a run: its figures, and what they took."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    key: str
    tokens: int
    outcomes: dict[Outcome, float | None]
    curve: list[CurvePoint]
    training: list[CurvePoint]
    skipped: int
    diverged: str | None
    machine: dict[str, str]
    """What it was done with and on."""
    timing: RunTiming


def done(job: Job, folder: Path) -> Done | None:
    """The figures of a run that is through, or None. Raises TrainingError if they cannot be read."""
    file = folder / job.key / RESULT
    if not file.is_file():
        return None
    try:
        found = Done.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise TrainingError(f"{file}: is damaged ({str(error).splitlines()[0]}); remove it, and the run is done again") from None
    if found.key != job.key:
        raise TrainingError(f"{file}: belongs to the run {found.key}; remove it, and this run is done again")
    return found


def perform(job: Job, folder: Path, data: DataSet, *, registry: Registry | None = None, watchers: Sequence[Watcher] = ()) -> Done:
    """Train, measure, and leave the figures under the job's key in `folder`; a run that was interrupted goes on where it was.

    An error, be it of a stranger's part, carries a note that says in which run it came.
    """
    try:
        with as_usual():
            return _kept(job, folder, data, registry, watchers)
    except Exception as error:
        error.add_note(f"in the run of {job.variant!r}: {_told(job)}")
        raise


def _told(job: Job) -> str:
    role = job.role if job.probe is None else f"{job.role} on {job.probe}"
    return f"{role}, seed {job.seed}, learning rate {job.recipe.lr:g}"


def _kept(job: Job, folder: Path, data: DataSet, registry: Registry | None, watchers: Sequence[Watcher]) -> Done:
    place = folder / job.key
    with claimed(place, wait=True):  # another program may be at it, and will be through, or die
        found = done(job, folder)
        if found is not None:
            return found
        found = _performed(job, place, data, registry, watchers)
        draft = place / f".{RESULT}"
        draft.write_text(found.model_dump_json(indent=1), encoding="utf-8")
        draft.replace(place / RESULT)
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return found


def _performed(job: Job, place: Path, data: DataSet, registry: Registry | None, watchers: Sequence[Watcher]) -> Done:
    model = fresh_model(job, registry)
    memory = Memory(model.device)
    diverged = None
    try:
        trained = train(model, data, job.recipe, place, seed=job.data_seed, watchers=watchers)
    except DivergedError as error:
        trained, diverged = error.trained, str(error)
    peak, points = memory.peak(), trained.points
    outcomes: dict[Outcome, float | None] = {"loss": None, **({"accuracy": None} if data.accuracy else {})}
    speed = None
    if diverged is None:
        outcomes = {"loss": points[-1].loss, **({"accuracy": points[-1].accuracy} if data.accuracy else {})}
        with pinned(job.recipe, model.device, job.data_seed):
            outcomes |= losses_at(model, data, job.recipe, job.lengths)
            speed = decode_tokens_per_second(model, job.recipe.seq_len)
    return Done(
        key=job.key,
        tokens=trained.tokens,
        outcomes=outcomes,
        curve=[CurvePoint(tokens=p.tokens, loss=p.loss, accuracy=p.accuracy if data.accuracy else None) for p in points],
        training=[CurvePoint(tokens=p.tokens, loss=p.training_loss) for p in points if p.training_loss is not None],
        skipped=trained.skipped,
        diverged=diverged,
        machine=machine(model.device),
        timing=RunTiming(
            train_tokens_per_second=trained.tokens_per_second if trained.tokens else None,
            decode_tokens_per_second=speed,
            peak_memory_bytes=peak,
            seconds=trained.seconds,
        ),
    )


def run_of(job: Job, found: Done) -> Run:
    """The figures under the names that the experiment has for them."""
    outcomes = found.outcomes
    if job.probe is not None:
        outcomes = {on_probe(job.probe): outcomes.get("accuracy")}
    return Run(
        variant=job.variant,
        role=job.role,
        probe=job.probe,
        seed=job.seed,
        lr=job.recipe.lr,
        tokens=found.tokens,
        outcomes=outcomes,
        curve=found.curve,
        training=found.training,
        skipped=found.skipped,
        diverged=found.diverged,
    )
