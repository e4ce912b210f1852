"""Against transformers' own code, with random weights: what published models have beside what a LLaMA has."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import llamazoo

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 61, "dim": 32, "hidden_dim": 40, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
HF = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
HF |= {"max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
LLAMA = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "head.weight",
    **{f"self_attn.{n}_proj": f"attention.{n}" for n in "qkvo"},
    **{f"mlp.{n}_proj": f"feed_forward.{n}" for n in ("gate", "up", "down")},
}
NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"}


def tokens(length: int = 24) -> Tensor:
    return torch.randint(0, 61, (2, length), generator=torch.Generator().manual_seed(length))


def stirred(theirs: torch.nn.Module) -> torch.nn.Module:
    """Every weight away from its first value, in float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return theirs.double().eval()


def renamed(state: Mapping[str, Tensor], words: Mapping[str, str], layers: str) -> dict[str, Tensor]:
    """Their tensors under our names: `words` are what stands within a layer, or whole names outside."""
    found = {}
    for name, value in state.items():
        outside = name.removeprefix(layers)
        if outside == name:
            found[words.get(name, name)] = value
            continue
        number, _, inside = outside.partition(".")
        stem, _, leaf = inside.rpartition(".")
        found[f"blocks.{number}.{words.get(stem, stem)}.{leaf}" if stem else f"blocks.{number}.{words.get(inside, inside)}"] = value
    return found


def agrees(theirs: torch.nn.Module, spec: Mapping[str, Any], values: Mapping[str, Tensor], tolerance: float = 1e-5) -> llamazoo.Decoder:
    """Builds our model with their values, all of them, and compares the logits, of one call and of calls on a state."""
    ours = llamazoo.build_model({**SIZES, **spec}, dtype=torch.float64, device="cpu").eval()
    ours.load_state_dict({**values})
    with torch.no_grad():
        expected = theirs(tokens()).logits
        assert expected.std() > 0.1
        assert (ours(tokens()) - expected).abs().max() < tolerance * expected.abs().max()
        state = ours.new_state(2, 24, chunk=8)
        cached = torch.cat([ours(piece, state=state) for piece in tokens().split([9, 1, 14], 1)], 1)
        assert (cached - expected).abs().max() < tolerance * expected.abs().max()
    return ours


def test_olmo2_norms_what_the_sublayers_give_and_queries_and_keys_across_heads() -> None:
    config = transformers.Olmo2Config(**HF, num_key_value_heads=2, rms_norm_eps=1e-6, attn_implementation="eager")
    theirs = stirred(transformers.Olmo2ForCausalLM(config))
    words = {**LLAMA, "post_attention_layernorm": "attention_norm", "post_feedforward_layernorm": "feed_forward_norm"}
    words |= {"self_attn.q_norm": "attention.q_norm", "self_attn.k_norm": "attention.k_norm"}
    norm = {"type": "rmsnorm", "eps": 1e-6}
    spec = {
        "n_kv_heads": 2,
        "norm": norm,
        "position": "rope",
        "block": "reordered",
        "attention": {"type": "multihead", "qk_norm": norm, "qk_norm_over": "all"},
        "feed_forward": "swiglu",
    }
    agrees(theirs, spec, renamed(theirs.state_dict(), words, "model.layers."))


def test_granite_scales_embeddings_residuals_scores_and_logits() -> None:
    scales = {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1, "logits_scaling": 8.0}
    config = transformers.GraniteConfig(**HF, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=False, **scales)
    theirs = stirred(transformers.GraniteForCausalLM(config))
    spec = {
        "n_kv_heads": 2,
        "norm": "rmsnorm",
        "position": "rope",
        "embedding": {"scale": 12.0},
        "block": {"type": "prenorm", "residual_scale": 0.22},
        "attention": {"type": "multihead", "scale": 0.1},
        "feed_forward": "swiglu",
        "head": {"scale": 1 / 8},
    }
    agrees(theirs, spec, renamed(theirs.state_dict(), {**LLAMA, **NORMS}, "model.layers."))


