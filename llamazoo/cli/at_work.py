"""What is told when long work ends before its time."""

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import typer

from llamazoo.cli.visible import visible
from llamazoo.contract.blame import within_part
from llamazoo.errors import LlamazooError

__all__ = ["at_work"]

FAILED, INTERRUPTED = 1, 130


@contextmanager
def at_work(stands: Callable[[], str]) -> Iterator[None]:
    """Tell of an interrupt in one line, with how the work `stands`, and of an error in a part from there on, not how it came there."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {visible(stands())}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (LlamazooError, OSError):
        raise
    except Exception as error:
        inside = within_part(error.__traceback__)
        if inside is None and not _is_of_another_process(error):
            raise
        error.__traceback__ = inside
        typer.echo(visible("".join(traceback.format_exception(error))), err=True, nl=False)
        raise typer.Exit(FAILED) from None


def _is_of_another_process(error: Exception) -> bool:
    """Whether it was brought here by a pool of processes, which has the traceback that it had there as the text of a cause."""
    return type(error.__cause__).__module__ == ProcessPoolExecutor.__module__
