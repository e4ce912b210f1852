"""Probes: every answer that is due follows from the tokens before it, and guessing scores what is told."""

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from llamazoo.data.config import PROBES, SOURCES, read_data
from llamazoo.data.example import IGNORED, Example
from llamazoo.data.probes.probe import PADDING, PROBE_VERSION, Probe
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
    ("induction", {"length": 10, "spans": 3, "span": 9, "vocab_size": 10}),
    ("copying", {"length": 1, "vocab_size": 2}),
    ("copying", {"length": 8, "vocab_size": 3}),
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
def test_no_answer_that_is_always_the_same_scores_more_than_what_facts_call_chance(name: str, options: dict[str, Any]) -> None:
    data = probe(name, **options, validation_examples=200).open()
    answers = torch.cat([example.targets for example in data.validation(512)])
    counts = Counter(answers[answers != IGNORED].tolist())
    chance = data.facts()["chance"]
    assert isinstance(chance, float)
    total = sum(counts.values())
    assert total > 1000
    assert max(counts.values()) / total < chance + 5 * (chance / total) ** 0.5
    if name not in ("associative_recall", "induction"):  # where it is of a rule that knows which tokens stand in the task
        assert max(counts.values()) / total > chance - 5 * (chance / total) ** 0.5


# Rules that do less than what is asked: an answer for each token of a task, which counts where one is due


def any_value(p: Any, tokens: list[int]) -> list[int]:
    return [tokens[1]] * len(tokens)


def a_value_not_asked_for(p: Any, tokens: list[int]) -> list[int]:
    first = 2 * p.n_pairs
    stand = tokens[1:first:2]
    counts = (Counter(tokens[first + 1 : at : 2]) for at in range(len(tokens)))
    return [min(stand, key=asked.__getitem__) for asked in counts]


def a_value_asked_for_most(p: Any, tokens: list[int]) -> list[int]:
    first = 2 * p.n_pairs
    counts = (Counter([*tokens[1:first:2], *tokens[first + 1 : at : 2]]) for at in range(len(tokens)))
    return [asked.most_common(1)[0][0] for asked in counts]


def a_fixed_place(p: Any, tokens: list[int]) -> list[int]:
    begin = (p.length - p.span) // 2
    return [tokens[begin + (max(at - p.length, 0) + 1) % p.span] for at in range(len(tokens))]


def a_token_not_repeated(p: Any, tokens: list[int]) -> list[int]:
    before = tokens[: p.length]
    counts = (Counter(tokens[p.length : at + 1]) for at in range(len(tokens)))
    return [min(before, key=repeated.__getitem__) for repeated in counts]


def asked_again(p: Any, tokens: list[int]) -> tuple[list[int], int]:
    """The symbols of a task of copying, and where the separator stands."""
    separator = tokens.index(1)
    return [token for token in tokens[:separator] if token != 2 or p.source == "copying"], separator


def a_symbol_left(p: Any, tokens: list[int]) -> list[int]:
    """Drawn, so that it is any of those left and not the one that stood first."""
    symbols, separator = asked_again(p, tokens)
    answers = []
    draw = random.Random(str(tokens))
    for at in range(len(tokens)):
        left = Counter(symbols) - Counter(tokens[separator + 1 : at + 1])
        answers.append(draw.choice(list(left.elements())))
    return answers


def what_followed(p: Any, tokens: list[int]) -> list[int]:
    """What came after a symbol's first place, before the separator; blanks are not seen."""
    symbols, _ = asked_again(p, tokens)
    after = dict(reversed(list(itertools.pairwise(symbols))))
    return [after.get(token, 3) for token in tokens]


def where_it_stands_most_often(p: Any, tokens: list[int]) -> list[int]:
    _, separator = asked_again(p, tokens)
    places = [round((at - separator) * separator / (p.length - 1 or 1)) for at in range(len(tokens))]
    return [next((token for token in tokens[max(place, 0) : separator] if token != 2), 3) for place in places]


def nearest_not_closed_at_once(p: Any, tokens: list[int]) -> list[int]:
    answers, last = [], 1
    for token, following in itertools.pairwise([*tokens, 0]):
        if token <= p.sorts and following != token + p.sorts:
            last = token
        answers.append(last + p.sorts)
    return answers


def open_most_often(p: Any, tokens: list[int]) -> list[int]:
    answers, more = [], Counter[int]()
    for token in tokens:
        more[(token - 1) % p.sorts] += 1 if token <= p.sorts else -1
        answers.append(1 + p.sorts + max(range(p.sorts), key=more.__getitem__))
    return answers


def nearest_of_a_sort_that_is_open(p: Any, tokens: list[int]) -> list[int]:
    answers = []
    for at in range(len(tokens)):
        counts = Counter(tokens[: at + 1])
        more = [sort for sort in range(1, p.sorts + 1) if counts[sort] > counts[sort + p.sorts]]
        left = [a for a, b in itertools.pairwise([*tokens[: at + 1], 0]) if a in more and b != a + p.sorts]
        answers.append((left or [1])[-1] + p.sorts)
    return answers


def first_two_and_then_the_sign(p: Any, tokens: list[int]) -> list[int]:
    size = int(p.group[1])
    known = [each for each in itertools.permutations(range(size)) if p.group[0] == "s" or not odd(each)]
    first, second = known[tokens[0] - 1], known[tokens[1] - 1]
    answers = [IGNORED, 1 + known.index(tuple(second[thing] for thing in first))]
    for at in range(2, len(tokens)):
        sign = sum(odd(known[token - 1]) for token in tokens[: at + 1]) % 2
        answers.append(next(1 + number for number, each in enumerate(known) if odd(each) == sign))
    return answers


