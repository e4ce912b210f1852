"""llamazoo plan"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from llamazoo.cli.arguments import AsJson, Dtype, PartsFiles, Settings, overrides, torch_dtype
from llamazoo.cli.printed import console, counted, print_json, table
from llamazoo.cli.target import spec_of
from llamazoo.cli.visible import visible
from llamazoo.cost import readable
from llamazoo.errors import UnsupportedError
from llamazoo.parts import registry_with
from llamazoo.plan.gpus import RESERVE, gpus_named
from llamazoo.plan.measure import Training
from llamazoo.plan.need import Fit, Need, Optimizer, Plan, Use

__all__ = ["run"]


def run(
    spec: Annotated[str, typer.Argument(help="A name of the zoo, a spec's file, or a model's folder of any format.")],
    context: Annotated[
        int | None, typer.Option("--context", metavar="TOKENS", help="Tokens in a row; the model's context unless given.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="ROWS", help="Rows at once.")] = 1,
    dtype: Annotated[
        Dtype, typer.Option("--dtype", metavar="DTYPE", help=f"The number type of the weights: {', '.join(Dtype)}.")
    ] = Dtype.BFLOAT16,
    chunk: Annotated[int, typer.Option("--chunk", metavar="TOKENS", help="Tokens of a prompt that enter at once.")] = 512,
    train: Annotated[bool, typer.Option("--train", help="Plan for training, not for generation.")] = False,
    optimizer: Annotated[Optimizer, typer.Option("--optimizer", metavar="NAME", help="What trains: adamw or sgd.")] = Optimizer.ADAMW,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Keep only what enters each layer, and run it again.")] = False,
    gpus: Annotated[
        str | None, typer.Option("--gpus", metavar="NAMES", help="GPUs to look at, such as 'A100 80GB, H100'; all unless given.")
    ] = None,
    settings: Settings = None,
    parts: PartsFiles = None,
    json: AsJson = False,
) -> None:
    """Tell the memory and the operations that running or training a model takes, and which GPUs have them."""
    chosen = gpus_named(gpus)
    found = spec_of(spec, overrides(settings), registry_with(parts))
    numbers = torch_dtype(dtype)
    assert numbers is not None
    use = Use(found.max_seq_len if context is None else context, batch, numbers, chunk, train, optimizer, checkpointing)
    plan = Plan(found, use)
    need, fits = plan.need(1), [plan.fit(gpu) for gpu in chosen]
    trainings = _trainings(plan)
    if json:
        print_json(_data(plan, need, trainings, fits))
        return
    out = console()
    out.print(visible(f"{found.source or spec}, {_told(use)}"), style="bold")
    for what, told in _needs(plan, need, trainings):
        out.print(f"{what:<13} {told}")
    out.print()
    out.print(_fits(plan, fits))
    out.print(
        f"Bounds from data sheets, which no GPU reaches: memory and matrix units always busy. {readable(RESERVE)} of each is left free."
    )


def _told(use: Use) -> str:
    dtype = str(use.dtype).removeprefix("torch.")
    rows = f"{use.batch} row{'s' if use.batch > 1 else ''} of {use.context} tokens, in {dtype}"
    if not use.train:
        return f"generating: {rows}"
    return f"training with {use.optimizer}{', checkpointing' if use.checkpointing else ''}: {rows}"


def _trainings(plan: Plan) -> dict[bool, Training]:
    """Activations without and with checkpointing; neither if they cannot be measured."""
    if not plan.use.train:
        return {}
    try:
        return {checkpointing: plan.training(checkpointing) for checkpointing in (False, True)}
    except UnsupportedError:
        return {}


def _needs(plan: Plan, need: Need, trainings: dict[bool, Training]) -> Iterator[tuple[str, str]]:
    use = plan.use
    yield "parameters", counted(plan.whole.parameters)
    yield "weights", readable(need.weights)
    if use.train:
        yield "gradients", readable(need.gradients)
        yield (
            "optimizer",
            f"{readable(need.optimizer)} of float32 states" + (f", {readable(need.master)} of master weights" if need.master else ""),
        )
    else:
        yield "cache", f"{readable(need.cache)} for all rows"
    if need.activations is None:
        yield "activations", visible(f"not known: {plan.unmeasured}")
    elif use.train:
        for checkpointing, told in trainings.items():
            how = "with checkpointing" if checkpointing else "without"
            yield (
                "activations",
                f"{readable(told.peak)} at most {how}; {readable(told.kept)} kept, {readable(told.logits)} of it for logits and loss",
            )
    else:
        yield "activations", f"{readable(need.activations)} at most, while {min(use.chunk, use.context)} tokens a row enter"
    yield "in all", readable(need.total)
    yield "operations", f"{_flops(plan.flops_per_token)} per token, forward, in the mean; {_flops(plan.flops_per_step)} per step"


def _flops(count: float) -> str:
    for power, unit in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}FLOP"
    return f"{count:.0f} FLOP"


def _fits(plan: Plan, fits: list[Fit]) -> Any:
    bound = "seconds a step, at least" if plan.use.train else "tokens a second, at most"
    made = table("GPU", "memory", "how many", "on each", bound, right=("memory", "how many", "on each", bound))
    for fit in fits:
        number = fit.step_seconds if plan.use.train else fit.tokens_per_second
        told = "" if number is None else f"{number:.3g}" if number < 100 else f"{number:,.0f}"
        many, each = ("does not fit", "") if fit.need is None else (str(fit.need.gpus), readable(fit.need.total))
        made.add_row(fit.gpu.name, readable(fit.gpu.memory), many, each, told)
    return made


def _data(plan: Plan, need: Need, trainings: dict[bool, Training], fits: list[Fit]) -> dict[str, Any]:
    use = plan.use
    return {
        "source": plan.spec.source,
        "use": {**asdict(use), "dtype": str(use.dtype).removeprefix("torch."), "optimizer": str(use.optimizer) if use.train else None},
        "parameters": plan.whole.parameters,
        "bytes": _bytes(need),
        "training": {"checkpointing" if c else "plain": asdict(told) for c, told in trainings.items()},
        "unmeasured": plan.unmeasured,
        "flops_per_token": plan.flops_per_token,
        "flops_per_step": plan.flops_per_step,
        "gpus": [
            {
                "name": fit.gpu.name,
                "memory": fit.gpu.memory,
                "count": None if fit.need is None else fit.need.gpus,
                "bytes": None if fit.need is None else _bytes(fit.need),
                "bound_tokens_per_second": fit.tokens_per_second,
                "bound_seconds_per_step": fit.step_seconds,
            }
            for fit in fits
        ],
    }


def _bytes(need: Need) -> dict[str, Any]:
    told = asdict(need)
    del told["gpus"], told["read"]
    return {**told, "total": need.total}
