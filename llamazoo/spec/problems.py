"""Turns pydantic's errors into sentences with a path, the value found, and the nearest known name."""

import re

from pydantic import BaseModel, ValidationError

from llamazoo.errors import DuplicateComponentError, Problem, SpecError, UnknownComponentError
from llamazoo.shelf import nearest

__all__ = ["explain"]


def explain(error: ValidationError, model: type[BaseModel]) -> SpecError:
    """One SpecError for all that pydantic found; of the narrower class if that is all there is."""
    problems: list[Problem] = []
    sorts: set[type[SpecError]] = set()
    found = error.errors(include_url=False)
    for item in found:
        if item["type"].endswith("_type") and any(_within(other["loc"], item["loc"], model) for other in found):
            continue  # a member of a union that takes no such value, where another one does and is told of what is wrong within
        path = _fields(item["loc"], model)
        cause = item.get("ctx", {}).get("error")
        sorts.add(next((sort for sort in (UnknownComponentError, DuplicateComponentError) if isinstance(cause, sort)), SpecError))
        if isinstance(cause, SpecError):
            problems += [problem.under(*path) for problem in cause.problems]
        elif item["type"] == "extra_forbidden":
            known = sorted(model.model_fields)
            hint = nearest(str(path[-1]), known) if len(path) == 1 else ""
            allowed = f"known here: {', '.join(known) or 'no options'}" if len(path) == 1 else ""
            problems.append(Problem(path, f"no such field; {hint}{allowed}" if allowed else "no such field"))
        elif item["type"] == "missing":
            problems.append(Problem(path, "is required"))
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            problems.append(Problem(path, f"{message.removeprefix('value error, ')}, found {shown(item['input'])}"))
    merged: dict[tuple[str | int, ...], Problem] = {}
    for problem in problems:  # the members of a union each have their say about one value
        first = merged.get(problem.path)
        merged[problem.path] = problem if first is None else Problem(problem.path, f"{first.message}; or {problem.message}")
    return (sorts.pop() if len(sorts) == 1 else SpecError)(*merged.values())


def _within(path: tuple[str | int, ...], other: tuple[str | int, ...], model: type[BaseModel]) -> bool:
    inner, outer = _fields(path, model), _fields(other, model)
    return len(inner) > len(outer) and inner[: len(outer)] == outer


# What pydantic adds to a path to say which member of a union it tried; no field of ours.
TAG = re.compile(r"int|float|str|bool|list|dict|.*[-\[(].*")


def _fields(path: tuple[str | int, ...], model: type[BaseModel]) -> tuple[str | int, ...]:
    field = model.model_fields.get(str(path[0])) if path else None
    tagged = field is not None and field.discriminator is not None  # then the second word is the member's own name
    return path[:1] + tuple(p for p in path[2 if tagged else 1 :] if isinstance(p, int) or not TAG.fullmatch(p))


def shown(value: object) -> str:
    """A value from a file, short enough for an error message."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "an integer of more than 30 digits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else text[:77] + "..."
