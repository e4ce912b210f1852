"""What an experiment will take, before anything is run: sizes, numbers of runs, tokens, operations."""

from collections.abc import Iterable, Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from llamazoo.ablation.cautions import cautions
from llamazoo.ablation.plan import Job, Plan, Role
from llamazoo.ablation.results import Costs, FieldDifference, Matched

__all__ = ["Preview", "PreviewStage", "PreviewVariant", "preview"]

BACKWARD = 3  # a training step takes so many times the operations of its forward. Kaplan et al. 2020, section 2.1


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


class PreviewVariant(Record):
    """A model of the comparison: how it comes to the base's size, what it costs, in what it differs."""

    name: str
    levels: dict[str, str]
    matched: Matched
    costs: Costs
    differences: list[FieldDifference]


class PreviewStage(Record):
    """All runs of one role, on the data or on a probe."""

    role: Role
    probe: str | None
    jobs: int
    tokens: int
    """Trained on by all of them."""
    flops: int
    """Of their training, evaluations apart."""


class Preview(Record):
    """What `--dry-run` tells."""

    name: str
    variants: list[PreviewVariant]
    stages: list[PreviewStage]
    jobs: int
    tokens: int
    flops: int
    warnings: list[str]
    """What the results will not be able to say, and why."""


def preview(plan: Plan, documents: int | None = None, data: Mapping[str, str | int | float] | None = None) -> Preview:
    """What the plan takes, all of it; which learning rates are chosen later changes nothing in that.

    `documents` is how many the loss is going to be measured on, if that is known already, `data` its facts.
    """
    experiment = plan.experiment
    stages = list(_stages(plan, plan.all_jobs()))
    off = {each.name: each.matched.off for each in plan.candidates}
    return Preview(
        name=experiment.name,
        variants=[
            PreviewVariant(name=each.name, levels=each.levels, matched=each.matched, costs=each.costs, differences=each.differences)
            for each in plan.candidates
        ],
        stages=stages,
        jobs=sum(stage.jobs for stage in stages),
        tokens=sum(stage.tokens for stage in stages),
        flops=sum(stage.flops for stage in stages),
        warnings=[
            *cautions(experiment.seeds, experiment.train.rates, noise=experiment.noise, off=off, documents=documents, data=data),
            *_left_out(plan),
        ],
    )


def _left_out(plan: Plan) -> Iterator[str]:
    for name, lengths in plan.left_out.items():
        for length, why in lengths.items():
            yield f"{name} fails at {length} times the trained length, where its loss will be missing: {why}"


def _stages(plan: Plan, jobs: Iterable[Job]) -> Iterator[PreviewStage]:
    costs = {each.name: each.costs.flops_per_token for each in plan.candidates}
    found: dict[tuple[Role, str | None], list[Job]] = {}
    for job in jobs:
        found.setdefault((job.role, job.probe), []).append(job)
    for (role, probe), same in found.items():
        flops = sum(BACKWARD * costs[job.variant] * job.tokens for job in same)
        yield PreviewStage(role=role, probe=probe, jobs=len(same), tokens=sum(job.tokens for job in same), flops=flops)
