"""llamazoo ablate"""

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llamazoo.ablation import Results, read_experiment
from llamazoo.ablation import run as run_experiment
from llamazoo.ablation.conduct import RUNS
from llamazoo.ablation.estimate import seconds_of
from llamazoo.ablation.facts import evaluated_of, facts_of
from llamazoo.ablation.finished import left
from llamazoo.ablation.launch import LAUNCHERS
from llamazoo.ablation.prepare import Prepared, prepare
from llamazoo.ablation.preview import Preview, preview
from llamazoo.ablation.report.answer import warnings
from llamazoo.ablation.report.spelling import MINUS, NOTHING
from llamazoo.ablation.report.tables import effects
from llamazoo.ablation.results import Variant
from llamazoo.cli.arguments import AsJson, Device, PartsFiles, overrides
from llamazoo.cli.at_work import at_work
from llamazoo.cli.printed import console, counted, print_json, table
from llamazoo.cli.runs_bar import RunsBar
from llamazoo.cli.visible import visible
from llamazoo.parts import registry_with

__all__ = ["run"]

OF_FILE = "seeds=3"


def run(
    experiment: Annotated[Path, typer.Argument(help="An experiment's file; docs/ablation.md tells how to write one.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where runs and report go; ablations/NAME unless given.")
    ] = None,
    launcher: Annotated[str, typer.Option(metavar="NAME", help=f"Who does the runs: {', '.join(LAUNCHERS)}.")] = "sequential",
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at once; as many as fit the processors unless given.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be run, matched sizes and the time, and train nothing.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help=f"Change a field of the file, such as {OF_FILE} or base.dim=64; repeatable."),
    ] = None,
    parts: PartsFiles = None,
    device: Device = None,
    json: AsJson = False,
) -> None:
    """Compare variants of a model fairly, and tell which differences are real.

    What was finished before in the folder is not repeated: after an interruption, run the same command again.
    """
    registry = registry_with(parts)
    read = read_experiment(experiment, registry, overrides=overrides(settings, OF_FILE))
    folder = out or Path("ablations") / read.name
    if dry_run:
        with at_work(lambda: "nothing was trained"):
            _preview(prepare(read, launcher=launcher, workers=workers, parts=parts or (), device=device), folder, json)
        return
    bar = RunsBar()
    with at_work(bar.stands), bar:
        results = run_experiment(read, folder, launcher=launcher, workers=workers, parts=parts or (), device=device, watch=bar)
    if json:
        print_json(results.model_dump(mode="json"))
        return
    _answer(results, folder)


def _answer(results: Results, folder: Path) -> None:
    out = console()
    grid = table("variant", "parameters", "loss", "verdict", right=("parameters", "loss"), whole=("variant",))
    for each in results.variants:
        told = " ".join(f"{c.outcome}: {c.sentence}." for c in each.comparisons) or "the base"
        grid.add_row(visible(each.name), counted(each.costs.parameters), _loss(each), visible(told))
    out.print(grid)
    _effects(results, out)
    for warning in warnings(results):
        out.print(visible(f"note: {warning}"), style="yellow")
    out.print(f"report: {visible(str(folder / 'report.html'))}", soft_wrap=True)


def _effects(results: Results, out: Console) -> None:
    """What each factor does, and two together, as the report has it."""
    told = effects(results)
    if told is None:
        return
    empty = {i for i in range(len(told.head)) if all(row[i].text == NOTHING for row in told.rows)}
    shown = [i for i in range(len(told.head)) if i not in empty]
    heads = [told.head[i].replace(", by outcome", "") for i in range(len(told.head))]  # a terminal is narrow
    grid = table(*(heads[i] for i in shown), right=[heads[i] for i in shown if i not in told.words])
    for row in told.rows:
        grid.add_row(*(visible(row[i].text.replace(MINUS, "-").replace("=", " = ")) for i in shown))  # so that lines break between words
    out.print()
    out.print(grid)


def _loss(variant: Variant) -> str:
    found = [run.outcomes.get("loss") for run in variant.runs if run.role == "evaluation"]
    finished = [loss for loss in found if loss is not None]
    return f"{sum(finished) / len(finished):.4f}" if finished else "diverged"


def _preview(ready: Prepared, folder: Path, json: bool) -> None:
    experiment = ready.plan.experiment
    told = preview(ready.plan, evaluated_of(experiment, ready.data).documents, facts_of(experiment, ready.data))
    todo = left(ready.plan, folder / RUNS)
    finished, seconds = told.jobs - len(todo), sum(seconds_of(todo, ready.data, ready.registry))
    if json:
        print_json({**told.model_dump(mode="json"), "finished": finished, "seconds": seconds, "workers": ready.at_once})
        return
    _print_preview(told)
    took = datetime.timedelta(seconds=round(seconds / min(ready.at_once, len(todo) or 1)))
    time = f"about {took} with {ready.at_once} at once"
    runs = f"{told.jobs} runs of {counted(told.tokens)} tokens in all"
    if not finished:
        ends = f": {time}"
    elif todo:
        ends = f", of which {finished} are through already; the other {len(todo)}: {time}"
    else:
        ends = ", all of which are through already"
    console().print(visible(f"{runs}{ends}"))


def _print_preview(told: Preview) -> None:
    out = console()
    numbers = ("parameters", "off", "FLOPs a token", "cache bytes a token")
    grid = table("variant", "matched by", *numbers, right=numbers, whole=("variant",))
    for each in told.variants:
        matched = "" if each.matched.field is None else f"{each.matched.field} {each.matched.value}"
        off = f"{each.matched.off:+.2%}"
        costs = each.costs
        grid.add_row(
            visible(each.name),
            visible(matched),
            counted(costs.parameters),
            off,
            counted(costs.flops_per_token),
            counted(costs.cache_bytes_per_token),
        )
    out.print(grid)
    stages = table("runs", "how many", "tokens", right=("how many", "tokens"))
    for stage in told.stages:
        stages.add_row(
            visible(stage.role if stage.probe is None else f"{stage.role} ({stage.probe})"), str(stage.jobs), counted(stage.tokens)
        )
    out.print(stages)
    for warning in told.warnings:
        out.print(visible(f"note: {warning}"), style="yellow")
