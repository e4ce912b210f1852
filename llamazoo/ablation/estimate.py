"""How long an experiment will take: a few steps of each variant are timed, and the rest is multiplication."""

import time
from collections.abc import Mapping, Sequence

import torch

from llamazoo.ablation.fresh import as_usual, fresh_model
from llamazoo.ablation.plan import Job
from llamazoo.data.example import DataSet, stacked
from llamazoo.registry import Registry
from llamazoo.training.optimizer import Updater
from llamazoo.training.pinned import pinned

__all__ = ["seconds_of"]

STEPS = 2  # that are timed, after one that is not
ENOUGH = 2048  # tokens of a step; with fewer, what is timed is the cost of calling operators
EVALUATIONS = 10  # in a run, unless its recipe says otherwise
FORWARD = 1 / 3  # of a training step's time


def seconds_of(jobs: Sequence[Job], data: Mapping[str | None, DataSet], registry: Registry | None = None) -> list[float]:
    """Seconds that each job will take on this machine when nothing else runs: roughly, and without the time to compile.

    An error, be it of a stranger's part, carries a note that says in which model it came.
    """
    known: dict[tuple[str, str | None], float] = {}
    with as_usual():
        for job in jobs:
            key = job.variant, job.probe
            if key not in known:
                known[key] = _noted(job, data[job.probe], registry)
    return [known[job.variant, job.probe] * _tokens(job, data[job.probe]) for job in jobs]


def _noted(job: Job, data: DataSet, registry: Registry | None) -> float:
    try:
        return _per_token(job, data, registry)
    except Exception as error:
        error.add_note(f"in the first steps of {job.variant!r}{f' on {job.probe}' if job.probe else ''}")
        raise


def _per_token(job: Job, data: DataSet, registry: Registry | None) -> float:
    recipe = job.recipe.model_copy(update={"compile": False})
    model, examples = fresh_model(job, registry), data.training(recipe.seq_len, job.data_seed)
    rows = min(recipe.batch, max(4, ENOUGH // recipe.seq_len))
    with pinned(recipe, model.device, 0):
        updater, seconds = Updater(model, recipe), []
        for step in range(1 + STEPS):
            batch = stacked(examples[step * rows + row] for row in range(rows)).to(model.device)
            begun = time.perf_counter()
            updater.step(batch, step)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds.append(time.perf_counter() - begun)
    return min(seconds[1:]) / (rows * recipe.seq_len)


def _tokens(job: Job, data: DataSet) -> float:
    """Training tokens that take as long as all that the job does."""
    recipe = job.recipe
    evaluated = min(recipe.evaluate_tokens, len(data.validation(recipe.seq_len)) * recipe.seq_len)
    count = EVALUATIONS if recipe.evaluate_every is None else -(-recipe.tokens // recipe.evaluate_every)
    return job.tokens + FORWARD * evaluated * (count + sum(length > 1 for length in job.lengths))
