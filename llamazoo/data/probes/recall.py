"""Probes of recall: which value stood beside a key, and what came after a token before."""

from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from llamazoo.contract.options import Size
from llamazoo.data.probes.probe import Probe, Tasks, distinct, unanswered
from llamazoo.errors import Problem, SpecError

__all__ = ["AssociativeRecall", "Induction"]


class AssociativeRecall(Probe):
    """Multi-query associative recall. Arora et al. 2023 (Zoology, arXiv 2312.04927): MQAR.

    n_pairs of a key and its value, keys all different and values too; then n_queries times a key again, after which its value is due
    and follows. Each question is drawn from all pairs, so that what was asked before tells nothing of what is asked next. Half of the
    ids are keys, half are values.
    """

    source: Literal["associative_recall"] = "associative_recall"
    n_pairs: Size = 16
    """Pairs to be remembered."""
    n_queries: Size = 16
    """Questions about them."""
    vocab_size: Size = 128
    """Ids of keys and values together, besides that of padding."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.vocab_size % 2 or self.vocab_size < 2 * self.n_pairs:
            found = f"{self.vocab_size} is not even, or less than twice the {self.n_pairs} pairs; half of the ids are keys, all different"
            raise SpecError(Problem(("vocab_size",), found))
        return self

    @property
    def task_length(self) -> int:
        return 2 * (self.n_pairs + self.n_queries)

    @property
    def ids(self) -> int:
        return 1 + self.vocab_size

    @property
    def chance(self) -> float:
        return 1 / self.n_pairs  # any of the values that stand in the task

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        half = self.vocab_size // 2
        keys = 1 + distinct(rng, count, self.n_pairs, half)
        values = 1 + half + distinct(rng, count, self.n_pairs, half)
        asked = rng.integers(self.n_pairs, size=(count, self.n_queries))
        order = np.concatenate([np.broadcast_to(np.arange(self.n_pairs), keys.shape), asked], axis=1)
        tokens = np.empty((count, self.task_length), dtype=np.int64)
        tokens[:, 0::2] = np.take_along_axis(keys, order, axis=1)
        tokens[:, 1::2] = np.take_along_axis(values, order, axis=1)
        targets = unanswered(tokens)
        first = 2 * self.n_pairs
        targets[:, first::2] = tokens[:, first + 1 :: 2]
        return Tasks(tokens, targets)


class Induction(Probe):
    """Induction: what came after this token before. Olsson et al. 2022 (arXiv 2209.11895), on repeated random sequences.

    `length` different random tokens; then `spans` stretches of `span` tokens each, copied from random places among them. Only
    the token itself tells where its stretch comes from, so within a stretch the next token is due.
    """

    source: Literal["induction"] = "induction"
    length: Size = 32
    """Tokens that come first, all different."""
    spans: Size = 4
    """How many stretches of them are repeated."""
    span: Size = 8
    """Tokens of a stretch."""
    vocab_size: Size = 64
    """How many tokens there are to draw from, besides that of padding."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.vocab_size < self.length:
            raise SpecError(Problem(("vocab_size",), f"{self.vocab_size} is less than length {self.length}, whose tokens all differ"))
        if not 2 <= self.span < self.length:
            told = f"{self.span} is not from 2 to {self.length - 1}, one less than length; a stretch of all tokens begins where all do"
            raise SpecError(Problem(("span",), told))
        return self

    @property
    def task_length(self) -> int:
        return self.length + self.spans * self.span

    @property
    def ids(self) -> int:
        return 1 + self.vocab_size

    @property
    def chance(self) -> float:
        return 1 / (self.length - self.span + 1)  # what stands as far into a stretch as this, if it began where it may

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        before = 1 + distinct(rng, count, self.length, self.vocab_size)
        begins = rng.integers(self.length - self.span + 1, size=(count, self.spans, 1))
        places = (begins + np.arange(self.span)).reshape(count, -1)
        again = np.take_along_axis(before, places, axis=1)
        due = unanswered(again).reshape(count, self.spans, self.span)
        due[:, :, :-1] = again.reshape(due.shape)[:, :, 1:]
        targets = np.concatenate([unanswered(before), due.reshape(count, -1)], axis=1)
        return Tasks(np.concatenate([before, again], axis=1), targets)
