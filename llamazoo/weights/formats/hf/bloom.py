"""bloom: ALiBi, a norm after the embedding, biases everywhere."""

from typing import Any

from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.formats.hf.family import option
from llamazoo.weights.formats.hf.fused import OURS, Fused

__all__ = ["Bloom"]

LAYER = "h.*"
# How the code that trained it fused what it computes, and the like.
IDLE = (
    *("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "skip_bias_add", "skip_bias_add_qkv"),
    *("offset_alibi", "unk_token_id", "gradient_checkpointing"),
)


class Bloom(Fused):
    """Le Scao et al. 2022 (arXiv 2211.05100)."""

    model_type = "bloom"
    architecture = "BloomForCausalLM"
    qkv = f"{LAYER}.self_attention.query_key_value"

    def spec(self, config: Config) -> dict[str, Any]:
        dim = config.number("hidden_size", "n_embed")
        config.only("apply_residual_connection_post_layernorm", False)
        config.only("slow_but_exact", False)  # which leaves out biases
        config.only("n_inner", 4 * dim)
        config.ignore(*IDLE)
        norm = {"type": "layernorm", "eps": config.take("layer_norm_epsilon", default=1e-5)}
        return {
            "vocab_size": config.take("vocab_size"),
            "dim": dim,
            "hidden_dim": 4 * dim,
            "n_layers": config.take("n_layer", "num_hidden_layers"),
            "n_heads": config.take("n_head", "num_attention_heads"),
            "max_seq_len": config.take("seq_length", "n_positions", "max_position_embeddings", default=2048),
            "norm": norm,
            "position": "alibi",
            "embedding": {"type": "table", "norm": norm},
            "attention": {"type": "multihead", "qkv_bias": True, "out_bias": True},
            "feed_forward": {"type": "mlp", "activation": {"type": "gelu", "approximate": "tanh"}, "bias": True},
            "head": {"type": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "n_layer": spec.n_layers,
            "n_head": spec.n_heads,
            "seq_length": spec.max_seq_len,
            "layer_norm_epsilon": option(spec.layer(0).norm, "eps", 1e-5),
            "tie_word_embeddings": option(spec.head, "tied", False),
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        return {
            "embedding": "word_embeddings",
            "embedding.norm": "word_embeddings_layernorm",
            f"{OURS}.attention_norm": f"{LAYER}.input_layernorm",
            f"{OURS}.attention.o": f"{LAYER}.self_attention.dense",
            f"{OURS}.feed_forward_norm": f"{LAYER}.post_attention_layernorm",
            f"{OURS}.feed_forward.up": f"{LAYER}.mlp.dense_h_to_4h",
            f"{OURS}.feed_forward.down": f"{LAYER}.mlp.dense_4h_to_h",
            "final_norm": "ln_f",
        }
