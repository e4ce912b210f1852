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

__all__ = ["Drop", "Fuse", "Move", "Permute", "Rename", "Rule", "Split", "Transpose", "plan"]

Layout = Literal["half", "interleaved"]


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
class Permute(Rule):
    """Rows of a projection to rotated heads: theirs are in one layout of rotary pairs, ours in another.

    Of each head of `head_dim` rows, `width` are rotated, from `begin` on. Interleaved pairs are the rows 2i and 2i + 1, half
    pairs the rows i and i + width/2.
    """

    theirs: str
    ours: str
    head_dim: int
    width: int
    layout: Layout  # theirs; ours is the other
    begin: int = 0

    def read(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self._to(self.layout == "interleaved", t) for t in tensors]

    def write(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self._to(self.layout == "half", t) for t in tensors]

    def _to(self, half: bool, x: Tensor) -> Tensor:
        before, rotated, after = x.unflatten(0, (-1, self.head_dim)).tensor_split((self.begin, self.begin + self.width), 1)
        turned = rotated.unflatten(1, (-1, 2) if half else (2, -1)).transpose(1, 2).flatten(1, 2)
        return torch.cat((before, turned, after), 1).flatten(0, 1)


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
    for rule in rules:
        patterns = _tuple(getattr(rule, side))
        bindings: dict[tuple[str, ...], None] = {}
        for pattern in patterns:
            expression = _expression(pattern)
            found = [(name, match) for name in left if (match := expression.fullmatch(name))]
            bindings.update((match.groups(), None) for _, match in found)
            for name, _ in found:
                del left[name]
        for binding in bindings:
            theirs, ours = (tuple(_filled(p, binding) for p in _tuple(end)) for end in (rule.theirs, rule.ours))
            moves.append(Move(rule, theirs, ours))
    return moves, list(left)


def _tuple(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", r"([^.]+)"))


def _filled(pattern: str, binding: tuple[str, ...]) -> str:
    values = iter(binding)
    return re.sub(r"\*\*|\*", lambda match: next(values, match[0]), pattern)
