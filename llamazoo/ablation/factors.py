"""Grids: every combination of some choices, or of choices between two a fraction that keeps main effects apart."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import prod
from typing import Any, Literal, NamedTuple

from llamazoo.errors import Problem, SpecError

__all__ = ["Combination", "Fraction", "choice_told", "combinations_of"]

Fraction = Literal[1, "1/2", "1/4"]
GENERATORS: dict[Fraction, int] = {1: 0, "1/2": 1, "1/4": 2}  # factors whose levels follow from the others'
FEWEST = {1: 3, 2: 5}  # factors, of which so many may follow from the others
MOST_CELLS = 256
LONGEST = 60  # letters of a name
RESERVED = "base"  # what the base is called in every experiment

Words = tuple[frozenset[int], ...]


class Combination(NamedTuple):
    """One combination of choices: a name that files may have, what it changes in the base, and its levels as words."""

    name: str
    overrides: dict[str, Any]
    levels: dict[str, str]


def combinations_of(factors: Mapping[str, Sequence[Any]], fraction: Fraction = 1) -> list[Combination]:
    """All combinations, the last factor changing fastest; or the fraction of them that has the first of all choices in it.

    A fraction is regular: the last factor, or two, take the level that the product of some others gives, which are chosen so that the
    shortest effect that is confused with none at all is as long as can be. Box & Hunter 1961, part I. Raises SpecError with paths.
    """
    problems = [Problem(("factors", path), message) for path, choices in factors.items() for message in _wrong(choices)]
    if problems:
        raise SpecError(*problems)
    rows = list(_rows([len(choices) for choices in factors.values()], fraction))
    found = []
    for row in rows:
        chosen = {path: choices[level] for (path, choices), level in zip(factors.items(), row, strict=True)}
        levels = {path: choice_told(choice) for path, choice in chosen.items()}
        found.append(Combination(_name(levels.values()), chosen, levels))
    return list(_apart(found))


def _apart(cells: Sequence[Combination]) -> Iterator[Combination]:
    """The cells under names that no file system, and no reader, takes for one another, or for the base's."""
    taken = {RESERVED}
    for number, cell in enumerate(cells):
        name = cell.name
        while name.lower() in taken:
            name, number = f"{cell.name[: LONGEST - 4]}.{number}", number + 1
        taken.add(name.lower())
        yield cell._replace(name=name)


def choice_told(choice: Any) -> str:
    """A choice in words: rope, 8, or what a map says; a part without options is its name."""
    if isinstance(choice, dict) and list(choice) == ["type"]:
        return choice_told(choice["type"])
    return choice if isinstance(choice, str) else json.dumps(choice, ensure_ascii=False)


def _wrong(choices: Sequence[Any]) -> Iterator[str]:
    if len(choices) < 2:
        yield f"a factor is a list of at least two choices, found {len(choices)}"
    told = [choice_told(choice) for choice in choices]
    twice = next((each for i, each in enumerate(told) if each in told[:i]), None)
    if twice is not None:
        yield f"the choice {twice[:80]} stands here twice"


def _rows(sizes: Sequence[int], fraction: Fraction) -> Iterator[tuple[int, ...]]:
    """The number of the choice of each factor, for each combination."""
    made = GENERATORS[fraction]
    if made and any(size != 2 for size in sizes):
        sentence = "only of factors with two choices each is there a fraction that keeps effects apart; use 1, or leave choices out"
        raise SpecError(Problem(("fraction",), f"{sentence} (found {' x '.join(map(str, sizes))})"))
    if made and len(sizes) < FEWEST[made]:
        told = f"1/{2**made} of {len(sizes)} factors cannot tell their effects apart; it takes at least {FEWEST[made]}, or use 1"
        raise SpecError(Problem(("fraction",), told))
    free = sizes[: len(sizes) - made]
    total = prod(free)
    if total > MOST_CELLS:
        raise SpecError(Problem(("factors",), f"{total} combinations are more than {MOST_CELLS}; use fewer choices, or a fraction"))
    generators = _generators(len(free), made)
    for row in product(*(range(size) for size in free)):
        yield row + tuple(sum(row[i] for i in word) % 2 for word in generators)


def _generators(free: int, made: int) -> Words:
    """From which of the free factors each of the others follows: of all ways the one that confuses least."""
    words = [frozenset(word) for length in range(2, free + 1) for word in combinations(range(free), length)]
    return max(combinations(words, made), key=lambda way: _confused(way, free))


def _confused(way: Words, free: int) -> list[tuple[int, int]]:
    """The lengths of the products that are constant, the shortest first, each with minus how often: the larger, the better."""
    constants = [frozenset[int]()]
    for i, word in enumerate(way):
        constants += [each ^ (word | {free + i}) for each in constants]
    lengths = sorted(len(each) for each in constants if each)
    return [(length, -lengths.count(length)) for length in dict.fromkeys(lengths)]


def _name(levels: Any) -> str:
    """The levels as a name that a file may have."""
    words = (re.sub(r"[^A-Za-z0-9.]+", "-", level).strip("-.") or "x" for level in levels)
    return "_".join(words)[:LONGEST]
