"""What a model costs, before it is built: parameters, operations and bytes, counted on the meta device, which holds no data."""

import re
from dataclasses import dataclass

import torch
from torch import nn

from llamazoo.contract.component import Component, Part
from llamazoo.decoder import Decoder
from llamazoo.device import device_memory
from llamazoo.errors import InputError, PluginError, ResourceLimitError
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["Description", "check_budget", "describe", "dtype_of", "parse_bytes", "readable"]

MODULES_PER_LAYER = 40_000  # bytes of Python objects in one built layer, whatever its widths; measured, rounded down


@dataclass(frozen=True)
class Description:
    """Exact counts for one spec. Bytes are for `dtype`; operations count a multiplication and an addition as two.

    Parameters are what gradients change. One that is built frozen (the correction of a router, which follows the load of its
    experts) has its place in the weights, and so in their bytes, but is counted among no parameters: that is how published
    sizes are counted.
    """

    parameters: int
    active_parameters: int  # those that take part in one token: of experts, only the chosen ones
    embedding_parameters: int
    weight_bytes: int
    cache_bytes: int  # of one row at max_seq_len
    cache_bytes_per_token: int  # what one more token adds, once windows are full
    flops_per_token: int  # forward, for a token that sees max_seq_len / 2 others
    layers: list[tuple[int, str, int]]  # per kind of layer: how many, what of, parameters of one
    dtype: torch.dtype
    beyond_parameters: int = 0  # that only texts longer than a given length would use; among the parameters


def dtype_of(spec: ArchitectureSpec, dtype: torch.dtype | None = None) -> torch.dtype:
    """The argument, else the spec's, else PyTorch's default. Raises InputError for what is no floating-point dtype."""
    found = dtype or (getattr(torch, spec.dtype) if spec.dtype else torch.get_default_dtype())
    if not isinstance(found, torch.dtype) or found not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise InputError(f"dtype is torch.float32, torch.bfloat16, torch.float16 or torch.float64, found {found!r}")
    return found


def describe(spec: ArchitectureSpec, dtype: torch.dtype | None = None, *, length: int | None = None) -> Description:
    """Count what a model of this spec would hold and do; allocates nothing, and builds one layer of each sort.

    With a `length`, in tokens, it is told too how many of the parameters texts of that length leave without a gradient, as the rows
    of a table of positions that they do not reach. Raises PluginError for a part that says so of more parameters than it has.
    """
    dtype = dtype_of(spec, dtype)
    counts = dict(spec.sorts())  # the first layer of each sort, and how many there are
    try:
        with torch.device("meta"):
            model = Decoder(spec, only=list(counts)).to(dtype)
    except (RuntimeError, OverflowError) as error:
        raise ResourceLimitError(
            f"a tensor of this model has more bytes than can be counted (2**63): {str(error).splitlines()[0]}"
        ) from None
    blocks = list(zip(counts.values(), model.blocks, strict=True))
    parameters, held = (
        count_in(model) - count_in(model.blocks) + sum(count * count_in(block) for count, block in blocks) for count_in in (_numel, _held)
    )
    idle = sum(count * _idle(block) for count, block in blocks)
    beyond = 0
    if length is not None:
        beyond = sum(_beyond(part, length) for name, part in model.named_children() if name != "blocks")
        beyond += sum(count * _beyond(block, length) for count, block in blocks)
    context = spec.max_seq_len // 2
    flops = sum(_flops(part, context) for name, part in model.named_children() if name != "blocks")
    flops += sum(count * _flops(block, context) for count, block in blocks)
    full, less = (_cache_bytes(model, list(counts.values()), spec.max_seq_len, less) for less in (0, 1))
    return Description(
        parameters=parameters,
        active_parameters=parameters - idle,
        embedding_parameters=_numel(model.embedding),
        weight_bytes=held * dtype.itemsize,
        cache_bytes=full,
        cache_bytes_per_token=full - less,
        flops_per_token=flops,
        layers=[(count, _story(spec, number), _numel(block)) for (number, count), (_, block) in zip(counts.items(), blocks, strict=True)],
        dtype=dtype,
        beyond_parameters=beyond,
    )


