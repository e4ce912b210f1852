"""What all probes have in common: tasks of equal length, drawn by number, several to an example."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from llamazoo.contract.options import Size
from llamazoo.data.draws import Purpose, checked_request, draws
from llamazoo.data.example import IGNORED, Example, Examples
from llamazoo.data.packing import ENDLESS
from llamazoo.errors import DataError

__all__ = ["PADDING", "Probe", "ProbeData", "Tasks", "distinct", "unanswered"]

PADDING = 0  # a token that no task uses
PROBE_VERSION = 2  # of how all tasks are drawn


class Tasks(NamedTuple):
    """Some tasks [n l]: tokens, and the answer due after each, or -100."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]


def unanswered(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Targets for these tokens before any answer is due."""
    return np.full_like(tokens, IGNORED)


def distinct(rng: np.random.Generator, rows: int, count: int, size: int) -> NDArray[np.int64]:
    """Different numbers below `size` in random order, [rows count]: where the smallest of as many random numbers stand."""
    numbers = rng.random((rows, size))
    if count == size:
        return numbers.argsort(axis=1)
    smallest = np.argpartition(numbers, count, axis=1)[:, :count]
    order = np.take_along_axis(numbers, smallest, axis=1).argsort(axis=1)
    return np.take_along_axis(smallest, order, axis=1)


class Probe(BaseModel, ABC):
    """A task as data. Its tasks have one length; as many as fit fill an example, documents of their own, and the rest is padded."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    validation_examples: Size = 256
    """How many examples validation has."""

    @property
    @abstractmethod
    def task_length(self) -> int:
        """Tokens of one task."""

    @property
    @abstractmethod
    def ids(self) -> int:
        """How many token ids there are, with that of padding."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The accuracy in validation of the best guess that reads nothing of what is asked, though it may know how tasks are drawn."""

    @property
    def shortcut(self) -> float:
        """The accuracy of the best rule known that reads more, yet does less than what is measured; that of a guess if there is none."""
        return self.chance

    @abstractmethod
    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        """Draw tasks; those of validation are told, in case they are others."""

    def open(self, cache: Path | None = None) -> "ProbeData":
        """The probe, ready to be read; nothing of it is kept on disk."""
        return ProbeData(self)


class ProbeData:
    """A probe as a data set."""

    accuracy = True

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    @property
    def vocab_size(self) -> int:
        return self.probe.ids

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{PROBE_VERSION} {self.probe.model_dump_json()}".encode()).hexdigest()

    def training(self, seq_len: int, seed: int) -> Examples:
        checked_request(seq_len, seed)
        return TaskExamples(self.probe, seq_len, seed, Purpose.TRAINING_TASKS, ENDLESS)

    def validation(self, seq_len: int) -> Examples:
        checked_request(seq_len)
        return TaskExamples(self.probe, seq_len, 0, Purpose.VALIDATION_TASKS, self.probe.validation_examples)

    def facts(self) -> dict[str, str | int | float]:
        """Its options, the length of a task, and what is scored by guessing, and by the best rule that does less than what is asked."""
        options: dict[str, Any] = self.probe.model_dump()
        return {
            **options,
            "task_length": self.probe.task_length,
            "token_ids": self.vocab_size,  # not vocab_size, which is an option of most probes and counts symbols alone
            "chance": self.probe.chance,
            "shortcut": self.probe.shortcut,
            "fingerprint": self.fingerprint,
        }


class TaskExamples:
    """Examples of a probe; each follows from the seed, the purpose and its number."""

    def __init__(self, probe: Probe, seq_len: int, seed: int, purpose: Purpose, count: int) -> None:
        self.probe, self.seq_len, self.seed, self.purpose, self.count = probe, seq_len, seed, purpose, count
        self.tasks = seq_len // probe.task_length
        if not self.tasks:
            name = type(probe).model_fields["source"].default
            raise DataError(
                f"{name}: a task takes {probe.task_length} tokens and an example has {seq_len}; lengthen seq_len, or make the task smaller"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(f"example {index} of {self.count}")
        rng = draws(self.seed, self.purpose, index)
        drawn = self.probe.tasks(rng, self.tasks, validation=self.purpose is Purpose.VALIDATION_TASKS)
        tokens = np.full(self.seq_len, PADDING, dtype=np.int64)
        targets = np.full(self.seq_len, IGNORED, dtype=np.int64)
        filled = drawn.tokens.size
        tokens[:filled] = drawn.tokens.reshape(-1)
        targets[:filled] = drawn.targets.reshape(-1)
        segments = index * (1 + self.tasks) + np.arange(self.seq_len, dtype=np.int64) // self.probe.task_length  # padding has its own
        return Example(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(segments))