def test_gemma_offsets_its_gains_and_scales_its_embeddings() -> None:
    config = transformers.GemmaConfig(**HF, num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh")
    theirs = stirred(transformers.GemmaForCausalLM(config))
    spec = {
        "n_kv_heads": 1,
        "head_dim": 16,
        "norm": {"type": "rmsnorm", "eps": 1e-6, "unit_offset": True},
        "position": "rope",
        "embedding": {"scale": "sqrt_dim"},
        "attention": "multihead",
        "feed_forward": {"type": "geglu", "activation": {"type": "gelu", "approximate": "tanh"}},
        "head": {"tied": True},
    }
    agrees(theirs, spec, renamed(theirs.state_dict(), {**LLAMA, **NORMS}, "model.layers."))


def cut(heads: int, by: str) -> Callable[[Tensor], list[Tensor]]:
    """Fused queries, keys and values, apart: one after the other, or head by head."""

    def apart(fused: Tensor) -> list[Tensor]:
        if by == "section":
            return list(fused.chunk(3))
        return [part.flatten(0, 1) for part in fused.unflatten(0, (heads, 3, -1)).unbind(1)]

    return apart


def unfused(values: Mapping[str, Tensor], fused: str, apart: Callable[[Tensor], list[Tensor]]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        if fused in name:
            found |= {name.replace(fused, n): part for n, part in zip("qkv", apart(value), strict=True)}
        else:
            found[name] = value
    return found


@pytest.mark.parametrize("heads", [4, 6, 12])
def test_mpt_clips_queries_keys_and_values(heads: int) -> None:
    width = 8 * heads
    attention = {"alibi": True, "clip_qkv": 0.9, "attn_type": "multihead_attention"}
    sizes = {"d_model": width, "n_heads": heads, "n_layers": 2, "vocab_size": 61, "max_seq_len": 64, "expansion_ratio": 4}
    config = transformers.MptConfig(**sizes, attn_config=attention, layer_norm_epsilon=1e-5, tie_word_embeddings=True)
    theirs = stirred(transformers.MptForCausalLM(config))
    words = {"transformer.wte.weight": "embedding.weight", "transformer.norm_f.weight": "final_norm.weight"}
    words |= {"lm_head.weight": "head.weight", "norm_1": "attention_norm", "norm_2": "feed_forward_norm"}
    words |= {"attn.Wqkv": "attention.fused", "attn.out_proj": "attention.o"}
    words |= {"ffn.up_proj": "feed_forward.up", "ffn.down_proj": "feed_forward.down"}
    values = unfused(renamed(theirs.state_dict(), words, "transformer.blocks."), "fused", cut(heads, "section"))
    spec = {
        "dim": width,
        "hidden_dim": 4 * width,
        "n_heads": heads,
        "norm": {"type": "layernorm", "bias": False},
        "position": "alibi",
        "attention": {"type": "multihead", "clip": 0.9},
        "feed_forward": "mlp",
        "head": {"tied": True},
    }
    agrees(theirs, spec, values)


@pytest.mark.parametrize("heads", [1, 4, 6, 7, 12, 40])
@pytest.mark.parametrize("bias_max", [8, 4, 5])
def test_slopes_are_those_of_mpt_and_bloom(heads: int, bias_max: int) -> None:
    """MPT's model in transformers does not pass its own alibi_bias_max on, so the function that takes it is asked."""
    spec = {**SIZES, "dim": 4 * heads, "n_heads": heads, "norm": "rmsnorm", "attention": "multihead", "feed_forward": "swiglu"}
    spec["position"] = {"type": "alibi", "bias_max": float(bias_max)}
    alibi = llamazoo.build_model(spec, dtype=torch.float64, device="cpu").positions["at_main"]
    found = alibi.bias(torch.full((1, 1), 8), torch.arange(9)[None])[0, :, 0]  # type: ignore[operator]
    mpt = transformers.models.mpt.modeling_mpt.build_mpt_alibi_tensor(heads, 9, bias_max)[:, 0]
    assert (found - mpt).abs().max() < 1e-6
    if bias_max == 8:
        slopes = transformers.models.bloom.modeling_bloom._get_alibi_slopes(heads, torch.device("cpu"))
        assert (found[:, 0] + 8 * slopes).abs().max() < 1e-5


@pytest.mark.parametrize("heads", [4, 6])
def test_bloom_norms_its_embeddings(heads: int) -> None:
    width = 8 * heads
    config = transformers.BloomConfig(vocab_size=61, hidden_size=width, n_layer=2, n_head=heads, layer_norm_epsilon=1e-5)
    theirs = stirred(transformers.BloomForCausalLM(config))
    words = {"transformer.word_embeddings.weight": "embedding.weight", "lm_head.weight": "head.weight"}
    words |= {f"transformer.word_embeddings_layernorm.{leaf}": f"embedding.norm.{leaf}" for leaf in ("weight", "bias")}
    words |= {f"transformer.ln_f.{leaf}": f"final_norm.{leaf}" for leaf in ("weight", "bias")}
    words |= {"self_attention.query_key_value": "attention.fused", "self_attention.dense": "attention.o", **NORMS}
    words |= {"mlp.dense_h_to_4h": "feed_forward.up", "mlp.dense_4h_to_h": "feed_forward.down"}
    values = unfused(renamed(theirs.state_dict(), words, "transformer.h."), "fused", cut(heads, "head"))
    spec = {
        "dim": width,
        "hidden_dim": 4 * width,
        "n_heads": heads,
        "norm": "layernorm",
        "position": "alibi",
        "embedding": {"norm": "layernorm"},
        "attention": {"type": "multihead", "qkv_bias": True, "out_bias": True},
        "feed_forward": {"type": "mlp", "activation": {"type": "gelu", "approximate": "tanh"}, "bias": True},
        "head": {"tied": True},
    }
    agrees(theirs, spec, values, tolerance=1e-4)  # it approximates the tanh with fewer digits of its constants


def test_falcon_scales_the_slopes_with_the_scores() -> None:
    sizes = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_hidden_size": 40}
    forms = {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "new_decoder_architecture": False}
    # Its eager attention adds the bias twice in this version of transformers: once itself, once with the mask.
    config = transformers.FalconConfig(**sizes, **forms, layer_norm_epsilon=1e-5, attn_implementation="sdpa")
    theirs = stirred(transformers.FalconForCausalLM(config))
    words = {"transformer.word_embeddings.weight": "embedding.weight", "lm_head.weight": "head.weight"}
    words |= {f"transformer.ln_f.{leaf}": f"final_norm.{leaf}" for leaf in ("weight", "bias")}
    words |= {"self_attention.query_key_value": "attention.fused", "self_attention.dense": "attention.o", **NORMS}
    words |= {"mlp.dense_h_to_4h": "feed_forward.up", "mlp.dense_4h_to_h": "feed_forward.down"}
    values = unfused(renamed(theirs.state_dict(), words, "transformer.h."), "fused", cut(4, "head"))
    spec = {
        "norm": "layernorm",
        "position": {"type": "alibi", "scale": 8**-0.5},
        "attention": {"type": "multihead", "qkv_bias": True, "out_bias": True},
        "feed_forward": {"type": "mlp", "bias": True},
        "head": {"tied": True},
    }
    agrees(theirs, spec, values)


def test_gpt_oss_attention_has_sinks_windows_and_yarn() -> None:
    rope = {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    sizes = {**HF, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 7}
    modelling = transformers.models.gpt_oss.modeling_gpt_oss
    config = transformers.GptOssConfig(
        **sizes, rope_parameters={**rope, "original_max_position_embeddings": 16}, attn_implementation="eager"
    )
    theirs = modelling.GptOssAttention(config, layer_idx=0)
    torch.nn.init.zeros_(theirs.sinks)  # the module by itself leaves them as the memory was: now and then not a number
    stirred(theirs)
    position = {"type": "rope", "theta": 150000.0, "scaling": {"type": "yarn", "factor": 32.0, "original": 16, "truncate": False}}
    attention = {"type": "multihead", "qkv_bias": True, "out_bias": True, "sinks": True, "window": 7, "n_kv_heads": 2}
    spec = {**SIZES, "n_layers": 1, "norm": "rmsnorm", "position": position, "attention": attention, "feed_forward": "swiglu"}
    model = llamazoo.build_model(spec, dtype=torch.float64, device="cpu")
    ours = model.blocks[0].attention
    ours.load_state_dict({name.replace("_proj", ""): value for name, value in theirs.state_dict().items()})
    x, order = torch.randn(2, 20, 32, dtype=torch.float64), torch.arange(20)
    seen = (order <= order[:, None]) & (order > order[:, None] - 7)
    angles = modelling.GptOssRotaryEmbedding(config)(x, order[None])
    mask = torch.zeros(20, 20, dtype=torch.float64).masked_fill(~seen, float("-inf"))
    step = llamazoo.Step.even(2, 20, start=0, horizon=20, device=x.device)
    rotary = model.positions["at_main"]
    step = step.with_places({"main": rotary.prepare(step.positions, horizon=20, dtype=x.dtype)})  # type: ignore[operator]
    with torch.no_grad():
        expected = theirs(x, angles, mask[None, None])[0]
        assert (ours(x, step, None) - expected).abs().max() < 1e-5  # type: ignore[operator]


def test_a_norm_with_unit_offset_rounds_where_gemma_does() -> None:
    theirs = transformers.models.gemma.modeling_gemma.GemmaRMSNorm(256, eps=1e-6).bfloat16()
    spec = {**SIZES, "dim": 256, "norm": {"type": "rmsnorm", "eps": 1e-6, "unit_offset": True}}
    spec |= {"position": "none", "attention": "multihead", "feed_forward": "swiglu"}
    ours = llamazoo.build_model(spec, dtype=torch.bfloat16, device="cpu").final_norm
    x, w = torch.randn(50, 256).bfloat16(), (0.01 * torch.randn(256)).bfloat16()
    assert not ours.weight.any()  # type: ignore[union-attr,operator]
    with torch.no_grad():
        ours.weight.copy_(w)  # type: ignore[union-attr,operator]
        theirs.weight.copy_(w)
        assert (ours(x) == theirs(x)).float().mean() > 0.999  # the sums of squares may be added up in another order