def _numel(module: nn.Module) -> int:
    """What can be trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _held(module: nn.Module) -> int:
    """That, and what is frozen."""
    return sum(p.numel() for p in module.parameters())


def _idle(module: nn.Module) -> int:
    return sum(m.idle_parameters() for m in module.modules() if isinstance(m, Component))


def _beyond(module: nn.Module, length: int) -> int:
    found = 0
    for part in module.modules():
        if isinstance(part, Component):
            told = part.beyond(length)
            own = sum(p.numel() for inside in part.owned_modules() for p in inside.parameters(recurse=False) if p.requires_grad)
            if not 0 <= told <= own:
                raise PluginError(f"the {part.kind} {part.name!r}: beyond({length}) is {told}, of {own} parameters; say how many of them")
            found += told
    return found


def _flops(module: nn.Module, context: int) -> int:
    return sum(m.flops(context) for m in module.modules() if isinstance(m, Component))


def _cache_bytes(model: Decoder, counts: list[int], capacity: int, less: int) -> int:
    if capacity - less < 1:
        return 0
    with torch.device("meta"):
        state = model.new_state(1, capacity - less)  # on the meta device, without bound
    return sum(count * layer.nbytes for count, layer in zip(counts, state.layers, strict=True) if layer is not None)


def _story(spec: ArchitectureSpec, number: int) -> str:
    """What a layer is made of, with the options in which it differs from the spec's own parts."""
    layer = spec.layer(number)
    place = spec.places()[layer.position].type
    named = f"{layer.position}: {place}" if spec.positions else place
    parts = (
        _told(layer.attention, spec.attention, f" ({named})"),
        _told(layer.feed_forward, spec.feed_forward),
        _told(layer.norm, spec.norm),
    )
    return f"{_told(layer.block, spec.block)}: {', '.join(parts)}"


def _told(part: Part, usual: Part, more: str = "") -> str:
    options = part.options.model_dump()
    other = usual.options.model_dump() if part.type == usual.type else options
    changed = ", ".join(f"{name}={value}" for name, value in options.items() if value != other[name])
    return f"{part.type}{more}{f' [{changed}]' if changed else ''}"


def check_budget(spec: ArchitectureSpec, device: torch.device, dtype: torch.dtype, budget: int | str | None, processes: int = 1) -> None:
    """Raise ResourceLimitError, before anything is allocated, if the weights exceed a stated budget or the device's memory.

    Both are for one of the `processes` among which the weights are divided, as nearly as they can be.
    """
    needed = describe(spec, dtype).weight_bytes // processes
    stated = parse_bytes(budget) if budget is not None else None
    limit, what = (stated, "the stated budget") if stated is not None else (device_memory(device), f"the memory of {device}")
    if needed > limit:
        raise ResourceLimitError(
            f"the weights need {readable(needed)} ({needed} bytes) in {str(dtype).removeprefix('torch.')}; "
            f"{what} is {readable(limit)} ({limit} bytes); use a smaller spec or dtype, or device='meta' to look at it"
        )
    modules, here = spec.n_layers * MODULES_PER_LAYER, device_memory(torch.device("cpu"))
    if modules > here:
        raise ResourceLimitError(
            f"{spec.n_layers} layers (n_layers) need {readable(needed)} ({needed} bytes) of weights, and {readable(modules)} for their "
            f"modules alone; the memory here is {readable(here)} ({here} bytes)"
        )


UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: int | str) -> int:
    """8_000_000_000, "8GB" or "7.5 GiB", in bytes."""
    match = re.fullmatch(r"([0-9.]+) *([kmgt]?i?)b?", str(text).lower())
    if match is None or match[2] not in UNITS or match[1].count(".") > 1 or match[1] == ".":
        raise ResourceLimitError(f"a budget is a number of bytes such as 8GB or 7.5GiB, found {text!r}")
    return int(float(match[1]) * UNITS[match[2]])


def readable(count: int) -> str:
    """Bytes with a unit: 13.48 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.4g} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    raise AssertionError