def the_last_one(p: Any, tokens: list[int]) -> list[int]:
    return tokens


def odd(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 1


Rule = Callable[[Any, list[int]], list[int]]
GUESS: dict[str, Rule] = {
    "associative_recall": any_value,
    "induction": a_fixed_place,
}  # knows what stands in the task; others answer one thing
BEST: dict[str, list[Rule]] = {
    "associative_recall": [any_value],
    "induction": [a_fixed_place],
    "copying": [a_symbol_left, what_followed],
    "selective_copying": [a_symbol_left, what_followed],
    "brackets": [nearest_of_a_sort_that_is_open],
    "state_tracking": [first_two_and_then_the_sign],
}
OTHER_RULES: dict[str, list[Rule]] = {
    "associative_recall": [a_value_not_asked_for, a_value_asked_for_most],
    "induction": [a_token_not_repeated],
    "selective_copying": [where_it_stands_most_often],
    "brackets": [nearest_not_closed_at_once, open_most_often],
    "state_tracking": [the_last_one],
}


def scored(rule: Rule, name: str, options: dict[str, Any]) -> tuple[float, float]:
    """The accuracy of a rule, and five standard errors of it: the answers of one task are not independent."""
    chosen = probe(name, **options)
    length = chosen.task_length
    shares = []
    examples = chosen.open().training(length, 11)
    for tokens, targets, _ in (examples[i] for i in range(400)):
        answers = rule(chosen, tokens.tolist())
        due = [(answer, wanted) for answer, wanted in zip(answers, targets.tolist(), strict=True) if wanted != IGNORED]
        if due:
            shares.append((sum(answer == wanted for answer, wanted in due), len(due)))
    right, count = (torch.tensor(each, dtype=torch.float64) for each in zip(*shares, strict=True))
    mean = float(right.sum() / count.sum())
    return mean, 5 * float((right - mean * count).std()) * len(shares) ** 0.5 / float(count.sum()) + 1e-9


RULED = [(name, options) for name, options in ALL if name in BEST]


@pytest.mark.parametrize(("name", "options"), RULED)
def test_rules_that_do_less_than_what_is_asked_score_what_facts_tell(name: str, options: dict[str, Any]) -> None:
    facts = probe(name, **options).open().facts()
    assert float(facts["chance"]) <= float(facts["shortcut"])
    if name in GUESS:
        score, noise = scored(GUESS[name], name, options)
        assert abs(score - float(facts["chance"])) < noise
    score, noise = max(scored(rule, name, options) for rule in BEST[name])
    assert abs(score - float(facts["shortcut"])) < noise + 0.01


@pytest.mark.parametrize("name", OTHER_RULES)
def test_no_other_rule_known_scores_more_than_the_shortcut_that_is_told(name: str) -> None:
    for rule in OTHER_RULES[name]:
        score, noise = scored(rule, name, {})
        assert score < float(probe(name).open().facts()["shortcut"]) + noise, rule


def test_of_a_sum_whose_first_number_is_read_as_much_is_known_as_facts_tell() -> None:
    chosen: Any = probe("modular_addition", modulus=11, validation_examples=60)
    data = chosen.open()
    shown = {(a, b) for i in range(60) for a, _, b, _ in data.training(128, 0)[i].tokens.reshape(-1, 4).tolist()}
    right = count = 0
    for i in range(60):
        tokens, targets, _ = data.validation(128)[i]
        for (a, *_), (*_, wanted) in zip(tokens.reshape(-1, 4).tolist(), targets.reshape(-1, 4).tolist(), strict=True):
            other = next(b for b in range(3, 14) if (a, b) not in shown)
            right += 3 + (a - 3 + other - 3) % 11 == wanted
            count += 1
    told = data.facts()["shortcut"]
    assert isinstance(told, float)
    assert told > data.facts()["chance"]  # type: ignore[operator]
    assert abs(right / count - told) < 5 * (told / count) ** 0.5


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
        ("induction", {"span": 1}, "span: 1 is not from 2 to 31"),
        ("induction", {"span": 32}, "span: 32 is not from 2 to 31, one less than length"),
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


GIVEN = {
    "associative_recall": "62d5963e75c12c10",
    "induction": "9169153e4d7ba987",
    "copying": "bf4c4940bae9e24c",
    "selective_copying": "4ceacf9b6e941ccb",
    "modular_addition": "814635944ad3e43c",
    "brackets": "cc96e1851c55cc97",
    "state_tracking": "dfb3c2de51a04296",
}  # what version 2 of the probes gives


@pytest.mark.parametrize("name", NAMES)
def test_what_a_probe_gives_is_known_by_a_version_that_its_fingerprint_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of what is drawn makes old results wrong: raise PROBE_VERSION with it, and put here what is drawn then."""
    data = probe(name).open()
    drawn = [each.tolist() for example in (data.training(200, 5)[3], data.validation(200)[1]) for each in example[:2]]
    assert (PROBE_VERSION, hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]) == (2, GIVEN[name])
    before = data.fingerprint
    monkeypatch.setattr("llamazoo.data.probes.probe.PROBE_VERSION", PROBE_VERSION + 1)
    assert data.fingerprint != before


def test_facts_of_a_probe_have_its_options_as_they_were_given() -> None:
    data = probe("associative_recall", n_pairs=4, vocab_size=16).open()
    facts = data.facts()
    assert (facts["vocab_size"], facts["token_ids"], data.vocab_size) == (16, 17, 17)
    for name, options in ALL:
        chosen = probe(name, **options)
        assert chosen.model_dump().items() <= chosen.open().facts().items(), "no fact takes the place of an option"
