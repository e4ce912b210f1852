"""Rules between a checkpoint's tensors and ours: data, one per tensor or group, that run both ways.

A pattern is a dotted name in which `*` stands for one word and `**` for any number of them; what it stands for on one
side stands on the other. The first rule that matches a name takes it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Drop", "Fuse", "Move", "Rename", "Rule", "Split", "SplitGroups", "SplitTransposed", "Transpose", "plan"]


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


@dataclass(frozen=True)
class Rename(Rule):
    """The same values under another name."""

    theirs: str
    ours: str


@dataclass(frozen=True)
class Transpose(Rule):
    """A matrix stored the other way round (GPT-2's Conv1D)."""

    theirs: str
    ours: str

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.transpose(0, 1) for t in tensors]

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
    left = dict.fromkeys(names)
    moves: list[Move] = []
    incomplete: list[tuple[Rule, str]] = []  # further patterns of rules that take several names at once
    for rule in rules:
        first, *more = _tuple(getattr(rule, side)) or ("",)
        _take(rule, first, side, left, moves)
        incomplete += [(rule, pattern) for pattern in more]
    if left:  # the first of several names is not there, and others are
        for rule, pattern in incomplete:
            _take(rule, pattern, side, left, moves)
    return moves, list(left)


def _take(rule: Rule, pattern: str, side: Literal["theirs", "ours"], left: dict[str, None], moves: list[Move]) -> None:
    expression = _expression(pattern)
    begin, end = pattern.partition("*")[0], pattern.rpartition("*")[2]
    found = [match for name in left if name.startswith(begin) and name.endswith(end) and (match := expression.fullmatch(name))]
    for match in found:
        theirs, ours = (tuple(_filled(p, match.groups()) for p in _tuple(ends)) for ends in (rule.theirs, rule.ours))
        moves.append(Move(rule, theirs, ours))
        for name in theirs if side == "theirs" else ours:
            left.pop(name, None)


def _tuple(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", r"([^.]+)"))


def _filled(pattern: str, binding: tuple[str, ...]) -> str:
    values = iter(binding)
    return re.sub(r"\*\*|\*", lambda match: next(values, match[0]), pattern)
