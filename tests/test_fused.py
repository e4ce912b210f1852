"""Model types from before Llama: what of a config.json is refused, how real files spell names, and which type a spec becomes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import llamazoo
from llamazoo.errors import WeightsError
from llamazoo.spec.architecture import About
from llamazoo.spec.compose import parse_spec
from llamazoo.weights.formats.hf.format import expressing, spec_of

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    "falcon": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "bloom": {"vocab_size": 96, "n_embed": 32, "n_layer": 2, "num_attention_heads": 4},
    "mpt": {"vocab_size": 96, "d_model": 32, "n_layers": 2, "n_heads": 4},
}
NEW = {"new_decoder_architecture": True}
TOKENS = torch.arange(30).reshape(2, 15) * 3


def read(model_type: str, **changes: Any) -> llamazoo.ArchitectureSpec:
    data = spec_of({**CONFIGS[model_type], **changes, "model_type": model_type}, "config.json")
    return parse_spec(data, llamazoo.default_registry())


def folder_of(model_type: str, folder: Path, **changes: Any) -> llamazoo.Decoder:
    """A folder of that type, and the model that is in it."""
    model = llamazoo.build_model(read(model_type, **changes))
    llamazoo.save_model(model, folder, format="hf")
    return model


def respelled(folder: Path, *prefixes: str, more: dict[str, torch.Tensor]) -> None:
    """Rewrite a folder's tensors without the prefix that their names have, and with some that it did not have."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for prefix in prefixes:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    save_file({**tensors, **more}, file)


