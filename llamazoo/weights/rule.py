"""Rules between a checkpoint's tensors and ours: data, one per tensor or group, that run both ways.

A pattern is a dotted name in which `*` stands for one word and `**` for any number of them; what it stands for on one
side stands on the other. The first rule that matches a name takes it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Drop", "Fuse", "Interleave", "Move", "Rename", "Rule", "Split", "SplitGroups", "SplitTransposed", "Stack", "Transpose", "plan"]

STARS = re.compile(r"\*\*|\*")


class Rule:
    """Names on both sides, and how values go from one to the other. Here: unchanged."""

    theirs: str | Sequence[str]
    ours: str | Sequence[str]

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """From theirs to ours."""
        return list(tensors)

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """From ours to theirs: what `read` undoes."""
        return list(tensors)

    def gather(self, names: Sequence[str], fetch: Callable[[str], Tensor]) -> list[Tensor]:
        """What `read` makes of the tensors of these names, each fetched when it is needed."""
        return self.read([fetch(name) for name in names])


@dataclass(frozen=True)
class Rename(Rule):
    """The same values under another name."""

    theirs: str
    ours: str


@dataclass(frozen=True)
class Transpose(Rule):
    """A matrix, or each of a stack of them, stored the other way round (GPT-2's Conv1D)."""

    theirs: str
    ours: str

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.transpose(-2, -1) for t in tensors]

    write = read


@dataclass(frozen=True)
class Fuse(Rule):
    """Several tensors of theirs, joined along `dim`, are one of ours; `sizes` are their shares."""

    theirs: tuple[str, ...]
    ours: str
    sizes: tuple[int, ...]
    dim: int = 0

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat(list(tensors), self.dim)]

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(self.sizes, self.dim))


@dataclass(frozen=True)
class Split(Rule):
    """One tensor of theirs, cut along `dim` into `sizes`, is several of ours (a fused qkv)."""

    theirs: str
    ours: tuple[str, ...]
    sizes: tuple[int, ...]
    dim: int = 0

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(self.sizes, self.dim))

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat(list(tensors), self.dim)]


@dataclass(frozen=True)
class SplitTransposed(Split):
    """A matrix of theirs, stored the other way round, is several of ours (GPT-2's fused qkv)."""

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return super().read([t.transpose(0, 1) for t in tensors])

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.transpose(0, 1) for t in super().write(tensors)]


@dataclass(frozen=True)
class SplitGroups(Rule):
    """One tensor of theirs, each of whose `groups` of rows is cut into `sizes`, is several of ours.

    This is a fused qkv in which each key/value head stands behind the heads of queries that it serves; weights or biases.
    """

    theirs: str
    ours: tuple[str, ...]
    sizes: tuple[int, ...]  # rows of one group
    groups: int

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [part.flatten(0, 1) for part in tensors[0].unflatten(0, (self.groups, sum(self.sizes))).split(self.sizes, 1)]

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat([t.unflatten(0, (self.groups, -1)) for t in tensors], 1).flatten(0, 1)]


