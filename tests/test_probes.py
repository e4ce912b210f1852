"""Probes: every answer that is due follows from the tokens before it, and guessing scores what is told."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from llamazoo.data.config import PROBES, SOURCES, read_data
from llamazoo.data.example import IGNORED, Example
from llamazoo.data.probes.probe import PADDING, Probe
from llamazoo.errors import DataError, SpecError
from llamazoo.training.evaluate import evaluated

NAMES = [each.model_fields["source"].default for each in PROBES]


def probe(name: str, **options: Any) -> Probe:
    found = read_data({"source": name, **options})
    assert isinstance(found, Probe)
    return found


def solve_associative_recall(p: Any, tokens: list[int]) -> list[int]:
    half, known, answers = p.vocab_size // 2, {}, []
    for at, token in enumerate(tokens):
        if token > half:
            known[tokens[at - 1]] = token
        answers.append(known.get(token, IGNORED))
    return answers


def solve_induction(p: Any, tokens: list[int]) -> list[int]:
    before = tokens[: p.length]
    ends = {p.length + i for i in range(p.spans * p.span) if i % p.span == p.span - 1}
    return [before[before.index(t) + 1] if at >= p.length and at not in ends else IGNORED for at, t in enumerate(tokens)]


def solve_copying(p: Any, tokens: list[int]) -> list[int]:
    separator = tokens.index(1)
    return [IGNORED] * separator + [token for token in tokens[:separator] if token != 2 or p.source == "copying"]


def solve_modular_addition(p: Any, tokens: list[int]) -> list[int]:
    a, plus, b, equals = tokens
    assert (plus, equals) == (1, 2)
    return [IGNORED] * 3 + [3 + (a - 3 + b - 3) % p.modulus]


def solve_brackets(p: Any, tokens: list[int]) -> list[int]:
    answers, stack = [], []
    for token, following in itertools.pairwise([*tokens, 0]):
        if token <= p.sorts:
            stack.append(token)
        else:
            assert stack.pop() == token - p.sorts, "well nested"
        assert len(stack) <= p.depth
        due = following > p.sorts and token > p.sorts
        answers.append(stack[-1] + p.sorts if due else IGNORED)
    assert not stack
    return answers


def solve_state_tracking(p: Any, tokens: list[int]) -> list[int]:
    size = int(p.group[1])
    permutations = list(itertools.permutations(range(size)))
    if p.group[0] == "a":
        signs = [torch.eye(size)[list(each)].det().item() for each in permutations]
        permutations = [each for each, sign in zip(permutations, signs, strict=True) if sign > 0]
    things, answers = list(range(size)), []
    for token in tokens:
        things = [permutations[token - 1][thing] for thing in things]
        answers.append(1 + permutations.index(tuple(things)))
    return [IGNORED, *answers[1:]]


SOLVERS: dict[str, Callable[[Any, list[int]], list[int]]] = {
    "associative_recall": solve_associative_recall,
    "induction": solve_induction,
    "copying": solve_copying,
    "selective_copying": solve_copying,
    "modular_addition": solve_modular_addition,
    "brackets": solve_brackets,
    "state_tracking": solve_state_tracking,
}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("associative_recall", {"n_pairs": 3, "n_queries": 8, "vocab_size": 6}),
    ("associative_recall", {"n_pairs": 24, "n_queries": 5, "vocab_size": 4096}),
    ("induction", {"length": 10, "spans": 3, "span": 10, "vocab_size": 10}),
    ("copying", {"length": 1, "vocab_size": 2}),
    ("selective_copying", {"length": 5, "blanks": 1, "vocab_size": 3}),
    ("modular_addition", {"modulus": 5}),
    ("brackets", {"length": 20, "sorts": 2, "depth": 2}),
    ("state_tracking", {"group": "s4", "length": 7}),
    ("state_tracking", {"group": "a5", "length": 17}),
    ("state_tracking", {"group": "s5", "length": 2}),
]
ALL = [(name, {}) for name in NAMES] + OTHERS


def some(name: str, options: dict[str, Any], count: int = 10, seq_len: int = 130) -> list[Example]:
    data = probe(name, **options).open()
    training, validation = data.training(seq_len, 3), data.validation(seq_len)
    return [*(training[i] for i in range(count)), *(validation[i] for i in range(count))]


@pytest.mark.parametrize(("name", "options"), ALL)
def test_every_answer_follows_from_the_tokens_and_no_other_is_due(name: str, options: dict[str, Any]) -> None:
    chosen = probe(name, **options)
    length = chosen.task_length
    for tokens, targets, segments in some(name, options):
        tasks = len(tokens) // length
        for task in range(tasks):
            stretch = slice(task * length, (task + 1) * length)
            assert SOLVERS[name](chosen, tokens[stretch].tolist()) == targets[stretch].tolist()
            assert set((segments[stretch] - segments[0]).tolist()) == {task}
        rest = slice(tasks * length, None)
        assert bool((tokens[rest] == PADDING).all())
        assert bool((targets[rest] == IGNORED).all())
        assert set(segments[rest].tolist()).isdisjoint(segments[: tasks * length].tolist())
        assert PADDING not in tokens[: tasks * length].tolist()


@pytest.mark.parametrize(("name", "options"), ALL)
def test_all_ids_are_within_the_vocabulary_and_the_largest_is_needed(name: str, options: dict[str, Any]) -> None:
    size = probe(name, **options).open().vocab_size
    found = some(name, options, count=40, seq_len=256)
    assert min(int(e.tokens.min()) for e in found) >= 0
    highest = max(max(int(e.tokens.max()), int(e.targets.max())) for e in found)
    assert highest == size - 1 or (size > 100 and size * 0.9 < highest < size)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_the_best_single_answer_scores_what_facts_call_chance(name: str, options: dict[str, Any]) -> None:
    data = probe(name, **options, validation_examples=200).open()
    answers = torch.cat([example.targets for example in data.validation(512)])
    counts = Counter(answers[answers != IGNORED].tolist())
    chance = data.facts()["chance"]
    assert isinstance(chance, float)
    total = sum(counts.values())
    assert total > 1000
    best = max(counts.values()) / total
    noise = 5 * (chance / total) ** 0.5
    assert chance - noise < best < chance + noise


@pytest.mark.parametrize("name", NAMES)
def test_an_example_follows_from_the_seed_and_its_number(name: str) -> None:
    one, same, other = (probe(name).open().training(128, seed) for seed in (1, 1, 2))
    last = [one[i] for i in (0, 4, 9)][-1]
    assert all(torch.equal(a, b) for a, b in zip(last, same[9], strict=True))
    assert not torch.equal(one[9].tokens, one[8].tokens)
    assert not torch.equal(one[9].tokens, other[9].tokens)


@pytest.mark.parametrize("name", NAMES)
def test_validation_is_another_stream_of_a_fixed_length(name: str) -> None:
    data = probe(name, validation_examples=3).open()
    assert data.accuracy
    validation = data.validation(128)
    assert len(validation) == 3
    trained = {tuple(data.training(128, seed)[i].tokens.tolist()) for seed in (0, 1) for i in range(50)}
    assert not trained & {tuple(validation[i].tokens.tolist()) for i in range(3)}
    with pytest.raises(IndexError, match="example 3 of 3"):
        validation[3]


def test_validation_asks_for_sums_that_training_never_shows() -> None:
    data = probe("modular_addition", modulus=11).open()

    def pairs(examples: Any, count: int) -> set[tuple[int, int]]:
        rows = torch.cat([examples[i].tokens for i in range(count)]).reshape(-1, 4)
        return {(int(a), int(b)) for a, _, b, _ in rows}

    trained, asked = pairs(data.training(128, 0), 100), pairs(data.validation(128), 100)
    assert len(trained | asked) == 121
    assert not trained & (asked | {(b, a) for a, b in asked})
    assert 0.1 < len(asked) / 121 < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_an_example_that_holds_no_task_is_refused_with_the_numbers(name: str) -> None:
    chosen = probe(name)
    with pytest.raises(DataError, match=f"{name}: a task takes {chosen.task_length} tokens and an example has 3"):
        chosen.open().training(3, 0)


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("associative_recall", {"vocab_size": 30}, "vocab_size: 30 is not even, or less than twice the 16 pairs"),
        ("associative_recall", {"vocab_size": 33}, "vocab_size: 33 is not even"),
        ("induction", {"vocab_size": 31}, "vocab_size: 31 is less than length 32"),
        ("induction", {"span": 1}, "span: 1 is not from 2 to length 32"),
        ("brackets", {"length": 33}, "length: 33 is odd"),
        ("modular_addition", {"modulus": 3, "validation": 0.001}, r"validation: a share of 0.001 of 3\*\*2 pairs"),
        ("state_tracking", {"group": "s6"}, "group: input should be 's3', 's4', 'a5' or 's5', found 's6'"),
        ("copying", {"lenght": 3}, "lenght: no such field; did you mean 'length'"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(name: str, options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(SpecError, match=wrong):
        read_data({"source": name, **options})


def test_a_fingerprint_is_of_the_options() -> None:
    prints = [probe(name, **options).open().fingerprint for name, options in ALL]
    assert len(set(prints)) == len(ALL)
    assert probe("copying").open().fingerprint == SOURCES["copying"]().open().fingerprint


@pytest.mark.parametrize(("name", "options"), ALL)
def test_no_two_tasks_of_validation_have_one_number(name: str, options: dict[str, Any]) -> None:
    chosen = probe(name, **options)
    for seq_len in (chosen.task_length, 3 * chosen.task_length + 1):
        validation = chosen.open().validation(seq_len)
        numbers = [set(validation[i].segments.tolist()) for i in range(4)]
        assert sum(map(len, numbers)) == len(set().union(*numbers))
        found = evaluated(validation, 4 * seq_len)
        assert found.documents == 4 * (seq_len // chosen.task_length)
