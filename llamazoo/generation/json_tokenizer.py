"""Tokenizers that the Hugging Face tokenizers library runs, and its files, tokenizer.json."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import tokenizers

from llamazoo.chat.files import CONFIG_FILE, templates_in
from llamazoo.chat.messages import Rendered, matching, private_name
from llamazoo.errors import InputError, TokenizerError
from llamazoo.generation.patterns import check_patterns
from llamazoo.generation.tokenizer import FileTokenizer, checked_ids, clean_text
from llamazoo.weights.files import plain_file, read_json

__all__ = ["JsonTokenizer", "LibraryTokenizer"]

JSON_FILE = "tokenizer.json"
MAX_TEXTS = 1_600_000  # 1.3 million in the largest published tokenizer.json


class LibraryTokenizer(FileTokenizer):
    """A tokenizer that the Hugging Face tokenizers library runs; a subclass makes it, and hands it to `adopt`."""

    tokenizer: tokenizers.Tokenizer
    where: Path

    def adopt(self, tokenizer: tokenizers.Tokenizer, path: Path) -> None:
        """Take a tokenizer into use, and the chat templates beside its file."""
        self.tokenizer, self.where = tokenizer, path
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocab_size = max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.templates = templates_in(path.parent)

    def encode(self, text: str) -> list[int]:
        return self._ids(self.tokenizer, text)

    def decode(self, ids: Sequence[int]) -> str:
        checked = checked_ids(ids, None)
        text: str = self._library(lambda: self.tokenizer.decode(checked, skip_special_tokens=False), "decode these ids")
        return text

    @functools.cached_property
    def controls(self) -> Mapping[str, int]:
        """Added tokens that are declared special, end a text, or are spelt <|so|>; others are ordinary words of the vocabulary."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {t.content: i for i, t in added.items() if t.special or i in self.eos_ids or (t.content[:2], t.content[-2:]) == ("<|", "|>")}

    def encode_rendered(self, conversation: Rendered) -> list[int]:
        text, mark = conversation
        if mark is None:
            return self._ids(self.tokenizer, text, add_special_tokens=False)
        names, twin, renamed = self._without_controls
        text = self._added.sub(lambda found: names.get(found[0], found[0]), text).replace(mark, "")
        ids = self._ids(twin, text, add_special_tokens=False)
        own = set(renamed)
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        forged = {i for i in self.controls.values() if self.tokenizer.id_to_token(i) != unknown}
        if any(i in forged and i not in own for i in ids):
            raise InputError("a message contains a control token of the model, which cannot be encoded as plain text here; take it out")
        return [renamed.get(i, i) for i in ids]

    @functools.cached_property
    def _added(self) -> re.Pattern[str]:
        return matching(token.content for token in self.tokenizer.get_added_tokens_decoder().values())

    @functools.cached_property
    def _without_controls(self) -> tuple[dict[str, str], tokenizers.Tokenizer, dict[int | None, int]]:
        """Names that nobody can guess for the control tokens; a twin that knows them by these only; and their ids from the twin's."""
        added = self.tokenizer.get_added_tokens_decoder()
        described = json.loads(self.tokenizer.to_str())
        described.update(added_tokens=[], post_processor=None)
        twin = tokenizers.Tokenizer.from_str(json.dumps(described))
        names: dict[str, str] = {}
        originals: dict[int | None, int] = {}
        for i, token in sorted(added.items()):
            name = token.content
            if name in self.controls:
                names[name] = private_name()
                name = names[name]
            settings = {key: getattr(token, key) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
            twin.add_tokens([tokenizers.AddedToken(name, **settings)])
            originals[twin.token_to_id(name)] = i
        return names, twin, originals

    def _ids(self, tokenizer: tokenizers.Tokenizer, text: str, **settings: bool) -> list[int]:
        found: list[int] = self._library(lambda: tokenizer.encode(clean_text(text), **settings).ids)
        return found

    def _library(self, work: Callable[[], Any], what: str = "encode this text") -> Any:
        try:
            return work()
        except (KeyboardInterrupt, SystemExit, InputError):
            raise
        except BaseException as error:  # the library raises bare Exception, and panics past it: a pattern that backtracks too far
            raise TokenizerError(f"{self.where}: cannot {what}: {str(error)[:200]}") from None


class JsonTokenizer(LibraryTokenizer):
    """A tokenizer.json of the Hugging Face tokenizers library; its end-of-sequence token comes from tokenizer_config.json beside it."""

    name = "json"
    files = (JSON_FILE,)

    def __init__(self, path: Path) -> None:
        try:
            self.file = path.read_bytes()
            if (texts := self.file.count(b'"') // 2) > MAX_TEXTS:
                raise TokenizerError(f"{path}: has {texts} texts; a vocabulary with its merges has at most {MAX_TEXTS}")
            made = tokenizers.Tokenizer.from_str(self.file.decode("utf-8"))
            parts = [json.loads(part.__getstate__()) for part in (made.normalizer, made.pre_tokenizer, made.decoder) if part is not None]
        except (KeyboardInterrupt, SystemExit, TokenizerError):
            raise
        except BaseException as error:  # the library raises bare Exception, and panics past it
            raise TokenizerError(f"{path}: is no tokenizer.json: {str(error)[:200]}") from None
        check_patterns(parts, str(path))
        self.adopt(made, path)
        config = path.parent / CONFIG_FILE
        special = read_json(plain_file(path.parent, CONFIG_FILE)) if config.exists() else {}
        self.bos_id: int | None = self._special(special.get("bos_token"))
        eos = self._special(special.get("eos_token"))
        self.eos_ids: tuple[int, ...] = () if eos is None else (eos,)
        self.named = {name: _content(token) for name, token in special.items() if name.endswith("_token") and _content(token) is not None}

    def _special(self, token: object) -> int | None:
        """The id of a token that the config gives as text, or as a map with its content."""
        text = _content(token)
        found: int | None = None if text is None else self.tokenizer.token_to_id(text)
        return found

    def save(self, folder: str | PathLike[str]) -> None:
        (Path(folder) / JSON_FILE).write_bytes(self.file)
        special = {
            name: self.tokenizer.id_to_token(i)
            for name, i in (("bos_token", self.bos_id), ("eos_token", next(iter(self.eos_ids), None)))
            if i is not None
        }
        (Path(folder) / CONFIG_FILE).write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}, indent=2) + "\n")
        self.templates.save(Path(folder))


def _content(token: object) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