@dataclass(frozen=True)
class Interleave(Rule):
    """One tensor of theirs, whose last dimension holds entries of several of ours in turn (gpt-oss: gate and up).

    With `transposed` the matrices are stored the other way round as well.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        parts = tensors[0].unflatten(-1, (-1, len(self.ours))).unbind(-1)
        return [part.transpose(-2, -1) if self.transposed else part for part in parts]

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        parts = [part.transpose(-2, -1) if self.transposed else part for part in tensors]
        return [torch.stack(parts, -1).flatten(-2)]


@dataclass(frozen=True)
class Stack(Rule):
    """Many tensors of theirs, all of one shape, are one of ours with a dimension more, the first (an expert each)."""

    theirs: tuple[str, ...]
    ours: str

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack(list(tensors))]

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if len(tensors[0]) != len(self.theirs):
            raise ValueError(f"{self.ours} holds {len(tensors[0])} tensors, where {len(self.theirs)} are written")
        return list(tensors[0])

    def gather(self, names: Sequence[str], fetch: Callable[[str], Tensor]) -> list[Tensor]:
        """One at a time, so that no more than one of them is held twice."""
        first = fetch(names[0])
        stacked = first.new_empty((len(names), *first.shape))
        stacked[0] = first
        del first
        for number, name in enumerate(names[1:], 1):
            stacked[number] = fetch(name)
        return [stacked]


@dataclass(frozen=True)
class Drop(Rule):
    """A tensor of theirs that we do not need, and why; it is not written back."""

    theirs: str
    reason: str
    ours: tuple[str, ...] = ()

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return []


@dataclass(frozen=True)
class Move:
    """One rule applied to names of one layer."""

    rule: Rule
    theirs: tuple[str, ...]
    ours: tuple[str, ...]


def plan(rules: Iterable[Rule], names: Iterable[str], side: Literal["theirs", "ours"]) -> tuple[list[Move], list[str]]:
    """The moves that take in all `names` of one side, and the names that no rule knows."""
    left = _Names(names)
    moves: list[Move] = []
    incomplete: list[tuple[Rule, str]] = []  # further patterns of rules that take several names at once
    for rule in rules:
        first, *more = _tuple(getattr(rule, side)) or ("",)
        _take(rule, first, side, left, moves)
        incomplete += [(rule, pattern) for pattern in more]
    for rule, pattern in incomplete:  # the first of several names is not there, and others are
        if not left.names:
            break
        _take(rule, pattern, side, left, moves)
    return moves, list(left.names)


def _take(rule: Rule, pattern: str, side: Literal["theirs", "ours"], left: "_Names", moves: list[Move]) -> None:
    found = left.matching(pattern)
    if not found:
        return
    theirs, ours = ([STARS.split(end) for end in _tuple(ends)] for ends in (rule.theirs, rule.ours))
    for binding in found:
        move = Move(rule, tuple(_filled(end, binding) for end in theirs), tuple(_filled(end, binding) for end in ours))
        moves.append(move)
        for name in move.theirs if side == "theirs" else move.ours:
            left.names.pop(name, None)


class _Names:
    """Names that have not been taken yet, which a pattern of whole words finds without a look at each.

    A mixture of experts has tens of thousands of tensors, and as many patterns as experts.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = dict.fromkeys(names)
        self.words: dict[int, list[tuple[str, ...]]] = {}  # every name as its words, by how many they are
        for name in self.names:
            words = tuple(name.split("."))
            self.words.setdefault(len(words), []).append(words)
        # By the number of words and where stars stand: names by their other words.
        self.index: dict[tuple[int, tuple[int, ...]], dict[tuple[str, ...], list[tuple[str, ...]]]] = {}

    def matching(self, pattern: str) -> list[tuple[str, ...]]:
        """What the stars of a pattern stand for, in each of the names left that it matches."""
        words = tuple(pattern.split("."))
        if "**" in pattern or any("*" in word and word != "*" for word in words):
            expression = _expression(pattern)
            return [match.groups() for name in self.names if (match := expression.fullmatch(name))]
        stars = tuple(place for place, word in enumerate(words) if word == "*")
        if (len(words), stars) not in self.index:
            index = self.index[len(words), stars] = {}
            for name in self.words.get(len(words), []):
                index.setdefault(_without(name, stars), []).append(name)
        found = self.index[len(words), stars].get(_without(words, stars), [])
        return [tuple(name[place] for place in stars) for name in found if ".".join(name) in self.names and all(name)]


def _without(words: tuple[str, ...], places: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(word for place, word in enumerate(words) if place not in places)


def _tuple(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", r"([^.]+)"))


def _filled(pieces: Sequence[str], binding: tuple[str, ...]) -> str:
    """A pattern, cut at its stars, with what they stand for; a star too many stays."""
    return pieces[0] + "".join(value + piece for value, piece in zip_longest(binding[: len(pieces) - 1], pieces[1:], fillvalue="*"))
