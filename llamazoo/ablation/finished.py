"""Which runs of an experiment are through already, and which are left."""

from pathlib import Path

from llamazoo.ablation.plan import Job, Plan, best_rate
from llamazoo.ablation.work import done

__all__ = ["left"]


def left(plan: Plan, runs: Path) -> list[Job]:
    """The runs that are still to be done, where those that are through lie in the folder `runs`.

    As long as a learning rate is not chosen, the runs that wait for it are left, with the lowest one. Raises TrainingError for a
    result that cannot be read.
    """
    experiment, rates = plan.experiment, plan.experiment.train.rates
    losses: dict[tuple[str, int], dict[float, float | None]] = {}
    waiting = []
    for job in plan.tuning_jobs():
        found = done(job, runs)
        if found is None:
            waiting.append(job)
        else:
            losses.setdefault((job.variant, job.seed), {})[job.recipe.lr] = None if found.diverged else found.outcomes.get("loss")
    known = {key: best_rate(tried) for key, tried in losses.items() if len(tried) == len(rates)}
    pairs = [(each.name, seed) for each in plan.candidates for seed in experiment.seed_numbers]
    unknown = set(pairs) - set(known) if len(rates) > 1 else set()
    chosen = {each.name: {seed: known.get((each.name, seed), rates[0]) for seed in experiment.seed_numbers} for each in plan.candidates}
    final = plan.final_jobs(chosen)
    return [*waiting, *(job for job in final if (job.variant, job.seed) in unknown or done(job, runs) is None)]
