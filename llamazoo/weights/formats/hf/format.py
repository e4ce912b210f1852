"""Hugging Face folders: config.json beside safetensors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llamazoo.contract.options import ComponentOptions
from llamazoo.decoder import Decoder
from llamazoo.errors import SpecError, WeightsError
from llamazoo.registry import Registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import parse_spec
from llamazoo.spec.differences import differences
from llamazoo.weights.checkpoint import Checkpoint, Format
from llamazoo.weights.files import plain_file, read_json
from llamazoo.weights.formats.hf import bloom, deepseek, falcon, gemma, gpt2, gpt_neox, llama, mixture, mpt
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.formats.hf.family import Family
from llamazoo.weights.rotary import Layout
from llamazoo.weights.rule import Rule
from llamazoo.weights.save import outgoing
from llamazoo.weights.store import INDEX, SINGLE, SafetensorsStore, Store, write_sharded

__all__ = ["FAMILIES", "HuggingFace", "config_of", "lost", "spec_of"]

CONFIG, GENERATION = "config.json", "generation_config.json"
PLAIN = "supported are plain float32, bfloat16 and float16 tensors"
QUANTIZED = {  # how tensors of quantised files end
    "GPTQ or AWQ": ("qweight", "qzeros", "g_idx"),
    "MXFP4": ("_blocks", "_scales"),
    "FP8": ("weight_scale_inv", "weight_scale", "input_scale"),
    "bitsandbytes": ("absmax", "quant_map", "SCB", "weight_format"),
}
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        *(llama.Llama(), llama.Mistral(), llama.Qwen2(), llama.Qwen3(), llama.SmolLM3(), llama.OLMo2(), llama.Phi3()),
        *(gemma.Gemma(), gemma.Gemma2(), gemma.Gemma3()),
        *(gpt2.GPT2(), gpt_neox.GPTNeoX(), falcon.Falcon(), bloom.Bloom(), mpt.MPT()),
        *(mixture.Mixtral(), mixture.Qwen3Moe(), mixture.GptOss()),
        *(deepseek.DeepSeekV2(), deepseek.DeepSeekV3()),
    )
}


class HuggingFace(Format):
    """config.json with model.safetensors or its shards."""

    class Options(ComponentOptions):
        model_type: str | None = None
        """As which of the model types it is written; that of the spec, or the first that can express it, unless given."""

    name = "hf"
    looks_for = "a folder with config.json and model.safetensors"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and (path / "config.json").exists() and not (path / "llamazoo.yaml").exists()

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Checkpoint:
        where = plain_file(path, CONFIG)
        data = spec_of(read_json(where), str(where))
        if (path / GENERATION).exists():  # where both say what ends a text, transformers asks this one
            ends = read_json(plain_file(path, GENERATION)).get("eos_token_id")
            data["eos_ids"] = data["eos_ids"] if ends is None else ends if isinstance(ends, list) else [ends]
        try:
            spec = parse_spec(data, registry, source=str(where))
        except SpecError as error:
            raise WeightsError(f"{error} (from {where.name})") from error
        if not (path / SINGLE).exists() and not (path / INDEX).exists() and any(path.glob("pytorch_model*.bin")):
            raise WeightsError(f"{path}: has its weights in pytorch_model.bin; convert them to safetensors first")
        store = SafetensorsStore.in_folder(path)
        refuse_quantized(store, str(path))
        return Checkpoint(path, spec, store, cls)

    @classmethod
    def layout(cls, stored: ArchitectureSpec) -> Layout:
        return family_of(stored).layout

    @classmethod
    def rules(cls, spec: ArchitectureSpec, stored: ArchitectureSpec) -> Sequence[Rule]:
        return family_of(stored).rules(stored)

    @classmethod
    def write(cls, model: Decoder, folder: Path, options: "HuggingFace.Options") -> None:
        spec = model.spec
        family, config = expressing(spec, options.model_type)
        config["dtype"] = str(model.dtype).removeprefix("torch.")
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        stored = spec.model_copy(update={"about": spec.about.model_copy(update={"model_type": family.model_type})})
        write_sharded(folder, outgoing(model, cls, stored))


def spec_of(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """A spec's data for a config.json; a field that is unknown or unsupported is an error that names it."""
    config = Config(fields, where)
    model_type = config.take("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise config.wrong("model_type", f"{ascii(model_type)[:60]} is not supported; supported: {', '.join(FAMILIES)}")
    quantized = config.take("quantization_config", default=None)
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise config.wrong("quantization_config", f"the weights are quantised ({ascii(method)[:60]}), which is not supported; {PLAIN}")
    config.only("is_encoder_decoder", False)
    config.only("add_cross_attention", False)
    eos = config.take("eos_token_id", default=None)
    dtype = config.take("dtype", "torch_dtype", default=None)
    data = {
        "about": {"model_type": model_type},
        "dtype": dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype,
        "bos_id": config.take("bos_token_id", default=None),
        "eos_ids": [] if eos is None else eos if isinstance(eos, list) else [eos],
        **FAMILIES[model_type].spec(config),
    }
    config.done(f"the model type {model_type}")
    return {name: value for name, value in data.items() if value is not None}


def refuse_quantized(store: Store, where: str) -> None:
    """Raise WeightsError if the names or dtypes of tensors are those of a quantised file, whatever its config says."""
    for name in store.names():
        ending = name.rpartition(".")[2]
        method = next((method for method, endings in QUANTIZED.items() if ending.endswith(endings)), None)
        if method is None and store.dtype(name) in (torch.float8_e4m3fn, torch.float8_e5m2):
            method = "FP8"
        if method is not None:
            raise WeightsError(f"{where}: {name}: the weights are quantised ({method}), which is not supported; {PLAIN}")


def family_of(spec: ArchitectureSpec) -> Family:
    """The family whose tensors stand for a spec that was read from its config, or is about to be written as one."""
    family = FAMILIES.get(spec.about.model_type or "")
    if family is None:
        raise WeightsError(f"the spec says nothing of its Hugging Face model type (about.model_type is {spec.about.model_type!r})")
    return family


def config_of(spec: ArchitectureSpec, family: Family) -> dict[str, Any]:
    """The config.json nearest to a spec within a family; whether it says all that the spec says is for `lost` to find."""
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **family.config(spec),
        "pad_token_id": None,  # said, since a family's default may lie outside a small vocabulary
        "bos_token_id": spec.bos_id,
        "eos_token_id": spec.eos_ids[0] if len(spec.eos_ids) == 1 else spec.eos_ids or None,
    }


