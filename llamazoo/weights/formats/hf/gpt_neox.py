"""gpt_neox (GPT-NeoX-20B, Pythia): a quarter of each head rotates, and attention and feed-forward may stand side by side."""

from typing import Any

from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config, activation_name
from llamazoo.weights.formats.hf.family import option
from llamazoo.weights.formats.hf.fused import OURS, Fused
from llamazoo.weights.formats.hf.rope import read_rotary, rotary_fields

__all__ = ["GPTNeoX"]

LAYER = "layers.*"
IDLE = ("classifier_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob", "gradient_checkpointing", "is_decoder")


class GPTNeoX(Fused):
    """Black et al. 2022 (arXiv 2204.06745); Biderman et al. 2023 (Pythia, arXiv 2304.01373)."""

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    prefix = "gpt_neox."
    qkv = f"{LAYER}.attention.query_key_value"
    strays = {
        f"{LAYER}.attention.bias": "the order of tokens",
        f"{LAYER}.attention.masked_bias": "the order of tokens",
        f"{LAYER}.attention.rotary_emb.inv_freq": "theta",
    }
    heads = ("embed_out", "lm_head")

    def spec(self, config: Config) -> dict[str, Any]:
        config.ignore(*IDLE)
        bias, parallel = config.flag("attention_bias", True), config.flag("use_parallel_residual", True)
        for name, usual in (("rope_theta", (10000.0, 10000)), ("partial_rotary_factor", (0.25,))):
            config.only(name, *usual, told="is not what transformers reads here: rotary_emb_base, rotary_pct, or rope_parameters")
        rotary = read_rotary(config, context=config.number("max_position_embeddings", default=2048), fraction=0.25)
        return {
            "vocab_size": config.take("vocab_size"),
            "dim": config.take("hidden_size"),
            "hidden_dim": config.take("intermediate_size"),
            "n_layers": config.take("num_hidden_layers"),
            "n_heads": config.take("num_attention_heads"),
            "max_seq_len": rotary.max_seq_len,
            "norm": {"type": "layernorm", "eps": config.take("layer_norm_eps", default=1e-5)},
            "position": rotary.position,
            "block": "parallel" if parallel else "prenorm",
            "attention": {"type": "multihead", "qkv_bias": bias, "out_bias": bias},
            "feed_forward": {"type": "mlp", "activation": config.activation("hidden_act", default="gelu"), "bias": True},
            "head": {"type": "linear", "tied": config.flag("tie_word_embeddings", False)},
        }

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        layer = spec.layer(0)
        rotary = rotary_fields(spec.places()[layer.position], spec.max_seq_len)
        told = rotary["rope_parameters"]
        told.setdefault("partial_rotary_factor", 1.0)  # said in any case, since to leave it out means a quarter
        theta = rotary.pop("rope_theta")  # not read here
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "intermediate_size": option(layer.feed_forward, "hidden_dim", spec.hidden_dim or 4 * spec.dim),
            "num_hidden_layers": spec.n_layers,
            "num_attention_heads": spec.n_heads,
            "layer_norm_eps": option(layer.norm, "eps", 1e-5),
            "hidden_act": activation_name(option(layer.feed_forward, "activation")),
            "attention_bias": option(layer.attention, "qkv_bias", False),
            "use_parallel_residual": option(layer.block, "shared_norm") is not None,
            "tie_word_embeddings": option(spec.head, "tied", False),
            "rotary_pct": told["partial_rotary_factor"],
            "rotary_emb_base": theta,
            **rotary,
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        return {
            "embedding": "embed_in",
            f"{OURS}.attention_norm": f"{LAYER}.input_layernorm",
            f"{OURS}.attention.o": f"{LAYER}.attention.dense",
            f"{OURS}.feed_forward_norm": f"{LAYER}.post_attention_layernorm",
            f"{OURS}.feed_forward.up": f"{LAYER}.mlp.dense_h_to_4h",
            f"{OURS}.feed_forward.down": f"{LAYER}.mlp.dense_4h_to_h",
            "final_norm": "final_layer_norm",
        }
