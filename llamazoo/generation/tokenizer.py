"""Text to token ids and back: sentencepiece models and tokenizer.json files, behind one face."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sentencepiece
import tokenizers

from llamazoo.chat.files import CONFIG_FILE, Templates, templates_in
from llamazoo.chat.messages import Message, Rendered, matching, private_name, rendered
from llamazoo.chat.template import ChatTemplate
from llamazoo.errors import InputError, TokenizerError
from llamazoo.generation.patterns import check_patterns
from llamazoo.registry import Registry, default_registry
from llamazoo.weights.checkpoint import recognising
from llamazoo.weights.files import plain_file, read_json

__all__ = [
    "Decoding",
    "FileTokenizer",
    "JsonTokenizer",
    "LibraryTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "tokenizer_file",
]

JSON_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
MAX_BYTES = 64 << 20
MAX_TEXTS = 1_600_000  # 1.3 million in the largest published tokenizer.json
TURN = re.compile(r"<\|.+\|>|<[a-z]+(_[a-z]+)+>|\[/?[A-Z_]+\]")  # what turns are marked with
RANK = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\s")
HALF = "\ufffd"  # what half a character decodes to


class Tokenizer(Protocol):
    """What generation asks of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """How many ids there are; ids run from 0."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids at which generation stops."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with what the tokenizer puts before it (LLaMA's <s>, say)."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; an incomplete character at the end becomes U+FFFD."""

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the tokenizer's file into a folder."""


def load_tokenizer(folder: str | PathLike[str], *, registry: Registry | None = None) -> Tokenizer:
    """The tokenizer in a model's folder or file, or of a tokenizer's own: tokenizer.json, or a sentencepiece tokenizer.model.

    Raises TokenizerError.
    """
    path, registry = Path(folder), registry or default_registry()
    for offer in recognising(path, registry):
        if (carried := offer.value.tokenizer(path)) is not None:
            return carried  # the format keeps it within the checkpoint
    if path.is_dir():
        file = tokenizer_file(path, registry)
        if file is None:
            none = f"{path}: has no tokenizer: none of {', '.join(name for form in registry.tokenizers() for name in form.files)}"
            raise TokenizerError("\n  ".join([none, *registry.unloaded()]))
        plain_file(path, file)
        path = path / file
    if not path.is_file():
        raise TokenizerError(f"{path}: there is no such file")
    if path.stat().st_size > MAX_BYTES:
        raise TokenizerError(f"{path}: has {path.stat().st_size} bytes; a tokenizer has at most {MAX_BYTES}")
    return _reader(path, registry)(path)


def _reader(path: Path, registry: Registry) -> "type[FileTokenizer]":
    """Who reads a file of this name; llamazoo's own if one recognises it, and what is called like nothing is sentencepiece's."""
    known = registry.tokenizer_offers()
    named = [offer for offer in known if path.name in offer.value.files]
    named = named or [offer for offer in known if path.suffix in {Path(name).suffix for name in offer.value.files}]
    found = [offer for offer in named if offer.value.recognises(path)]
    if len(found) > 1 and not found[0].is_own:
        names = " or ".join(offer.qualified(offer.name) for offer in found)
        raise TokenizerError(f"{path}: could be read by the tokenizers {names}; block one of these plugins with LLAMAZOO_BLOCK")
    chosen = (*found, *named)
    return chosen[0].value if chosen else SentencePieceTokenizer


def tokenizer_file(folder: Path, registry: Registry) -> str | None:
    """The name of the tokenizer's file in a folder, if there is one."""
    return next((name for form in registry.tokenizers() for name in form.files if (folder / name).exists()), None)


class FileTokenizer:
    """A tokenizer that stands in a file; a plugin offers its own through the hook `llamazoo_tokenizers`."""

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]  # what the file is called in a model's folder

    vocab_size: int
    bos_id: int | None
    eos_ids: tuple[int, ...]

    def __init__(self, path: Path) -> None:
        """Read the file. Raises TokenizerError."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file with such an ending is of this sort; its first bytes tell, where several sorts have one name."""
        return True

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError

    def save(self, folder: str | PathLike[str]) -> None:
        raise NotImplementedError

    # Conversations

    templates: Templates = Templates()
    """The chat templates that came with it."""
    named: Mapping[str, Any] = {}
    """What templates know its special tokens by, such as bos_token."""

    @property
    def controls(self) -> Mapping[str, int]:
        """The control tokens, which a template may write and a message may not: their ids by their text."""
        return {}

    def encode_rendered(self, conversation: Rendered) -> list[int]:
        """The ids of a conversation's text: control tokens within it count, except around its mark; nothing is put before it."""
        raise TokenizerError(f"the tokenizer {self.name!r} does not say how a conversation is encoded")

    def chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        template: str | ChatTemplate | None = None,
        variables: Mapping[str, Any] | None = None,
        trust_content: bool = False,
    ) -> list[int]:
        """The ids of a conversation, messages of {role, content}, as the tokenizer's chat template writes it.

        `add_generation_prompt` ends it with what the model's answer follows. `template` names one of several templates, or is
        one; `variables` are what it may ask for besides. What messages and variables say never becomes a control token, unless
        `trust_content` allows it. Raises InputError, and TemplateError if there is no template, or it fails or refuses.
        """
        chosen = template if isinstance(template, ChatTemplate) else self.templates.find(template)
        own = {**self.named, "add_generation_prompt": add_generation_prompt}
        usual = {name: None for name in ("tools", "documents") if name not in (variables or {})}
        controls = () if trust_content else self.controls
        return self.encode_rendered(rendered(chosen, messages, own, {**usual, **(variables or {})}, controls))


