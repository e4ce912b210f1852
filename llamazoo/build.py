"""From a spec to a model: modules on the meta device, then values or weights, on a device."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from llamazoo.contract.component import Component
from llamazoo.contract.draw import Draw
from llamazoo.contract.split import Share
from llamazoo.cost import check_budget, dtype_of
from llamazoo.decoder import Decoder
from llamazoo.device import Device, device_of
from llamazoo.errors import InputError, LlamazooError, SaveError, SpecError, WeightsError
from llamazoo.parallel.processes import Processes, agree
from llamazoo.parallel.tensor import divide
from llamazoo.registry import Registry, default_registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import SpecLike, load_spec
from llamazoo.weights.checkpoint import Checkpoint, open_checkpoint, options_of, write_checkpoint
from llamazoo.weights.load import compare, fill
from llamazoo.weights.save import save_folder

__all__ = ["build_model", "load_checkpoint", "load_model", "reset", "save_model"]


def build_model(
    spec: SpecLike,
    *,
    overrides: Mapping[str, Any] | None = None,
    weights: str | PathLike[str] | None = None,
    partial: bool = False,
    device: Device | None = None,
    dtype: torch.dtype | None = None,
    mesh: DeviceMesh | None = None,
    registry: Registry | None = None,
    budget: int | str | None = None,
) -> Decoder:
    """A model of this spec: a zoo name, a file, a map or an ArchitectureSpec, with `overrides` merged over it.

    Fresh values come from the spec's `init`; `weights`, a model's folder of any format, is loaded instead, all of it or
    nothing. With `partial`, an ablation of what lies there loads what the two have in common, a part that was exchanged
    keeps fresh values, and `model.load_report` lists both. `dtype` is the argument, else the spec's, else PyTorch's default;
    so is `device`. Weights larger than `budget` ("8GB"), or than the device's memory, raise ResourceLimitError before
    anything is allocated.

    With a one-dimensional `mesh`, called by all its processes, each holds its share of the model and computes its part
    of every call; UnsupportedError says what does not divide.
    """
    share = None if mesh is None else Processes(mesh)
    found = load_spec(spec, overrides, registry=registry)
    if weights is not None:
        checkpoint = open_checkpoint(Path(weights), registry or default_registry())
        return load_checkpoint(found, checkpoint, device, dtype, partial=partial, share=share, budget=budget)
    if partial:
        raise InputError("partial is about weights; say which")
    target, dtype = _device(device, share), dtype_of(found, dtype)
    model = _shapes(found, target, dtype, budget, share)
    if share is not None:
        divide(model, share)
    if target.type == "meta":
        return model
    model.to_empty(device=target)
    model.link()
    reset(model)
    return model


def load_model(
    folder: str | PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    device: Device | None = None,
    dtype: torch.dtype | None = None,
    mesh: DeviceMesh | None = None,
    partial: bool = False,
    registry: Registry | None = None,
    budget: int | str | None = None,
) -> Decoder:
    """The model in a folder of ours, of Hugging Face or of Meta, or at a path of a plugin's format; what lies there tells which.

    Every tensor must be there, fit and be used, or WeightsError lists all that do not and nothing is loaded. With
    `partial`, what is missing keeps fresh values, and `model.load_report` says what was and what was not loaded.
    `overrides` are merged over the model's own spec: `load_model(folder, overrides={"norm": "layernorm"}, partial=True)`.
    """
    share = None if mesh is None else Processes(mesh)
    if not isinstance(folder, str | PathLike):
        raise InputError(f"a folder is named by a text or a path, found {folder!r}")
    checkpoint = open_checkpoint(Path(folder), registry or default_registry())
    spec = checkpoint.spec if overrides is None else load_spec(checkpoint.spec, overrides, registry=registry)
    return load_checkpoint(spec, checkpoint, device, dtype, partial=partial, share=share, budget=budget)


def save_model(
    model: Decoder,
    folder: str | PathLike[str],
    *,
    format: str = "native",  # noqa: A002
    options: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
) -> None:
    """Write a model, and its tokenizer, into a new folder: `native` takes any spec; `hf` and `meta` what those can express.

    `options` are the format's own (the type of a GGUF file's numbers: `{"type": "q8_0"}`). The folder appears whole or not
    at all. Raises SaveError if something is in the way or an option is not known, WeightsError naming the part that the
    format cannot express.
    """
    if any(p.is_meta for p in model.parameters()):
        raise SaveError("a model on the meta device has no weights to save")
    target = model.spec.registry.format(format)
    chosen = options_of(target, options)

    def write() -> None:
        save_folder(Path(folder), lambda draft: write_checkpoint(target, model, draft, chosen, tokenizer))

    if model.division is None:
        write()
    else:
        model.division.save(dict(model.named_parameters(remove_duplicate=False)), write)


def load_checkpoint(
    spec: ArchitectureSpec,
    checkpoint: Checkpoint,
    device: Device | None = None,
    dtype: torch.dtype | None = None,
    *,
    partial: bool = False,
    share: Share | None = None,
    budget: int | str | None = None,
) -> Decoder:
    """What `load_model` does, from a checkpoint that is open already; its store may be one that watches what is read."""
    target, dtype = _device(device, share), dtype_of(spec, dtype)
    try:
        model = _shapes(spec, target, dtype, budget, share)
    except SpecError as error:
        raise WeightsError(f"{checkpoint.folder}: its configuration cannot be built: {error}") from error
    if target.type == "meta":
        return model
    reached, report = compare(model, checkpoint, partial=partial)
    if share is not None:
        divide(model, share)
    if share is not None:
        store = checkpoint.store
        agree(share, "what the checkpoint holds", repr(([(n, store.shape(n), store.dtype(n)) for n in sorted(store.names())], report)))
    fill(model, checkpoint, reached, report, target)
    compute(model, target)
    model.link()
    if report.missing:
        reset(model, only=set(report.missing))
    model.load_report = report
    return model.eval()


def _device(device: Device | None, share: Share | None) -> torch.device:
    return share.device if device is None and share is not None else device_of(device)


def _shapes(spec: ArchitectureSpec, device: torch.device, dtype: torch.dtype, budget: int | str | None, share: Share | None) -> Decoder:
    if share is not None:
        agree(share, "the spec, or the dtype", repr((spec.canonical(), dtype)))
    check_budget(spec, device, dtype, budget, processes=1 if share is None else share.size)
    with torch.device("meta"):
        model = Decoder(spec).to(dtype)
    model.link()
    for component in model.modules():
        if isinstance(component, Component):
            _check_buffers(component)
    return model


def _check_buffers(component: Component) -> None:
    """Buffers are computed, and what is not computed is a parameter: nothing else would survive loading, and a cast."""
    names = {name: module for module in component.owned_modules() for name in module._buffers}
    if names and type(component).compute is Component.compute:
        raise LlamazooError(f"{type(component).__name__} has the buffers {', '.join(names)} and no compute() that fills them")
    kept = [name for name, module in names.items() if name not in module._non_persistent_buffers_set]
    if kept:
        told = "persistent=False if compute() fills them, or nn.Parameter(..., requires_grad=False) if a checkpoint holds their values"
        raise LlamazooError(f"{type(component).__name__} has the persistent buffers {', '.join(kept)}; make them {told}")


def reset(model: Decoder, only: set[str] | None = None) -> None:
    """Give every parameter, or `only` some, its first value, and fill every buffer; a parameter that no component draws is an error."""
    held, whole, cuts = dict(model.named_parameters(remove_duplicate=False)), model, None
    if model.division is not None:  # components see themselves whole, since a width may depend on how wide a layer is
        cuts = model.division.cuts
        with torch.device("meta"):
            whole = Decoder(model.spec)
        whole.link()
    paths = {id(p): name for name, p in whole.named_parameters()}
    components = [m for m in whole.modules() if isinstance(m, Component)]
    draw = Draw(model.spec.init, model.spec.n_layers, paths, held, only, cuts)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        # Drawing is one thread's work per parameter and every parameter has its own generator, so the order does not matter.
        list(pool.map(lambda component: component.reset(draw), components))
    left = sorted(set(paths.values()) - draw.drawn)
    if left:
        owner = type(model.get_submodule(left[0].rpartition(".")[0])).__name__
        raise LlamazooError(f"no component gave a value to {', '.join(left)} (in {owner}); draw it in the component's reset()")
    for module in model.modules():
        if isinstance(module, Component):
            module.refill()


def compute(model: nn.Module, device: torch.device) -> None:
    """Move buffers that still have no data to `device`, and fill them."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device=device)
        if isinstance(module, Component):
            module.refill()
