"""llamazoo chat"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llamazoo.build import load_model
from llamazoo.chat.files import read_template
from llamazoo.chat.template import ChatTemplate
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
from llamazoo.errors import ContextLengthError, InputError, TemplateError, TokenizerError
from llamazoo.generation.conversation import Conversation
from llamazoo.generation.sampling import Sampling
from llamazoo.generation.tokenizer import FileTokenizer
from llamazoo.parts import registry_with

__all__ = ["run"]


def run(
    model: Annotated[Path, typer.Argument(help="A model's folder of any format, or a file of a format that is one file.")],
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    template: Annotated[Path | None, typer.Option(metavar="FILE", help="A chat template in jinja2, in place of the model's own.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens an answer.")] = 512,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    device: Device = None,
    dtype: DtypeOption = None,
    parts: PartsFiles = None,
) -> None:
    """Talk with a model that has a chat template.

    A line is a turn; /reset begins anew, /exit or the end of input leaves, Ctrl-C stops an answer.
    """
    check_filters(temperature, top_k, top_p, min_p)
    registry = registry_with(parts)
    where = device_of(device)
    tokenizer = tokenizer_of(model, registry)
    if not isinstance(tokenizer, FileTokenizer):
        raise TokenizerError(f"{model}: has no tokenizer; put tokenizer.json or tokenizer.model beside its weights")
    if template is None and tokenizer.templates.found is None:
        raise TemplateError(
            f"{model}: has no chat template, so it is a base model, which continues text; "
            f"use `llamazoo generate {model} TEXT`, or give a template with --template FILE"
        )
    if template is not None and not template.is_file():
        raise TemplateError(f"{template}: there is no such file")
    chosen = None if template is None else ChatTemplate(read_template(template), str(template))
    loaded = load_model(model, device=where, dtype=torch_dtype(dtype), registry=registry)
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    settings = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed}
    talk(Conversation(loaded, tokenizer, system=system, template=chosen, **settings))  # type: ignore[arg-type]


def talk(conversation: Conversation) -> None:
    """Turns from stdin, answers to stdout, until the end of input."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    notes = Console(stderr=True, highlight=False, style="dim")
    while True:
        try:
            text = input("> " if terminal else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            notes.print("\n/exit or Ctrl-D leaves", markup=False)
            continue
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not UTF-8 text: {error.reason} at byte {error.start}") from None
        match text.strip():
            case "":
                continue
            case "/exit":
                return
            case "/reset":
                conversation.reset()
                notes.print("a new conversation", markup=False)
            case _:
                _answer(conversation, text, notes)


def _answer(conversation: Conversation, text: str, notes: Console) -> None:
    terminal = sys.stdout.isatty()
    try:
        with closing(conversation.say(text)) as pieces:
            for piece in pieces:
                typer.echo(visible(piece) if terminal else piece, nl=False, color=True)  # color: strip nothing
    except KeyboardInterrupt:
        notes.print("\nstopped", markup=False)
    except (InputError, TemplateError) as error:
        if not terminal:
            raise
        more = "; /reset begins a new one" if isinstance(error, ContextLengthError) else ""
        notes.print(visible(f"{error}{more}"), markup=False)
    typer.echo()
