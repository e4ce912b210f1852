"""Text to token ids and back: what a tokenizer is, how a file's is found, and sentencepiece models."""

import functools
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sentencepiece

from llamazoo.chat.files import Templates, templates_in
from llamazoo.chat.messages import Message, Rendered, matching, rendered
from llamazoo.chat.template import ChatTemplate
from llamazoo.errors import InputError, TokenizerError
from llamazoo.registry import Registry, default_registry
from llamazoo.weights.checkpoint import recognising
from llamazoo.weights.files import plain_file

__all__ = [
    "FileTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "checked_ids",
    "clean_text",
    "load_tokenizer",
    "tokenizer_file",
]

MODEL_FILE = "tokenizer.model"
MAX_BYTES = 64 << 20
TURN = re.compile(r"<\|.+\|>|<[a-z]+(_[a-z]+)+>|\[/?[A-Z_]+\]")  # what turns are marked with
RANK = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\s")


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
        ids: list[int] = self.processor.encode(clean_text(text))
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.processor.decode(checked_ids(ids, self.vocab_size))
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
        for found in [*matching(self.controls).finditer(clean_text(text)), None]:
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


def _id(number: int) -> int | None:
    return None if number < 0 else number


def clean_text(text: str) -> str:
    """A text that can be encoded. Raises InputError if it is not Unicode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not Unicode: {error.reason} at {error.start}") from None
    return text


def checked_ids(ids: Sequence[int], vocab_size: int | None) -> list[int]:
    """Ids as numbers. Raises InputError for one that is outside the vocabulary."""
    found = [int(i) for i in ids]
    for i in found:
        if i < 0 or (vocab_size is not None and i >= vocab_size):
            raise InputError(f"token id {i} is outside the tokenizer's vocabulary")
    return found
