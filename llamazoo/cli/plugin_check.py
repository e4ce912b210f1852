"""llamazoo plugin check"""

import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from llamazoo.cli.arguments import AsJson
from llamazoo.cli.printed import console, print_json, table
from llamazoo.cli.visible import visible
from llamazoo.discovery import LOCAL, Broken, Skipped, normalized
from llamazoo.errors import PluginError
from llamazoo.parts import registry_with
from llamazoo.registry import Registry
from llamazoo.shelf import shown
from llamazoo.testing.offered import trials
from llamazoo.testing.outcome import FAILED, NOT_APPLICABLE, OK, Outcome, Trial

__all__ = ["run"]

ABREAST = 4  # things in one table
STYLES = {OK: "green", FAILED: "bold red", NOT_APPLICABLE: "dim"}

Tried = tuple[Trial, list[Outcome]]


def run(
    package: Annotated[str, typer.Argument(help="An installed distribution, or a Python file with components.")],
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only what is of this kind: norm, attention, format, zoo, ...")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only what has this name.")] = None,
    json: AsJson = False,
) -> None:
    """Put all that an installed plugin offers through every check.

    That is every check of llamazoo.testing, for each component under each of its names, and a division among two processes; formats,
    tokenizers, models of the zoo, rules and commands are tried as far as they can be. Exit status 1 if anything fails.
    """
    if package.endswith(".py"):
        registry, distribution, version = registry_with([Path(package)]), LOCAL, None
    else:
        registry = Registry.from_entry_points()
        distribution, version = _installed(package, registry)
    chosen = [t for t in trials(distribution, registry) if kind in (None, t.kind) and name in (None, t.name)]
    if not chosen:
        known = ", ".join(f"{trial.kind} {trial.name}" for trial in trials(distribution, registry))
        nothing = "nothing that could be checked; a plugin has an entry point in the group llamazoo, and hooks that return something"
        raise PluginError(f"{package}: offers {f'{known}, and nothing else' if known else nothing}")
    tried = list(_tried(chosen))
    failed = sum(outcome.status == FAILED for _, outcomes in tried for outcome in outcomes)
    if json:
        print_json({"package": package, "version": version, "failed": failed, "offers": [_data(*each) for each in tried]})
    else:
        _print(tried)
        checks = sum(outcome.status != NOT_APPLICABLE for _, outcomes in tried for outcome in outcomes)
        title = package if version is None else f"{distribution} {version}"
        typer.echo(visible(f"{title}: {f'{failed} of {checks} checks failed' if failed else f'all {checks} checks hold'}"))
    if failed:
        raise typer.Exit(1)


def _installed(package: str, registry: Registry) -> tuple[str, str]:
    """The name and version of an installed distribution that is a plugin. PluginError if it is not here, or not usable."""
    name = normalized(package)
    listed: list[Broken | Skipped] = [*registry.broken, *registry.skipped]
    for unusable in listed:
        if unusable.distribution == name:
            raise PluginError(f"{package} cannot be checked: {unusable}")
    try:
        return name, importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise PluginError(f"no distribution named {shown(package)} is installed; pip install it, or name a file that ends in .py") from None


def _tried(chosen: Sequence[Trial]) -> Iterator[Tried]:
    """Each with its outcomes, as they come; what is being tried stands on stderr meanwhile."""
    with _progress(len(chosen)) as tell:
        for trial in chosen:
            outcomes = []
            for outcome in trial.run():
                outcomes.append(outcome)
                tell(f"{trial.kind} {trial.name}: {outcome.check}", 0)
            tell("", 1)
            yield trial, outcomes


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    out = console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda what, count: progress.update(task, description=visible(what), advance=count)


def _print(tried: Sequence[Tried]) -> None:
    """A table of outcomes for those that go through the same checks, then reasons and failures in full."""
    out = console()
    by_checks: dict[tuple[str, ...], list[Tried]] = {}
    for trial, outcomes in tried:
        by_checks.setdefault(tuple(outcome.check for outcome in outcomes), []).append((trial, outcomes))
    for checks, alike in by_checks.items():
        for begin in range(0, len(alike), ABREAST):
            out.print(_table(checks, alike[begin : begin + ABREAST]))
            out.print()
    for status in (NOT_APPLICABLE, FAILED):
        for line in _lines(tried, status):
            out.print(visible(line), style="red" if status == FAILED else "dim", soft_wrap=True)


def _table(checks: Sequence[str], alike: Sequence[Tried]) -> Any:
    made = table("check", *(visible(f"{trial.kind} {trial.name}") for trial, _ in alike))
    for row, check in enumerate(checks):
        statuses = [outcomes[row].status for _, outcomes in alike]
        made.add_row(check, *(Text(status, STYLES[status]) for status in statuses))
    return made


def _lines(tried: Sequence[Tried], status: str) -> Iterator[str]:
    """What is to be told of the outcomes of one status, each thing once."""
    for trial, outcomes in tried:
        for outcome in outcomes:
            if outcome.status == status == NOT_APPLICABLE:
                yield f"{trial.kind} {trial.name}: {outcome.check} does not apply: {outcome.reason}"
            elif outcome.status == status == FAILED:
                yield from (f"{trial.kind} {trial.name}: {failure}" for failure in outcome.failures)


def _data(trial: Trial, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    checks = {o.check: {"status": o.status, "reason": o.reason, "failures": [vars(failure) for failure in o.failures]} for o in outcomes}
    return {"kind": trial.kind, "name": trial.name, "stands_for": dict(trial.options), "checks": checks}
