"""Each model type that transformers publishes and we read: the same logits, the same text, and back again, bit for bit."""

from functools import partial
from pathlib import Path

import pytest
import torch
from published import Published, continued, greedy, logits_of, tensors_in, text, theirs

import llamazoo

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FULL, SLIDES = "full_attention", "sliding_attention"
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}


def small(model_type: str, name: str = "", length: int = 48, seed: int = 0, **changes: object) -> Published:
    return Published(name or model_type, {**SMALL, "model_type": model_type, **changes}, length, seed)


def bare(model_type: str, name: str = "", length: int = 48, kernel: str = "eager", **fields: object) -> Published:
    """Of a type whose fields have names of their own."""
    tokens = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return Published(name or model_type, {**tokens, "model_type": model_type, **fields}, length, kernel=kernel)


GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}
NEOX = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 256}
FALCON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 256}
SEQUENTIAL = {"parallel_attn": False, "multi_query": False, "bias": True}
BLOOM = {"hidden_size": 32, "n_layer": 3, "n_head": 4}
MPT = {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 96}

MSCALE = {**YARN, "mscale": 0.707, "mscale_all_dim": 0.8}
EXPERTS = {"num_experts_per_tok": 3, "moe_intermediate_size": 24}
QWEN3_MOE = {**EXPERTS, "num_experts": 6}
LATENT = {"q_lora_rank": 20, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10, "num_key_value_heads": 4}
DEEPSEEK = {**EXPERTS, **LATENT, "n_routed_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1}
GROUPED = {"n_group": 4, "topk_group": 2}

GPT_OSS = {"num_local_experts": 6, "num_experts_per_tok": 3, "sliding_window": 9, "head_dim": 12}
CASES = [
    small("llama"),
    small("llama", "llama-tied-biases", tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=12),
    small("llama", "llama-linear", rope_parameters=LINEAR),
    small("llama", "llama-dynamic", 96, max_position_embeddings=84, rope_parameters={**LINEAR, "rope_type": "dynamic"}),
    small("llama", "llama-3.1", rope_parameters={**LLAMA3, "original_max_position_embeddings": 32}),
    small("llama", "llama-yarn", rope_parameters=YARN),
    small("mistral", sliding_window=9),
    small("mistral", "mistral-full", sliding_window=None),
    small("qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=1),
    small("qwen2", "qwen2-full", use_sliding_window=False),
    small("qwen3", head_dim=12),
    small("smollm3", no_rope_layer_interval=2),
    small("smollm3", "smollm3-window", no_rope_layer_interval=2, use_sliding_window=True, sliding_window=9),
    small("olmo2"),
    small("olmo2", "olmo2-biases", attention_bias=True, rope_parameters=YARN),
    small("phi3", sliding_window=9),
    small(
        "phi3",
        "phi3-longrope",
        96,  # beyond the original length; the text that is generated stays within it, so that there is one horizon
        original_max_position_embeddings=84,
        rope_parameters={"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.5, 2.0, 3.0, 4.0]},
    ),
    small("gemma", head_dim=12),
    small("gemma2", head_dim=12, sliding_window=9, query_pre_attn_scalar=20, num_hidden_layers=4),
    small("gemma3_text", head_dim=12, sliding_window=9, query_pre_attn_scalar=20, num_hidden_layers=7),
    small(
        "gemma3_text",
        "gemma3-linear",
        head_dim=12,
        sliding_window=9,
        num_hidden_layers=2,
        layer_types=[FULL, FULL],
        rope_parameters={FULL: LINEAR, SLIDES: {"rope_type": "default", "rope_theta": 50.0}},
    ),
    bare("gpt2", **GPT2),
    bare("gpt2", "gpt2-untied", **GPT2, n_inner=40, activation_function="relu", tie_word_embeddings=False, layer_norm_epsilon=1e-3),
    bare("gpt2", "gpt2-unscaled", **GPT2, scale_attn_weights=False, activation_function="gelu"),
    bare("gpt_neox", **NEOX),
    bare("gpt_neox", "gpt_neox-prenorm", **NEOX, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast"),
    bare("gpt_neox", "gpt_neox-tied", **NEOX, tie_word_embeddings=True, layer_norm_eps=1e-3, rotary_pct=0.5, rotary_emb_base=500),
    bare("gpt_neox", "gpt_neox-whole-linear", **NEOX, rope_parameters={**LINEAR, "partial_rotary_factor": 1.0}),
    bare("gpt_neox", "gpt_neox-dynamic", 96, **{**NEOX, "max_position_embeddings": 84}, rope_parameters={**LINEAR, "rope_type": "dynamic"}),
    bare("falcon", **FALCON),
    bare("falcon", "falcon-two-norms", **FALCON, new_decoder_architecture=True, num_kv_heads=2, activation="relu", rope_theta=500.0),
    bare("falcon", "falcon-grouped-shared", **FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    bare("falcon", "falcon-new-single", **FALCON, new_decoder_architecture=True, num_kv_heads=1, tie_word_embeddings=False),
    bare("falcon", "falcon-all-heads", **FALCON, multi_query=False, ffn_hidden_size=40, layer_norm_epsilon=1e-3),
    bare("falcon", "falcon-sequential", **FALCON, **SEQUENTIAL, rope_parameters=LINEAR),
    bare("falcon", "falcon-sequential-single", **FALCON, parallel_attn=False),
    bare("falcon", "falcon-alibi", kernel="sdpa", **FALCON, **SEQUENTIAL, alibi=True),
    bare("bloom", **BLOOM),
    bare("bloom", "bloom-untied", **{**BLOOM, "n_head": 6, "hidden_size": 48}, tie_word_embeddings=False, layer_norm_epsilon=1e-3),
    bare("mpt", **MPT),
    bare("mpt", "mpt-clipped", **{**MPT, "n_heads": 6, "d_model": 48}, attn_config={"clip_qkv": 0.5, "softmax_scale": 0.2}),
    bare("mpt", "mpt-untied", **MPT, tie_word_embeddings=False, layer_norm_epsilon=1e-3),
    small("mixtral", num_local_experts=5),
    small("mixtral", "mixtral-window", sliding_window=9, num_experts_per_tok=3, head_dim=12, tie_word_embeddings=True),
    small("mixtral", "mixtral-yarn", rope_parameters=YARN, head_dim=8),
    small("qwen3_moe", **QWEN3_MOE, norm_topk_prob=True),
    small("qwen3_moe", "qwen3_moe-window", **QWEN3_MOE, use_sliding_window=True, sliding_window=9, attention_bias=True, head_dim=12),
    small("qwen3_moe", "qwen3_moe-dense-layers", **QWEN3_MOE, num_hidden_layers=5, decoder_sparse_step=2, mlp_only_layers=[3]),
    small("qwen3_moe", "qwen3_moe-yarn", **QWEN3_MOE, rope_parameters=YARN, mlp_only_layers=[0]),
    small("gpt_oss", **GPT_OSS, rope_parameters={**YARN, "truncate": False}),
    small("gpt_oss", "gpt_oss-no-biases", **GPT_OSS, attention_bias=False, tie_word_embeddings=True, layer_types=[FULL, FULL, SLIDES]),
    small("gpt_oss", "gpt_oss-gate", **GPT_OSS, rope_parameters=LINEAR, swiglu_alpha=1.1, swiglu_limit=0.4, layer_types=[FULL] * 3),
    small("deepseek_v2", **DEEPSEEK),
    small("deepseek_v2", "deepseek_v2-lite", **{**DEEPSEEK, "q_lora_rank": None}, rope_parameters=MSCALE),
    small("deepseek_v2", "deepseek_v2-groups", **DEEPSEEK, **GROUPED, topk_method="group_limited_greedy", routed_scaling_factor=1.7),
    small("deepseek_v2", "deepseek_v2-biases", **{**DEEPSEEK, "first_k_dense_replace": 0}, attention_bias=True, mlp_bias=True),
    small("deepseek_v3", **DEEPSEEK, **GROUPED),
    small("deepseek_v3", "deepseek_v3-lite", **{**DEEPSEEK, "q_lora_rank": None}, n_group=1, topk_group=1, norm_topk_prob=False),
    small("deepseek_v3", "deepseek_v3-yarn", **DEEPSEEK, **GROUPED, rope_parameters=MSCALE, attention_bias=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_of_transformers_is_ours_to_its_logits_text_and_files(case: Published, tmp_path: Path) -> None:
    reference = theirs(case)
    reference.save_pretrained(tmp_path / "theirs")
    model = llamazoo.load_model(tmp_path / "theirs", dtype=torch.float64)

    tokens = text(case)
    expected = logits_of(reference, tokens)
    assert expected.std() > 0.1, "a model whose logits say nothing would agree with any"
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), expected, atol=1e-5, rtol=0)

    prompt = tokens[:1, :16]
    assert greedy(model, prompt, 64) == continued(reference, prompt, 64)

    llamazoo.save_model(model, tmp_path / "ours", format="hf")
    kernels = {"attn_implementation": case.kernel, "experts_implementation": "eager"}
    again = type(reference).from_pretrained(tmp_path / "ours", dtype=torch.float64, **kernels)
    assert again.config.model_type == case.config["model_type"]
    torch.testing.assert_close(logits_of(again, tokens), expected, atol=1e-9, rtol=0)
    before, after = tensors_in(tmp_path / "theirs"), tensors_in(tmp_path / "ours")
    assert sorted(before) == sorted(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_mpt_has_the_slopes_that_its_makers_code_gives_it(tmp_path: Path) -> None:
    case = bare("mpt", **MPT, attn_config={"alibi_bias_max": 16})
    reference = theirs(case)
    reference.save_pretrained(tmp_path / "theirs")
    model = llamazoo.load_model(tmp_path / "theirs", dtype=torch.float64)
    tokens = text(case)
    flat = logits_of(reference, tokens)  # transformers takes 8, whatever the config says
    reference.transformer.build_mpt_alibi_tensor = partial(reference.transformer.build_mpt_alibi_tensor, alibi_bias_max=16)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), logits_of(reference, tokens), atol=1e-5, rtol=0)
        assert (model(tokens) - flat).abs().max() > 1e-3
