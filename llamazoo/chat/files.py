"""Where chat templates stand: in tokenizer_config.json, or in chat_template.jinja or chat_template.json beside it."""

import json
from pathlib import Path
from typing import Any

from llamazoo.chat.template import ChatTemplate
from llamazoo.errors import TemplateError
from llamazoo.weights.files import plain_file, read_json

__all__ = ["CONFIG_FILE", "Templates", "read_template", "templates_in"]

CONFIG_FILE = "tokenizer_config.json"
JINJA_FILE, JSON_FILE = "chat_template.jinja", "chat_template.json"
DEFAULT = "default"
MAX_BYTES = 1 << 20


class Templates:
    """The chat templates that came with a tokenizer, by name; the one for any conversation is called "default"."""

    def __init__(self, found: Any = None, where: str = "no file") -> None:
        """`found` is what a file gives: a text, a list of {name, template}, or None."""
        self.found, self.where = found, where

    def find(self, name: str | None = None) -> ChatTemplate:
        """The template of a name, or the default. Raises TemplateError."""
        if self.found is None:
            raise TemplateError("the tokenizer comes with no chat template, as with base models; give one, or generate from plain text")
        named = {DEFAULT: self.found} if isinstance(self.found, str) else self._named()
        if (name or DEFAULT) not in named:
            missing = f"no chat template is called {name!a}" if name else "one of several chat templates has to be named"
            raise TemplateError(f"{self.where}: {missing}; there are {', '.join(ascii(each)[:40] for each in sorted(named)[:20])}")
        return ChatTemplate(named[name or DEFAULT], self.where)

    def _named(self) -> dict[str, Any]:
        entries: list[Any] = self.found if isinstance(self.found, list) else [None]
        if not all(isinstance(entry, dict) and {"name", "template"} <= set(entry) and isinstance(entry["name"], str) for entry in entries):
            raise TemplateError(f"{self.where}: chat_template is a text, or a list of maps with name and template")
        return {entry["name"]: entry["template"] for entry in entries}

    def save(self, folder: Path) -> None:
        """Add the templates to the tokenizer_config.json of a folder."""
        if self.found is not None:
            path = folder / CONFIG_FILE
            config = read_json(path) if path.exists() else {}
            path.write_text(json.dumps({**config, "chat_template": self.found}, indent=2) + "\n", encoding="utf-8")


def templates_in(folder: Path, config: dict[str, Any] | None = None) -> Templates:
    """The templates of a model's folder; a file of their own goes before what stands in tokenizer_config.json."""
    if (folder / JINJA_FILE).exists():
        path = plain_file(folder, JINJA_FILE)
        return Templates(read_template(path), str(folder / JINJA_FILE))
    for name in (JSON_FILE, CONFIG_FILE):
        if (folder / name).exists():
            given = config if name == CONFIG_FILE and config is not None else read_json(plain_file(folder, name))
            if given.get("chat_template") is not None:
                return Templates(given["chat_template"], str(folder / name))
    return Templates()


def read_template(path: Path) -> str:
    """The text of a template's file. Raises TemplateError."""
    if path.stat().st_size > MAX_BYTES:
        raise TemplateError(f"{path}: has {path.stat().st_size} bytes; a chat template has at most {MAX_BYTES}")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
