"""From a checkpoint into a model: everything is compared before the first value is read, and nothing is left over."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from llamazoo.contract.component import Component
from llamazoo.decoder import Decoder
from llamazoo.errors import WeightsError
from llamazoo.weights.checkpoint import Checkpoint
from llamazoo.weights.rule import Drop, Move, Rule, plan
from llamazoo.weights.store import Store

__all__ = ["LoadReport", "compare", "fill", "targets"]


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of the model were loaded, which were not, and which of the checkpoint were not used, and why."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)  # name -> reason

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors"]
        for what, names in (("not in the checkpoint, fresh", self.missing), ("in the checkpoint, not used", self.unused)):
            lines += [f"{what}: {name}" for name in names]
        lines += [f"dropped: {name} ({reason})" for name, reason in self.dropped.items()]
        return "\n".join(lines)


def targets(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors that a checkpoint of this model holds, each once; and the further names of those that are shared."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            shared[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    return tensors, shared


def compare(model: Decoder, checkpoint: Checkpoint, *, partial: bool = False) -> tuple[dict[str, Move], LoadReport]:
    """Which move makes each of the model's tensors, and what loading them would report; no value is read.

    One WeightsError lists all that is missing, unexpected, or of another shape or sort of number.
    """
    store = checkpoint.store
    wanted, shared = targets(model)
    rules, present = checkpoint.rules(model.spec), set(store.names())
    moves, unused = plan(rules, store.names(), "theirs")
    dropped = {name: move.rule.reason for move in moves if isinstance(move.rule, Drop) for name in move.theirs}
    moves = [move for move in moves if not isinstance(move.rule, Drop)]
    other = _otherwise(model, checkpoint)
    problems: list[str] = []
    reached: dict[str, Move] = {}
    for move in moves:
        absent = [name for name in move.theirs if name not in present]
        if absent:
            problems += [f"missing: {name} (it belongs with {move.theirs[0]})" for name in absent]
            continue
        known = [name for name in move.ours if name in wanted or name in shared]
        if all(name in other for name in known):
            unused += move.theirs
            continue
        problems += _misfits(move, store, wanted, shared)
        twice = [name for name in known if name in reached]
        problems += [f"twice: {name} is made from {reached[name].theirs[0]} and from {move.theirs[0]}" for name in twice]
        reached.update(dict.fromkeys(known, move))
    unused += [name for our, move in reached.items() if our in other for name in move.theirs]
    reached = {our: move for our, move in reached.items() if our not in other}
    missing = [name for name in wanted if name not in reached]
    lone = {name: reached.pop(name) for name in list(reached) if name in shared and shared[name] not in reached}
    unused += [name for move in lone.values() for name in move.theirs]  # a tied tensor, under the name that is not read
    if not partial:
        problems += [f"{other[name]}: {name}" if name in other else f"missing: {_their_name(rules, name)}" for name in missing]
        problems += [f"unexpected: {name!a}" for name in dict.fromkeys(unused)]
    if problems:
        raise WeightsError(f"{checkpoint.folder}: does not fit the model, nothing was loaded:\n" + "\n".join(f"  {p}" for p in problems))
    return reached, LoadReport([name for name in wanted if name in reached], missing, list(dict.fromkeys(unused)), dropped)


def _otherwise(model: Decoder, checkpoint: Checkpoint) -> dict[str, str]:
    """The model's tensors that belong to another component than those of the same name in the checkpoint, and what is what.

    A norm's gain would fit into another norm, and a projection into another attention, and mean something else there; unless
    a plugin has rules for the component, and so knows what becomes of it.
    """
    if model.spec == checkpoint.spec:
        return {}
    with torch.device("meta"):
        stored = Decoder(checkpoint.spec)
    ours, theirs, found = _owners(model), _owners(stored), {}
    moves, _ = plan(model.spec.registry.rules(checkpoint.format.name, model.spec), ours, "ours")
    known = {ours[name] for move in moves for name in move.ours if name in ours}
    for name, owner in ours.items():
        there = theirs.get(name)
        if there is not None and type(there) is not type(owner) and owner not in known:
            found[name] = f"of the {there.kind} {there.name!r} in the checkpoint, of the {owner.kind} {owner.name!r} in the model"
    return found


def _owners(model: Decoder) -> dict[str, Component]:
    """The innermost component that holds each tensor, by the tensor's name."""
    modules, found = dict(model.named_modules()), {}
    for name in model.state_dict():
        path = name.rpartition(".")[0]
        while not isinstance(modules[path], Component):
            path = path.rpartition(".")[0]
        found[name] = modules[path]
    return cast(dict[str, Component], found)


