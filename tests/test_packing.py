"""Documents become examples: no token is lost or repeated, and what is to be predicted is counted."""

import pickle
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llamazoo.data.example import IGNORED, Example, Examples
from llamazoo.data.loader import batches
from llamazoo.data.packing import ENDLESS, Endless, OnePass
from llamazoo.errors import DataError

LENGTHS = {
    "several in an example": [3, 1, 4, 1, 5, 2],
    "longer than several examples": [50, 2, 31],
    "of one token, but one": [1, 1, 1, 2, 1],
    "exactly an example": [8, 8, 8],
    "all in one example": [2, 3],
}


class Numbered:
    """Documents whose tokens are all different, so that each can be told wherever it comes up: 100 for each document."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths: NDArray[np.int64] = np.array(lengths)

    def __getitem__(self, index: int) -> NDArray[np.uint32]:
        return np.arange(self.lengths[index], dtype=np.uint32) + 100 * index

    @property
    def tokens(self) -> list[int]:
        return [int(token) for index in range(len(self.lengths)) for token in self[index]]

    @property
    def learned(self) -> list[int]:
        """All but the first of each document."""
        return [token for token in self.tokens if token % 100]


def flat(examples: Examples, count: int) -> Example:
    return Example(*(torch.cat(each) for each in zip(*(examples[i] for i in range(count)), strict=True)))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("seq_len", [1, 3, 8])
def test_each_epoch_has_every_token_once_and_every_token_but_a_documents_first_as_a_target(lengths: list[int], seq_len: int) -> None:
    documents = Numbered(lengths)
    size, epochs = sum(lengths), 4
    stream = flat(Endless(documents, seq_len, seed=5), -(-epochs * size // seq_len))
    for epoch in range(epochs):
        tokens, targets, _ = (each[epoch * size : (epoch + 1) * size] for each in stream)
        assert sorted(tokens.tolist()) == documents.tokens
        assert sorted(targets[targets != IGNORED].tolist()) == documents.learned
        assert bool((targets == torch.where(targets == IGNORED, targets, tokens + 1)).all()), "the next of the same document"


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("seq_len", [1, 3, 8])
def test_validation_has_every_token_once_and_pads_the_last_example(lengths: list[int], seq_len: int) -> None:
    documents = Numbered(lengths)
    examples = OnePass(documents, seq_len)
    assert len(examples) == -(-sum(lengths) // seq_len)
    tokens, targets, _ = flat(examples, len(examples))
    size = sum(lengths)
    assert sorted(tokens[:size].tolist()) == documents.tokens
    assert sorted(targets[targets != IGNORED].tolist()) == documents.learned
    assert not tokens[size:].any()
    assert bool((targets[size:] == IGNORED).all())
    last = examples[len(examples) - 1]
    padding = len(examples) * seq_len - size
    if padding:
        assert set(last.segments[-padding:].tolist()).isdisjoint(last.segments[:-padding].tolist())


@pytest.mark.parametrize("seq_len", [3, 8])
def test_segments_number_the_documents_of_an_example_from_nought(seq_len: int) -> None:
    examples = Endless(Numbered([3, 1, 4, 1, 5, 20]), seq_len, seed=1)
    for number in range(40):
        tokens, targets, segments = examples[number]
        begins = tokens % 100 == 0
        begins[0] = False
        assert segments.tolist() == begins.cumsum(0).tolist()
        inside = targets[:-1] != IGNORED
        assert bool((inside == (segments[1:] == segments[:-1])).all())


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("seq_len", [1, 3, 8])
def test_in_validation_a_document_has_one_number_wherever_it_is_met_and_no_other_has_it(lengths: list[int], seq_len: int) -> None:
    examples = OnePass(Numbered(lengths), seq_len)
    tokens, _, segments = (each[: sum(lengths)] for each in flat(examples, len(examples)))
    pairs = set(zip((tokens // 100).tolist(), segments.tolist(), strict=True))
    assert len(pairs) == len({document for document, _ in pairs}) == len({number for _, number in pairs}) == len(lengths)


def test_an_epochs_order_is_its_own_and_follows_from_the_seed() -> None:
    documents = Numbered([1] * 50)
    first, again, other = (flat(Endless(documents, 10, seed), 10).tokens.tolist() for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert first[:50] != first[50:]


def test_an_example_follows_from_its_number_alone_whatever_was_asked_before() -> None:
    documents = Numbered([3, 9, 4])
    straight, back = Endless(documents, 5, 3), Endless(documents, 5, 3)
    expected = [straight[i] for i in range(30)]
    for i in (29, 2, 17, 0, 11):
        assert all(torch.equal(a, b) for a, b in zip(back[i], expected[i], strict=True))
    assert len(back._orders) <= 2, "orders of epochs long gone are not kept"
    assert back[ENDLESS - 1].tokens.shape == (5,)


@pytest.mark.parametrize("number", [-1, 2])
def test_what_is_past_the_end_is_an_index_error(number: int) -> None:
    with pytest.raises(IndexError, match=f"example {number} of 2"):
        OnePass(Numbered([9]), 5)[number]


def test_an_endless_stream_ends_where_python_could_not_count_on() -> None:
    with pytest.raises(IndexError, match="example 1099511627776 of"):
        Endless(Numbered([9]), 5, 0)[ENDLESS]


# Batches


EXAMPLES = Endless(Numbered([30, 7, 1, 12]), 5, seed=2)


def numbers(found: Example) -> list[list[int]]:
    return found.tokens.tolist()


RUN: dict[str, Any] = {"rows": 4, "count": 23}
WHOLE = [torch.stack([EXAMPLES[i].tokens for i in range(first, min(first + 4, 23))]).tolist() for first in range(0, 23, 4)]


def test_batches_come_in_order_and_the_last_is_smaller() -> None:
    found = list(batches(EXAMPLES, **RUN))
    assert [numbers(each) for each in found] == WHOLE
    assert [len(each.tokens) for each in found] == [4, 4, 4, 4, 4, 3]
    assert isinstance(found[0], Example)
    assert len(batches(EXAMPLES, **RUN, first=4)) == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 3, 6])
def test_a_run_goes_on_from_any_step_with_workers_or_without(workers: int, taken: int) -> None:
    stream = iter(batches(EXAMPLES, **RUN, workers=workers))
    assert [numbers(next(stream)) for _ in range(taken)] == WHOLE[:taken]
    assert [numbers(each) for each in batches(EXAMPLES, **RUN, first=taken, workers=workers)] == WHOLE[taken:]


def test_reading_draws_nothing_from_the_random_numbers_of_a_run() -> None:
    before = torch.get_rng_state()
    list(batches(EXAMPLES, **RUN))
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_run_cannot_read_is_refused() -> None:
    with pytest.raises(DataError, match="23 examples are asked for, and there are 10"):
        batches(OnePass(Numbered([50]), 5), **RUN)
    with pytest.raises(DataError, match="batch 7 is none of 6"):
        batches(EXAMPLES, **RUN, first=7)


def test_examples_travel_to_another_process_without_their_orders() -> None:
    EXAMPLES[0]
    copy = pickle.loads(pickle.dumps(EXAMPLES))
    assert copy._orders == {}
    assert Counter(copy[3].tokens.tolist()) == Counter(EXAMPLES[3].tokens.tolist())
