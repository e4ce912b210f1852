"""llamazoo generate"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from llamazoo.build import load_model
from llamazoo.cli.arguments import (
    Device,
    DtypeOption,
    MinP,
    PartsFiles,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    check_filters,
    torch_dtype,
)
from llamazoo.cli.target import tokenizer_of
from llamazoo.cli.visible import visible
from llamazoo.device import device_of
from llamazoo.errors import InputError, TokenizerError
from llamazoo.generation.generate import Piece, stream
from llamazoo.parts import registry_with

__all__ = ["print_pieces", "run"]


def run(
    model: Annotated[Path, typer.Argument(help="A model's folder of any format, or a file of a format that is one file.")],
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; read from stdin, less its last newline, if not given.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many new tokens.")] = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; repeatable.")] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on after the model's own end of text.")] = False,
    device: Device = None,
    dtype: DtypeOption = None,
    parts: PartsFiles = None,
) -> None:
    """Continue a text with a model. The continuation goes to stdout as it comes, timings go to stderr."""
    check_filters(temperature, top_k, top_p, min_p)
    registry = registry_with(parts)
    where = device_of(device)
    tokenizer = tokenizer_of(model, registry)
    if tokenizer is None:
        raise TokenizerError(f"{model}: has no tokenizer; put tokenizer.json or tokenizer.model beside its weights")
    text = _from_stdin() if prompt is None else prompt
    loaded = load_model(model, device=where, dtype=torch_dtype(dtype), registry=registry)
    pieces = stream(
        loaded,
        text,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop_ids=() if ignore_eos else None,
        stop_strings=stop or (),
        tokenizer=tokenizer,
    )
    print_pieces(pieces)


def print_pieces(pieces: Iterable[Piece]) -> str:
    """Write the text of one row to stdout as it comes, then how long it took to stderr; returns the text."""
    terminal = sys.stdout.isatty()
    text = ""
    try:
        for piece in pieces:
            text += piece.text
            typer.echo(visible(piece.text) if terminal else piece.text, nl=False, color=True)  # color: strip nothing
            last = piece
    finally:
        typer.echo()
    taken = last.timings
    typer.echo(
        f"{taken.prompt_tokens} tokens read in {taken.prefill_seconds:.2f} s; "
        f"{taken.new_tokens} new, {taken.tokens_per_second:.1f} tokens/s ({last.finish_reason})",
        err=True,
    )
    return text


def _from_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt on stdin is not UTF-8 text: {error.reason} at byte {error.start}") from None