def fill(model: Decoder, checkpoint: Checkpoint, reached: dict[str, Move], report: LoadReport, device: torch.device) -> None:
    """Give a model of the meta device what `compare` found for it, on `device`, in the model's dtypes.

    The model may have been divided since: then each process keeps its part of what it reads.
    """
    store = checkpoint.store
    wanted, shared = targets(model)
    turns = checkpoint.turns(model.spec)
    loaded: dict[str, Tensor] = {}
    for move in dict.fromkeys(reached.values()):
        made = move.rule.gather(move.theirs, store.read)
        for name, value in zip(move.ours, made, strict=True):
            if name in shared:
                _check_shared(checkpoint, name, value, shared, store, reached)
            elif name in wanted:
                value = turns.read(name, value)
                own = value if model.division is None else model.division.own(name, value)
                loaded[name] = own.to(device, wanted[name].dtype).contiguous()
    for name in report.missing:
        loaded[name] = torch.empty_like(wanted[name], device=device)
    for name, value in loaded.items():
        _assign(model, name, value)


def _misfits(move: Move, store: Store, wanted: dict[str, Tensor], shared: dict[str, str]) -> list[str]:
    """What is wrong with the shapes and dtypes of one move, found on tensors without data."""
    label = ", ".join(move.theirs)
    try:
        made = move.rule.read(_blank([(store.shape(name), store.dtype(name)) for name in move.theirs]))
    except (RuntimeError, ValueError, IndexError) as error:  # the last for a dimension that a tensor has not
        return [f"shape: {label}: {str(error).splitlines()[0]}"]
    found = []
    sources = {name: store.dtype(name) for name in move.theirs if len(move.theirs) > 1 and not _is_real(store.dtype(name))}
    if sources and any(_is_real(value.dtype) for value in made):  # one of many, which would be taken for a number like the others
        return [f"dtype: {name} is {dtype}, and others of its kind are not" for name, dtype in sources.items()]
    for name, value in zip(move.ours, made, strict=True):
        target = wanted.get(shared.get(name, name))
        if target is None:
            found.append(f"unexpected: {label}: holds {name}, which the model has not")
        elif value.shape != target.shape:
            found.append(f"shape: {label} is {list(value.shape)}, the model's {name} is {list(target.shape)}")
        elif value.dtype != target.dtype and not (_is_real(value.dtype) and _is_real(target.dtype)):
            found.append(f"dtype: {label} is {value.dtype}, the model's {name} is {target.dtype}")
    return found


def _blank(wanted: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    """Tensors without data; one for all that are alike, since experts are many."""
    made = {(shape, dtype): torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in dict.fromkeys(wanted)}
    return [made[each] for each in wanted]


def _is_real(dtype: torch.dtype) -> bool:
    """Dtypes that convert into each other with no more than rounding; float8 needs scales, which a plain tensor has not."""
    return dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _their_name(rules: Sequence[Rule], name: str) -> str:
    moves, _ = plan(rules, [name], "ours")
    theirs = ", ".join(moves[0].theirs) if moves else name
    return theirs if theirs == name else f"{theirs} (the model's {name})"


def _check_shared(
    checkpoint: Checkpoint,
    name: str,
    value: Tensor,
    shared: dict[str, str],
    store: Store,
    reached: dict[str, Move],
) -> None:
    """A tensor that the model shares may be in the file twice, but then it must be the same."""
    original = shared[name]
    move = reached.get(original)
    if move is None:
        return
    first = move.rule.gather(move.theirs, store.read)[move.ours.index(original)]
    if not torch.equal(first, value):
        raise WeightsError(f"{checkpoint.folder}: {name} and {original} are tied in this model, but differ in the checkpoint")


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    held = owner._parameters.get(leaf)
    if held is not None:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=held.requires_grad)
    else:
        owner._buffers[leaf] = value
