"""What configs of published models say besides: fields that change nothing are let pass, those that would are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published import Published, theirs
from safetensors.torch import load_file, save_file

import llamazoo
from llamazoo import WeightsError
from llamazoo.spec.compose import parse_spec
from llamazoo.weights.formats.hf.format import spec_of

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def read(model_type: str, **fields: Any) -> llamazoo.ArchitectureSpec:
    return parse_spec(spec_of({**SMALL, "model_type": model_type, **fields}, "config.json"))


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("llama", {"is_llama_config": True, "rope_interleaved": False}),  # SmolLM2
        ("llama", {"max_sequence_length": 128}),
        ("qwen2", {"use_mrope": False, "attention_bias": False}),  # Qwen2.5
        ("gemma2", {"sliding_window": 16, "sliding_window_size": 16}),
        ("phi3", {"attention_bias": False, "mlp_bias": False, "lm_head_bias": False, "full_attn_mod": 1, "interpolate_factor": 1}),
        ("smollm3", {"max_window_layers": 28}),
        ("gpt_neox", {"rope_theta": 10000, "num_key_value_heads": None}),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0, "mscale_all_dim": 0}}),
    ],
    ids=str,
)
def test_a_field_of_published_configs_that_changes_nothing_is_let_pass(model_type: str, fields: dict[str, Any]) -> None:
    assert read(model_type, **fields).dim == 32


@pytest.mark.parametrize(
    ("model_type", "fields", "told"),
    [
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: 50.0 is not supported"),
        ("gemma2", {"sliding_window_pattern": 3}, "'sliding_window_pattern': not known"),
        ("gemma3_text", {"_sliding_window_pattern": 2}, "'_sliding_window_pattern': not known"),
        ("gemma2", {"sliding_window_size": 8}, "sliding_window_size: 8 is not sliding_window; supported: 4096"),
        ("gemma2", {"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"}, "hidden_act: 'silu' is not supported"),
        ("gemma", {"hidden_act": ["gelu"]}, "hidden_act: .* is not supported"),
        ("gpt_neox", {"rope_theta": 100.0}, "rope_theta: 100.0 is not what transformers reads here"),
        ("qwen2", {"use_mrope": True}, "use_mrope: True is not supported"),
        ("phi3", {"attention_bias": True}, "attention_bias: True is not supported"),
        ("llama", {"rope_scaling": {"type": []}}, r"rope_scaling: rope_type: \[\] is not supported"),
        ("llama", {"original_max_position_embeddings": "rubbish"}, "original_max_position_embeddings: expected a whole number"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 10**400}}, "nothing is measured in"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_field_that_would_change_something_is_refused_by_name(model_type: str, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(WeightsError, match=told):
        read(model_type, **fields)


@pytest.mark.parametrize("kind", [{"type": "yarn"}, {"type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}], ids=str)
def test_the_original_context_counts_wherever_a_config_has_it(kind: dict[str, Any]) -> None:
    outside = read("llama", original_max_position_embeddings=16, rope_scaling={**kind, "factor": 4.0})
    within = read("llama", rope_scaling={**kind, "factor": 4.0, "original_max_position_embeddings": 16})
    assert outside == within
    assert outside.position.options.scaling.original == 16


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_a_window_from_the_first_layer_on_comes_back_from_an_export(model_type: str, tmp_path: Path) -> None:
    types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    spec = read(model_type, use_sliding_window=True, sliding_window=5, layer_types=types, head_dim=8)
    llamazoo.save_model(llamazoo.build_model(spec), tmp_path / "model", format="hf")
    assert llamazoo.differences(spec, llamazoo.load_model(tmp_path / "model").spec) == []
    assert read(model_type, use_sliding_window=True, sliding_window=5, max_window_layers=0).layer(0).attention.options.window == 5


def test_one_expert_of_another_sort_of_number_is_refused_by_name(tmp_path: Path) -> None:
    theirs(Published("mixtral", {**SMALL, **EXPERTS, "num_hidden_layers": 1, "model_type": "mixtral"})).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if "experts.2.w1" in name)
    save_file({**tensors, name: (tensors[name] * 40).to(torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"dtype: {name} is torch\.int8, and others of its kind are not"):
        llamazoo.load_model(tmp_path)


def test_a_tied_head_without_the_embedding_is_told_of_in_a_partial_load(tmp_path: Path) -> None:
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"head.tied": True}), tmp_path / "model", format="hf")
    file, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, file)
    assert json.loads(config.read_text())["tie_word_embeddings"] is True
    report = llamazoo.load_model(tmp_path / "model", partial=True).load_report
    assert report is not None
    assert (report.missing, report.unused) == (["embedding.weight"], ["lm_head.weight"])