class SentencePieceTokenizer(FileTokenizer):
    """A sentencepiece model, with its beginning-of-sequence id before every text, as LLaMA was trained. Kudo & Richardson 2018."""

    name = "sentencepiece"
    files = (MODEL_FILE,)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        with open(path, "rb") as file:
            return RANK.match(file.read(512)) is None  # ranks for tiktoken go by the same name

    def __init__(self, path: Path) -> None:
        try:
            self.file = path.read_bytes()
            if not self.file:
                raise TokenizerError(f"{path}: is empty")
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=self.file)
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"{path}: is no sentencepiece model: {error}") from None
        self.vocab_size: int = self.processor.vocab_size()
        self.bos_id: int | None = _id(self.processor.bos_id())
        eos = _id(self.processor.eos_id())
        self.eos_ids: tuple[int, ...] = () if eos is None else (eos,)
        self.templates = templates_in(path.parent)
        ends = {"bos_token": self.bos_id, "eos_token": eos, "unk_token": _id(self.processor.unk_id())}
        self.named = {name: self.processor.id_to_piece(i) for name, i in ends.items() if i is not None}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.processor.encode(_clean(text))
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.processor.decode(_checked(ids, self.vocab_size))
        return text

    def save(self, folder: str | PathLike[str]) -> None:
        (Path(folder) / MODEL_FILE).write_bytes(self.file)
        self.templates.save(Path(folder))

    @functools.cached_property
    def controls(self) -> Mapping[str, int]:
        """Control pieces, and those spelt like turns (Gemma's <start_of_turn>) that sentencepiece finds in any text."""
        pieces = {i: self.processor.id_to_piece(i) for i in range(self.vocab_size)}
        turns = {i for i, piece in pieces.items() if TURN.fullmatch(piece) and i in self.processor.encode(piece)}
        return {piece: i for i, piece in pieces.items() if i in turns or self.processor.is_control(i)}

    def encode_rendered(self, conversation: Rendered) -> list[int]:
        """Each stretch of text between two control tokens is encoded by itself, as LLaMA's own code does."""
        text, mark = conversation
        ids: list[int] = []
        at = 0
        for found in [*matching(self.controls).finditer(_clean(text)), None]:
            stretch = text[at : found.start() if found else len(text)]
            if stretch:
                ids += self._stretch(stretch, mark)
            if found:
                ids.append(self.controls[found[0]])
                at = found.end()
        return ids

    def _stretch(self, text: str, mark: str | None) -> list[int]:
        bare = text if mark is None else text.replace(mark, "")
        ids: list[int] = self.processor.encode(bare)
        if mark is not None and set(ids) & set(self.controls.values()):
            raise InputError("a message contains a control token of the model, which sentencepiece finds in any text; take it out")
        return ids


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
        checked = _checked(ids, None)
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
        found: list[int] = self._library(lambda: tokenizer.encode(_clean(text), **settings).ids)
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


class Decoding:
    """The text of a growing list of ids, as far as it is certain: half a character waits for its other half.

    Only a few ids are decoded at a time, always from where a character begins, and with what came before: sentencepiece
    drops a space at the start of a text, and bytes that begin inside a character would be taken for broken ones.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        text = ""
        for kept in range(min(4, len(before)), min(12, len(before)) + 1):
            self.ids = list(before[len(before) - kept :])
            text = tokenizer.decode(self.ids) if self.ids else ""
            if not text.startswith(HALF):
                break
        self.shown = len(text.rstrip(HALF))  # how much of their text was told
        self.certain = 0 if text.endswith(HALF) else len(self.ids)  # how many ids that was

    def add(self, token: int, *, last: bool = False) -> str:
        """The text that one more id makes certain; with `last`, all that is left."""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        if text.endswith(HALF) and not last:
            return ""
        new, tail = text[self.shown :], self.ids[self.certain :]
        tail_text = self.tokenizer.decode(tail)
        if tail_text and text.endswith(tail_text):  # what is new now is context enough for what comes
            self.ids, text = tail, tail_text
        self.shown, self.certain = len(text), len(self.ids)
        return new

    def rest(self) -> str:
        """What is held back, when no more ids come."""
        return self.tokenizer.decode(self.ids)[self.shown :] if len(self.ids) > self.certain else ""


def _content(token: object) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _id(number: int) -> int | None:
    return None if number < 0 else number


def _clean(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not Unicode: {error.reason} at {error.start}") from None
    return text


def _checked(ids: Sequence[int], vocab_size: int | None) -> list[int]:
    found = [int(i) for i in ids]
    for i in found:
        if i < 0 or (vocab_size is not None and i >= vocab_size):
            raise InputError(f"token id {i} is outside the tokenizer's vocabulary")
    return found
