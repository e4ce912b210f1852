"""Published mixtures of experts: what is refused by name, what is dropped with a reason, and how their files are read."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import llamazoo
from llamazoo import Stack
from llamazoo.errors import WeightsError
from llamazoo.spec.compose import parse_spec
from llamazoo.weights.formats.hf.format import FAMILIES, config_of, expressing, lost, spec_of
from llamazoo.weights.rule import plan
from llamazoo.weights.store import Outgoing, SafetensorsStore, write_safetensors

TYPES = {
    "mixtral": "mixtral-8x7b",
    "qwen3_moe": "qwen3-30b-a3b",
    "gpt_oss": "gpt-oss-20b",
    "deepseek_v2": "deepseek-v2-lite",
    "deepseek_v3": "deepseek-v3",
}


def fields_of(model_type: str, **changes: Any) -> dict[str, Any]:
    return {**config_of(llamazoo.load_spec(TYPES[model_type]), FAMILIES[model_type]), **changes}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *((name, {"unheard_of": 1}, f"'unheard_of': not known for the model type {name}") for name in TYPES),
    *((name, {"attention_sink_tokens": 4}, "'attention_sink_tokens': not known") for name in TYPES),
    ("mixtral", {"hidden_act": "exotic"}, "hidden_act: 'exotic' is not supported"),
    ("mixtral", {"num_local_experts": 0}, "num_local_experts: expected a whole number from 1, found 0"),
    ("mixtral", {"num_local_experts": 2**17}, "num_local_experts: 131072 experts are too many; at most 65536"),
    ("mixtral", {"attention_bias": True}, "attention_bias: True is not supported"),
    ("qwen3_moe", {"mlp_only_layers": [48]}, r"mlp_only_layers: expected layers from 0 to 47, found \[48\]"),
    ("qwen3_moe", {"mlp_only_layers": [True]}, r"mlp_only_layers: expected layers from 0 to 47, found \[True\]"),
    ("qwen3_moe", {"shared_expert_intermediate_size": 64}, "'shared_expert_intermediate_size': not known"),
    (
        "qwen3_moe",
        {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 28},
        "max_window_layers: 28 is not supported with use_sliding_window",
    ),
    ("gpt_oss", {"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported"),
    ("gpt_oss", {"initial_context_length": 2048}, "initial_context_length: is 2048, and original_max_position_embeddings 4096"),
    ("gpt_oss", {"experts_per_token": 2}, "num_experts_per_tok and experts_per_token: are the same field, and differ"),
    ("gpt_oss", {"quantization_config": {"quant_method": "mxfp4"}}, r"quantization_config: the weights are quantised \('mxfp4'\)"),
    ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob: True is not supported"),
    ("deepseek_v2", {"scoring_func": "sigmoid"}, "scoring_func: 'sigmoid' is not supported; supported: 'softmax'"),
    ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method: 'noaux_tc' is not supported; supported: greedy, group_limited_greedy"),
    ("deepseek_v2", {"topk_method": "group_limited_greedy", "n_group": None}, "n_group and topk_group: are required"),
    ("deepseek_v2", {"moe_layer_freq": 2}, "moe_layer_freq: 2 is not supported; supported: 1"),
    ("deepseek_v2", {"num_key_value_heads": 4}, "num_key_value_heads: 4 is not supported: latents are of all heads"),
    ("deepseek_v2", {"head_dim": 128}, "head_dim: 128 is not supported: a head's width here is that of its rotated part"),
    ("deepseek_v2", {"qk_head_dim": 128}, "qk_head_dim: 128 is not qk_nope_head_dim and qk_rope_head_dim together, 192"),
    ("deepseek_v3", {"rope_interleave": False}, "rope_interleave: False is not supported"),
    ("deepseek_v3", {"topk_method": "greedy"}, "topk_method: 'greedy' is not supported"),
    ("deepseek_v3", {"num_nextn_predict_layers": 2}, "num_nextn_predict_layers: 2 is not supported"),
    ("deepseek_v3", {"quantization_config": {"quant_method": "fp8"}}, r"quantization_config: the weights are quantised \('fp8'\)"),
    ("deepseek_v3", {"first_k_dense_replace": -1}, "first_k_dense_replace: expected a whole number from 0, found -1"),
]


@pytest.mark.parametrize(("model_type", "changes", "told"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_field_that_is_not_understood_is_refused_by_name(model_type: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(WeightsError, match=told):
        spec_of(fields_of(model_type, **changes), "config.json")


@pytest.mark.parametrize("model_type", TYPES)
def test_fields_that_act_in_training_only_change_nothing(model_type: str) -> None:
    silent = {
        "mixtral": {"router_aux_loss_coef": 0.02, "output_router_logits": True, "router_jitter_noise": 0.1},
        "qwen3_moe": {"router_aux_loss_coef": 0.02, "output_router_logits": True, "max_window_layers": 48},
        "gpt_oss": {"router_aux_loss_coef": 0.9, "output_router_logits": True, "experts_per_token": 4, "initial_context_length": 4096},
        "deepseek_v2": {"aux_loss_alpha": 0.001, "seq_aux": True, "ep_size": 1, "moe_layer_freq": 1, "scoring_func": "softmax"},
        "deepseek_v3": {"aux_loss_alpha": 0.001, "seq_aux": True, "ep_size": 1, "moe_layer_freq": 1, "num_nextn_predict_layers": 1},
    }[model_type]
    assert spec_of(fields_of(model_type, **silent), "config.json") == spec_of(fields_of(model_type), "config.json")


LOST: list[tuple[str, dict[str, Any], str]] = [
    ("mixtral", {"feed_forward.router.normalize": False}, "feed_forward.router.normalize: False would become True"),
    ("mixtral", {"feed_forward.up_offset": 1}, "feed_forward.up_offset: 1.0 would become 0.0"),
    ("qwen3_moe", {"feed_forward.bias": True}, "feed_forward.bias: True would become False"),
    ("gpt_oss", {"attention.sinks": False}, "attention.sinks: False would become True"),
    ("gpt_oss", {"feed_forward.limit": None}, "feed_forward.limit: None would become 7.0"),
    ("deepseek_v2", {"attention.scale": 0.5}, "attention.scale: 0.5 would become 0.1147"),
    ("deepseek_v3", {"feed_forward.router.correction": False}, "feed_forward.router.correction: False would become True"),
]


@pytest.mark.parametrize(("model_type", "changes", "told"), LOST, ids=lambda value: str(value)[:60])
def test_what_a_config_cannot_say_is_refused_at_export(model_type: str, changes: dict[str, Any], told: str) -> None:
    spec = llamazoo.load_spec(TYPES[model_type], changes)
    with pytest.raises(WeightsError, match=told):
        expressing(spec, model_type)


@pytest.mark.parametrize("model_type", TYPES)
def test_a_loss_of_training_is_no_part_of_what_is_exported(model_type: str) -> None:
    spec = llamazoo.load_spec(TYPES[model_type], {"feed_forward.balance": 0.01})
    assert lost(spec, config_of(spec, FAMILIES[model_type])) == []


TINY = {
    "dim": 16,
    "hidden_dim": 8,
    "n_layers": 2,
    "n_heads": 2,
    "vocab_size": 32,
    "bos_id": None,
    "eos_ids": [],
    "max_seq_len": 64,
    "position.scaling": None,
    "attention": {"q_rank": 6, "kv_rank": 8, "nope_dim": 4, "v_dim": 4, "scale": None},
    "head_dim": 4,
    "feed_forward": {"n_experts": 4, "top_k": 2, "hidden_dim": 8, "router": {"n_groups": 2, "top_groups": 1}, "shared": {"hidden_dim": 8}},
    "layers": [{"at": 0, "feed_forward": "swiglu"}],
}


def tiny(folder: Path) -> tuple[llamazoo.Decoder, SafetensorsStore]:
    """A small deepseek_v3 as a Hugging Face folder."""
    model = llamazoo.build_model("deepseek-v3", overrides=TINY)
    llamazoo.save_model(model, folder, format="hf")
    return model, SafetensorsStore.in_folder(folder)


def rewritten(folder: Path, store: SafetensorsStore, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: store.read(name) for name in store.names()}
    change(tensors)
    outgoing = [Outgoing(name, t.dtype, tuple(t.shape), lambda t=t: t) for name, t in tensors.items()]
    write_safetensors(folder / "model.safetensors", outgoing)


def test_the_layer_for_multi_token_prediction_is_dropped_with_its_reason(tmp_path: Path) -> None:
    model, store = tiny(tmp_path / "model")
    stray = ["model.layers.2.eh_proj.weight", "model.layers.2.mlp.experts.0.gate_proj.weight", "model.layers.2.shared_head.norm.weight"]
    rewritten(tmp_path / "model", store, lambda tensors: tensors.update({name: torch.ones(2, 2) for name in stray}))
    loaded = llamazoo.load_model(tmp_path / "model")
    assert loaded.load_report is not None
    assert loaded.load_report.dropped == dict.fromkeys(stray, "multi-token prediction, which is not computed")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_a_missing_expert_and_one_of_another_shape_are_named(tmp_path: Path) -> None:
    _, store = tiny(tmp_path / "model")

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
        tensors["model.layers.1.mlp.experts.2.gate_proj.weight"] = torch.ones(3, 16)
        tensors["model.layers.1.mlp.experts.4.down_proj.weight"] = torch.ones(16, 8)

    rewritten(tmp_path / "model", store, damage)
    with pytest.raises(WeightsError, match="nothing was loaded") as caught:
        llamazoo.load_model(tmp_path / "model")
    for told in (
        "missing: model.layers.1.mlp.experts.3.up_proj.weight",
        "shape: model.layers.1.mlp.experts.0.gate_proj.weight",
        "unexpected: 'model.layers.1.mlp.experts.4.down_proj.weight'",
    ):
        assert told in str(caught.value)


def test_experts_are_fetched_one_at_a_time_into_their_final_place() -> None:
    rule, fetched = Stack(tuple(f"a.{n}" for n in range(8)), "b"), []
    most = 0

    def fetch(name: str) -> torch.Tensor:
        nonlocal most
        tensor = torch.full((2, 3), float(name[2:]))
        fetched.append(weakref.ref(tensor))
        most = max(most, sum(each() is not None for each in fetched))
        return tensor

    (stacked,) = rule.gather(rule.theirs, fetch)
    assert torch.equal(stacked, torch.arange(8.0)[:, None, None].expand(8, 2, 3))
    assert most == 1, "of eight tensors, more than one was held beside the stack"


def test_a_plan_finds_experts_whose_first_is_missing() -> None:
    rules = [Stack(("l.*.e.0.w", "l.*.e.1.w", "l.*.e.2.w"), "b.*.w")]
    moves, left = plan(rules, ["l.0.e.1.w", "l.0.e.2.w", "l.1.e.0.w", "l.1.e.3.w"], "theirs")
    assert [move.ours for move in moves] == [("b.1.w",), ("b.0.w",)]
    assert left == ["l.1.e.3.w"]


@pytest.mark.parametrize("name", ["gpt-oss-20b", "deepseek-v3", "deepseek-v2-lite"])
def test_a_zoo_model_goes_through_a_config_and_back(name: str) -> None:
    spec = llamazoo.load_spec(name)
    family = FAMILIES[spec.about.model_type or ""]
    assert parse_spec(spec_of(config_of(spec, family), name)).layer(5) == spec.layer(5)
