"""What is compared: the base and its variants, each read, brought to the base's size, and built without data before anything trains."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from llamazoo.ablation.match import Measure, match
from llamazoo.ablation.results import Costs, FieldDifference, Matched
from llamazoo.contract.blame import failed_at
from llamazoo.cost import describe
from llamazoo.discovery import told
from llamazoo.errors import LlamazooError, Problem, SpecError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import load_spec
from llamazoo.spec.differences import Difference, differences
from llamazoo.spec.part import dump_part
from llamazoo.spec.patch import LAYER_PARTS

__all__ = ["BASE", "Candidate", "Change", "candidates", "costs", "told_differences"]

BASE = "base"
APART = ("version", "about", "plugins")  # of a spec, and not of the model


@dataclass(frozen=True)
class Candidate:
    """A model of the comparison, as it is going to be trained."""

    name: str
    spec: ArchitectureSpec
    matched: Matched
    costs: Costs
    differences: list[FieldDifference] = field(default_factory=list)
    levels: dict[str, str] = field(default_factory=dict)


class Change(NamedTuple):
    """A variant as it is written: where that stands in the experiment, its overrides, and its levels if it is a cell of a grid."""

    path: tuple[str, ...]
    overrides: Mapping[str, Any]
    levels: dict[str, str] = {}


def candidates(base: ArchitectureSpec, changes: Mapping[str, Change], what: Measure, seq_len: int) -> tuple[Candidate, ...]:
    """The base and all variants, matched to its size. Raises one SpecError that names each that is wrong.

    A cell of a grid that is the base itself takes its place; any other variant that is the base, or another variant, is refused.
    """
    problems: list[Problem] = []
    size, found = _attempt(partial(costs, base, seq_len))
    if size is None:
        raise SpecError(*(Problem((BASE,), message) for message in found))
    known: dict[str, str] = {_model(base): BASE}
    levels: dict[str, str] = {}
    made: list[Candidate] = []
    for name, change in changes.items():
        if not change.levels or _spelt(base, change) != _model(base):
            candidate, found = _attempt(partial(_candidate, name, change, base, what, seq_len))
            problems += [Problem(change.path, message) for message in found]
            if candidate is None:
                continue
            model = _model(candidate.spec)
            if model in known:
                problems.append(Problem(change.path, _same(known[model], candidate)))
            known.setdefault(model, name)
            made.append(candidate)
        elif levels:
            problems.append(Problem(change.path, "is the base itself, and so is another combination; leave one of the choices out"))
        else:
            levels = change.levels
    if problems:
        raise SpecError(*_once(problems))
    found_size = match(base, base, what, seq_len)[1]
    return Candidate(BASE, base, found_size, size, levels=levels), *made


def costs(spec: ArchitectureSpec, seq_len: int) -> Costs:
    """What a model of this spec costs when it is used at `seq_len` tokens; counted, not measured."""
    here = describe(spec if seq_len == spec.max_seq_len else load_spec(spec, {"max_seq_len": seq_len}, registry=spec.registry))
    whole = describe(spec)
    return Costs(
        parameters=whole.parameters,
        active_parameters=whole.active_parameters,
        flops_per_token=here.flops_per_token,
        cache_bytes=here.cache_bytes,
        cache_bytes_per_token=here.cache_bytes_per_token,
    )


def _candidate(name: str, change: Change, base: ArchitectureSpec, what: Measure, seq_len: int) -> Candidate:
    written = load_spec(base, change.overrides, registry=base.registry)
    if _model(written) == _model(base):
        raise SpecError(f"is the base itself; how much two runs of the base differ, `noise` finds, or a variant {'{init.seed: 1}'}")
    spec, matched = match(base, written, what, seq_len)
    return Candidate(name, spec, matched, costs(spec, seq_len), told_differences(base, spec), change.levels)


def _attempt(make: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What is made, or why it cannot be; a stranger's part may fail with anything."""
    try:
        return make(), []
    except SpecError as error:
        return None, [str(problem) for problem in error.problems]
    except LlamazooError as error:
        return None, [str(error)]
    except Exception as error:
        at = failed_at(error)
        return None, [f"cannot be built: {told(error)}{f' (at {at})' if at else ''}; `llamazoo plugin check` looks closer at a part"]


def _spelt(base: ArchitectureSpec, change: Change) -> str | None:
    """Which model a cell means before it is matched, or None if none."""
    spec, _ = _attempt(partial(load_spec, base, change.overrides, registry=base.registry))
    return None if spec is None else _model(spec)


def _same(other: str, candidate: Candidate) -> str:
    matched = candidate.matched
    if matched.field is None:
        return f"is the same model as {other!r}; two variants have to differ"
    return f"is the same model as {other!r} once its size is matched ({matched.field} {matched.value}); use `match: none`, or leave it out"


def _once(problems: list[Problem]) -> Iterator[Problem]:
    """Each problem of the cells of a grid once, with how often it comes."""
    places: dict[str, list[Problem]] = {}
    for problem in problems:
        places.setdefault(problem.message if problem.path[0] == "factors" else str(problem), []).append(problem)
    for first, *others in places.values():
        more = f" (and in {len(others)} more combination{'s' * (len(others) > 1)})" if others else ""
        yield Problem(first.path, first.message + more)


def _model(spec: ArchitectureSpec) -> str:
    """All that the trained model follows from, as one text."""
    return json.dumps({name: value for name, value in spec.canonical().items() if name not in APART}, sort_keys=True)


def told_differences(base: ArchitectureSpec, variant: ArchitectureSpec) -> list[FieldDifference]:
    """Everything in which a variant differs from the base, matched widths and first values too; another part with all its options."""
    found = differences(base, variant, training=True)
    listed = [FieldDifference(where=_where(each), base=_value(base, each, 1), variant=_value(variant, each, 2)) for each in found]
    if base.hidden_dim != variant.hidden_dim and not any(each.path.endswith("hidden_dim") for each in found):
        listed.append(FieldDifference(where="hidden_dim", base=_plain(base.hidden_dim), variant=_plain(variant.hidden_dim)))
    return listed


def _where(difference: Difference) -> str:
    return difference.where.removesuffix(".type")


def _value(spec: ArchitectureSpec, difference: Difference, side: int) -> str:
    """What a spec has there: a number, a word, or a part in full."""
    if not difference.path.endswith(".type"):
        return _plain(difference[side])
    layer = spec.layer(difference.layers[0] if difference.layers else 0)
    within: Any = {name: dump_part(getattr(layer, name)) for name in LAYER_PARTS}
    within["position"] = dump_part(spec.places()[layer.position])
    within.update(embedding=dump_part(spec.embedding), head=dump_part(spec.head), final_norm=dump_part(spec.final_norm or spec.norm))
    for name in difference.path.split(".")[:-1]:
        within = within.get(name) if isinstance(within, dict) else None
    return _plain(difference[side] if within is None else within)


def _plain(value: Any) -> str:
    """A value as a spec's reader would write it: `layernorm {eps: 1e-05, bias: true}`."""
    if isinstance(value, dict) and "type" in value:
        options = {name: inner for name, inner in value.items() if name != "type" and inner is not None}
        return f"{value['type']} {_plain(options)}" if options else str(value["type"])
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_plain(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