def lost(spec: ArchitectureSpec, config: dict[str, Any]) -> list[str]:
    """What a config would not say of a spec, in words, one line each. SpecError or WeightsError where it would say nothing sensible."""
    read = parse_spec(spec_of(config, CONFIG), spec.registry)
    found = differences(spec, read)
    # Where the position is computed, a longer context than the spec's is no loss.
    longer = read.max_seq_len >= spec.max_seq_len and all(place.type in ("rope", "none", "alibi") for place in spec.places().values())
    return [str(each) for each in found if not (longer and each.path == "max_seq_len")]


def expressing(spec: ArchitectureSpec, model_type: str | None) -> tuple[Family, dict[str, Any]]:
    """The family that can say all that a spec says, and what it writes: the one asked for, else the spec's own, else the first.

    Raises WeightsError naming what the nearest of them would lose.
    """
    asked = model_type or spec.about.model_type
    if model_type is not None and model_type not in FAMILIES:
        raise WeightsError(f"the option model_type: {model_type!a} is not supported; supported: {', '.join(FAMILIES)}")
    names = [model_type] if model_type else list(dict.fromkeys([*([asked] if asked in FAMILIES else []), *FAMILIES]))
    nearest: tuple[str, list[str]] | None = None
    for name in names:
        try:
            told = lost(spec, config := config_of(spec, FAMILIES[name]))
        except (SpecError, WeightsError) as error:
            told = [str(error)] * (1 + len(names))  # further off than any that can be read back
        if not told:
            return FAMILIES[name], config
        if nearest is None or len(told) < len(nearest[1]):
            nearest = name, told
    assert nearest is not None
    lines = "\n".join(f"  {line}" for line in dict.fromkeys(nearest[1]))
    raise WeightsError(f"a Hugging Face folder (the nearest is {nearest[0]}) cannot express this architecture:\n{lines}")
