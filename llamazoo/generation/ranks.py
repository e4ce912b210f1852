"""Ranks for tiktoken: a file with a line for each token, its bytes in base64 and its rank, which is its id.

How text is cut into words, and which control tokens there are, is not in such a file: a class says so for the files of one family.
"""

import binascii
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import ClassVar

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from llamazoo.errors import TokenizerError
from llamazoo.generation.json_tokenizer import LibraryTokenizer

__all__ = ["Llama3Ranks", "QwenRanks", "RankTokenizer"]

LONGEST = 256  # bytes of a token; published ones have at most 128, which are spaces
MOST_BYTES = 4 << 20  # of all tokens together; 1.5 million in the largest published file
MAX_FILE = 16 << 20

CUT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class RankTokenizer(LibraryTokenizer):
    """Byte-level BPE from ranks: of all neighbours that together are a token, those of the lowest rank are joined first.

    Subclasses say what is not in the file. The merges of a token are all its cuts into two others, in order of its rank.
    """

    count: ClassVar[int]
    """How many ranks the file has."""
    pattern: ClassVar[str]
    """What a word is, as a regular expression."""
    specials: ClassVar[Sequence[str]]
    """The control tokens, whose ids follow the last rank."""
    bos: ClassVar[str | None] = None
    """What stands before every text."""
    eos: ClassVar[Sequence[str]] = ()
    """At which generation stops."""
    composes: ClassVar[bool] = False
    """Whether text is brought to the normal form C of Unicode."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        with open(path, "rb") as file:
            return ranked(file.readline(LONGEST * 2)) is not None

    def __init__(self, path: Path) -> None:
        if path.stat().st_size > MAX_FILE:
            raise TokenizerError(f"{path}: has {path.stat().st_size} bytes; a file of ranks has at most {MAX_FILE}")
        self.file = path.read_bytes()
        ranks = ranks_of(self.file, str(path))
        if len(ranks) != self.count:
            raise TokenizerError(f"{path}: has {len(ranks)} ranks, where {self.name} has {self.count}; only its pattern is known for it")
        self.adopt(self._built(ranks), path)
        self.bos_id = None if self.bos is None else self.tokenizer.token_to_id(self.bos)
        self.eos_ids = tuple(self.count + self.specials.index(token) for token in self.eos)
        ends = {"bos_token": self.bos, "eos_token": next(iter(self.eos), None)}
        self.named = {name: token for name, token in ends.items() if token is not None}

    def _built(self, ranks: dict[bytes, int]) -> tokenizers.Tokenizer:
        letters = _letters()
        spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
        merges = [
            (spelt[left], spelt[right])
            for token in sorted(ranks, key=ranks.__getitem__)
            for left, right in sorted(_cuts(token, ranks), key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
        ]
        vocabulary = {spelt[token]: rank for token, rank in ranks.items()}
        made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
        if self.composes:
            made.normalizer = normalizers.NFC()
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(self.pattern), "isolated"), to_bytes])
        made.decoder = decoders.ByteLevel()
        made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in self.specials])
        if self.bos is not None:
            first = (self.bos, made.token_to_id(self.bos))
            made.post_processor = processors.TemplateProcessing(single=f"{self.bos} $A", special_tokens=[first])
        return made

    def save(self, folder: str | PathLike[str]) -> None:
        (Path(folder) / self.files[0]).write_bytes(self.file)
        self.templates.save(Path(folder))


class Llama3Ranks(RankTokenizer):
    """Meta's tokenizer.model of Llama 3, with the 256 control tokens of its tokenizer.py; reserved ones got other names in 3.1."""

    name = "llama3"
    files = ("tokenizer.model",)
    count = 128_000
    pattern = CUT.replace("DIGITS", r"\p{N}{1,3}")
    specials = (
        *("<|begin_of_text|>", "<|end_of_text|>"),
        *(f"<|reserved_special_token_{i}|>" for i in range(4)),
        *("<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"),
        *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)),
    )
    bos = "<|begin_of_text|>"
    eos = ("<|end_of_text|>", "<|eot_id|>")


class QwenRanks(RankTokenizer):
    """The qwen.tiktoken of Qwen, with the 208 control tokens of its tokenization_qwen.py."""

    name = "qwen"
    files = ("qwen.tiktoken",)
    count = 151_643
    pattern = CUT.replace("DIGITS", r"\p{N}")
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
    eos = ("<|endoftext|>", "<|im_end|>")
    composes = True


def ranked(line: bytes) -> tuple[bytes, int] | None:
    """The token and the rank of a line; None if it is no such line."""
    encoded, _, rank = line.strip().partition(b" ")
    try:
        token = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        return None
    return (token, int(rank)) if token and rank.isdigit() and len(rank) < 10 else None


def ranks_of(data: bytes, where: str) -> dict[bytes, int]:
    """The rank of each token of a file. Raises TokenizerError naming the line."""
    ranks: dict[bytes, int] = {}
    total = 0
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        found = ranked(line)
        if found is None:
            raise TokenizerError(f"{where}: line {number} is no token in base64 and its rank: {ascii(line)[:60]}")
        token, rank = found
        total += len(token)
        if len(token) > LONGEST or total > MOST_BYTES:
            raise TokenizerError(f"{where}: line {number}: a token has at most {LONGEST} bytes, all together {MOST_BYTES}")
        if token in ranks:
            raise TokenizerError(f"{where}: line {number} gives a token again that has rank {ranks[token]}")
        ranks[token] = rank
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(f"{where}: the ranks are not the numbers from 0 to {len(ranks) - 1}, each once")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenizerError(f"{where}: {len(missing)} single bytes have no rank, {missing[0]} among them; such text could not be encoded")
    return ranks


def _cuts(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    return [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]


def _letters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary. Radford et al. 2019, section 2.2."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]