@pytest.mark.parametrize(
    ("model_type", "changes", "told"),
    [
        *((name, {"exotic": 1}, f"'exotic': not known for the model type {name}") for name in CONFIGS),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: True is not supported"),
        ("gpt2", {"activation_function": "exotic"}, "activation_function: 'exotic' is not supported"),
        ("gpt2", {"n_ctx": 63}, "n_positions and n_ctx: are the same field, and differ"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention: True is not supported"),
        ("gpt2", {"n_embd": "32"}, "n_embd: expected a whole number from 1, found '32'"),
        ("gpt_neox", {"use_parallel_residual": 1}, "use_parallel_residual: expected true or false, found 1"),
        ("gpt_neox", {"rope_scaling": {"type": "spiral"}}, "rope_scaling: rope_type: 'spiral' is not supported"),
        ("gpt_neox", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5 is not what transformers reads here"),
        ("falcon", {**NEW, "parallel_attn": False}, "parallel_attn: False is not supported where new_decoder_architecture is true"),
        ("falcon", {**NEW, "num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn: 3 is not supported; supported: 1, 2"),
        ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn: 2 is not supported; supported: 1$"),
        ("falcon", {"multi_query": False, "num_kv_heads": 2}, "num_kv_heads: 2 is not supported where multi_query is false; supported: 4"),
        ("falcon", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5 is not supported for this model type"),
        ("falcon", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm: True is not supported"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm: True is not supported"),
        ("bloom", {"slow_but_exact": True}, "slow_but_exact: True is not supported"),
        ("bloom", {"n_inner": 64}, "n_inner: 64 is not supported; supported: 128"),
        ("mpt", {"no_bias": False}, "no_bias: False is not supported"),
        ("mpt", {"logit_scale": 2.0}, "logit_scale: 2.0 is not supported"),
        ("mpt", {"expansion_ratio": 2}, "expansion_ratio: 2 is not supported; supported: 4"),
        ("mpt", {"norm_type": "rmsnorm"}, "norm_type: 'rmsnorm' is not supported"),
        ("mpt", {"attn_config": []}, "attn_config: expected an object"),
        ("mpt", {"attn_config": {"alibi": False}}, "attn_config: alibi: False is not supported"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config: qk_ln: True is not supported"),
        ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, "attn_config: attn_type: 'multiquery_attention' is not supported"),
        ("mpt", {"attn_config": {"exotic": 1}}, "attn_config: 'exotic': not known for the model type mpt"),
    ],
    ids=str,
)
def test_what_a_config_asks_for_and_cannot_be_had_is_refused_by_name(model_type: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(WeightsError, match=f"config.json: .*{told}"):
        read(model_type, **changes)


def test_more_heads_than_features_are_refused_by_the_spec() -> None:
    with pytest.raises(llamazoo.SpecError, match="head_dim"):
        read("falcon", num_attention_heads=64, alibi=True)


@pytest.mark.parametrize(
    ("model_type", "prefix", "strays"),
    [
        ("gpt2", "transformer.", {"h.0.attn.bias": "the order of tokens", "transformer.h.1.attn.masked_bias": "the order of tokens"}),
        (
            "gpt_neox",
            "gpt_neox.",
            {"layers.0.attention.bias": "the order of tokens", "gpt_neox.layers.1.attention.rotary_emb.inv_freq": "theta"},
        ),
        ("falcon", "transformer.", {"transformer.h.0.self_attention.rotary_emb.inv_freq": "theta"}),
        ("bloom", "transformer.", {}),
        ("mpt", "transformer.", {}),
    ],
)
def test_names_are_read_with_and_without_the_prefix_and_strays_dropped(
    model_type: str, prefix: str, strays: dict[str, str], tmp_path: Path
) -> None:
    model = folder_of(model_type, tmp_path / "model")
    respelled(tmp_path / "model", prefix, more={name: torch.ones(1, 1, 2, 2) for name in strays})
    again = llamazoo.load_model(tmp_path / "model")
    assert torch.equal(again(TOKENS), model(TOKENS))
    assert again.load_report is not None
    assert again.load_report.dropped == {name: f"computed from {source}" for name, source in strays.items()}


def test_a_head_is_read_by_either_of_its_names_and_a_tied_one_may_be_in_the_file(tmp_path: Path) -> None:
    neox = folder_of("gpt_neox", tmp_path / "neox")
    tensors = load_file(tmp_path / "neox" / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    save_file(tensors, tmp_path / "neox" / "model.safetensors")
    assert torch.equal(llamazoo.load_model(tmp_path / "neox")(TOKENS), neox(TOKENS))

    falcon = folder_of("falcon", tmp_path / "falcon")
    respelled(tmp_path / "falcon", more={"lm_head.weight": falcon.embedding.weight.detach().clone()})
    assert torch.equal(llamazoo.load_model(tmp_path / "falcon")(TOKENS), falcon(TOKENS))
    respelled(tmp_path / "falcon", more={"lm_head.weight": torch.zeros(96, 32)})
    with pytest.raises(WeightsError, match=r"head.weight and embedding.weight are tied in this model, but differ"):
        llamazoo.load_model(tmp_path / "falcon")


def test_a_tensor_that_is_there_in_both_spellings_is_refused(tmp_path: Path) -> None:
    folder_of("gpt2", tmp_path / "model")
    respelled(tmp_path / "model", more={"wte.weight": torch.ones(96, 32)})
    with pytest.raises(WeightsError, match=r"twice: embedding.weight is made from transformer.wte.weight and from wte.weight"):
        llamazoo.load_model(tmp_path / "model")


@pytest.mark.parametrize("shape", [(), (32,), (96, 32), (32, 96, 1)], ids=str)
def test_a_fused_tensor_of_another_shape_is_refused_before_anything_is_read(shape: tuple[int, ...], tmp_path: Path) -> None:
    for model_type, name in (
        ("gpt2", "transformer.h.0.attn.c_attn.weight"),
        ("gpt_neox", "gpt_neox.layers.0.attention.query_key_value.bias"),
    ):
        folder_of(model_type, tmp_path / model_type)
        respelled(tmp_path / model_type, more={name: torch.ones(shape)})
        with pytest.raises(WeightsError, match=f"nothing was loaded:\n.*shape: {name}"):
            llamazoo.load_model(tmp_path / model_type)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in CONFIGS),
    ("gpt2", {"scale_attn_weights": False, "n_inner": 40, "reorder_and_upcast_attn": True, "summary_type": "first"}),
    ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
    ("falcon", {**NEW, "num_kv_heads": 2, "ffn_hidden_size": 40}),
    ("falcon", {**NEW, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("falcon", {"parallel_attn": False, "multi_query": False, "bias": True, "alibi": True}),
    ("mpt", {"attn_config": {"clip_qkv": 6, "alibi_bias_max": 16, "attn_impl": "triton"}}),
]


@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=str)
def test_a_spec_that_names_no_model_type_becomes_the_one_that_can_say_it(model_type: str, changes: dict[str, Any]) -> None:
    spec = read(model_type, **changes)
    unnamed = spec.model_copy(update={"about": About()})
    family, fields = expressing(unnamed, None)
    assert family.model_type == model_type
    assert parse_spec(spec_of(fields, "config.json"), llamazoo.default_registry()) == spec


ODD: list[dict[str, Any]] = [
    *({"position": position} for position in ("learned", "alibi", "t5", "sinusoidal", "none")),
    *({"block": block} for block in ("postnorm", "sandwich", "reordered", "parallel")),
    {"norm": "none", "feed_forward": {"type": "experts", "n_experts": 2, "top_k": 1}},
    {"attention": "latent", "position": {"type": "rope", "layout": "interleaved"}},
    {"positions": {"near": "alibi", "far": "none"}, "layers": [{"every": 2, "position": "near"}], "position": "far"},
]


@pytest.mark.parametrize("changes", ODD, ids=str)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_what_a_model_type_cannot_say_is_refused_and_not_lost(model_type: str, changes: dict[str, Any]) -> None:
    spec = llamazoo.load_spec("llama-tiny", overrides={"n_layers": 2, **changes})
    with pytest.raises(WeightsError, match="cannot express this architecture"):
        expressing(spec, model_type)
