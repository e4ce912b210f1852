"""A chat template: a program in jinja2 that writes a conversation as the text that a model was trained on."""

import datetime
from collections.abc import Mapping
from typing import Any

import jinja2

from llamazoo.chat.meter import Meter
from llamazoo.chat.sandbox import Sandbox
from llamazoo.errors import InputError, TemplateError

__all__ = ["ChatTemplate", "plain"]

MAX_SOURCE = 48 << 10  # characters
STEPS = 200_000
SHARE = 40  # further steps for each unit of what is given
MAX_OUTPUT = 1 << 20  # characters, besides
EXPANSION = 8  # times those that are given
UNLIMITED = 1 << 62
MAX_MESSAGE = 500


class ChatTemplate:
    """A template's source, which `render` runs in a sandbox, with bounded steps and output."""

    def __init__(self, source: str, where: str) -> None:
        """Raises TemplateError, naming `where` it stands, for what is no template."""
        self.source, self.where = source, where
        if not isinstance(source, str) or not source.strip():
            raise TemplateError(f"{where}: a chat template is a text that is not empty, found {ascii(source)[:40]}")
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"{where}: has {len(source)} characters; a chat template has at most {MAX_SOURCE}")
        try:
            source.encode()
        except UnicodeEncodeError as error:
            raise TemplateError(f"{where}: is not Unicode: {error.reason} at {error.start}") from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for a conversation, `variables` being plain values as JSON has them. Raises TemplateError."""
        given = Meter(UNLIMITED)
        values = {name: plain(value, name) for name, value in variables.items()}
        given.weigh(values)
        units = given.given - given.left
        meter = Meter(STEPS + SHARE * units)
        limit = MAX_OUTPUT + EXPANSION * 16 * units
        sandbox = Sandbox(meter, {"raise_exception": self._refuse, "strftime_now": _now})
        try:
            chunks, length = [], 0
            for chunk in sandbox.from_string(self.source).generate(values):
                chunks.append(chunk)
                length += len(chunk)
                if length > limit:
                    raise TemplateError(f"the chat template writes more than {limit} characters")
            text = "".join(chunks)
            text.encode()  # half a surrogate pair is no text
        except TemplateError as error:
            raise TemplateError(f"{self.where}: {error}") from None
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{self.where}: line {error.lineno}: {error.message}") from None
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise TemplateError(f"{self.where}: {type(error).__name__}: {str(error)[:MAX_MESSAGE]}") from None
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise TemplateError(f"{self.where}: is nested too deeply: {str(error)[:MAX_MESSAGE]}") from None
        return text

    def _refuse(self, message: Any) -> None:
        raise TemplateError(f"the template refuses this conversation: {str(message)[:MAX_MESSAGE]}")


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of a value as JSON has them. Raises InputError for anything else."""
    if depth > 20:
        raise InputError(f"{where}: lists in lists, more than 20 deep")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: the text is not Unicode: {error.reason} at {error.start}") from None
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(each, f"{where}[{i}]", depth + 1) for i, each in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {plain(key, where): plain(each, f"{where}.{key}", depth + 1) for key, each in value.items()}
    raise InputError(f"{where}: a chat template takes what JSON can say, found {type(value).__name__}")


def _now(form: str) -> str:
    if not isinstance(form, str) or len(form) > 100:
        raise TemplateError("the chat template asks for the time in a form of more than 100 characters")
    return datetime.datetime.now().strftime(form)
