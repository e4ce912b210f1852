"""gpt2: learned positions, biases everywhere, and matrices stored the other way round."""

from typing import Any

from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config, activation_name
from llamazoo.weights.formats.hf.family import option, qkv_rows
from llamazoo.weights.formats.hf.fused import OURS, Fused
from llamazoo.weights.rule import Rule, Split, SplitTransposed, Transpose

__all__ = ["GPT2"]

LAYER = "h.*"
# Of other heads than that of language modelling; left from old code; and of the order in which training in float16 computes.
IDLE = (
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "_num_labels"),
    *("n_special", "predict_special_tokens", "output_past", "gradient_checkpointing", "reorder_and_upcast_attn"),
)


class GPT2(Fused):
    """Radford et al. 2019 (GPT-2)."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    qkv = f"{LAYER}.attn.c_attn"
    strays = {f"{LAYER}.attn.bias": "the order of tokens", f"{LAYER}.attn.masked_bias": "the order of tokens"}

    def spec(self, config: Config) -> dict[str, Any]:
        config.only("scale_attn_by_inverse_layer_idx", False)
        config.ignore(*IDLE)
        dim = config.number("n_embd", "hidden_size", default=768)
        activation = config.activation("activation_function", default="gelu_new")
        return {
            "vocab_size": config.take("vocab_size", default=50257),
            "dim": dim,
            "hidden_dim": config.take("n_inner", default=4 * dim),
            "n_layers": config.take("n_layer", "num_hidden_layers", default=12),
            "n_heads": config.take("n_head", "num_attention_heads", default=12),
            "max_seq_len": config.take("n_positions", "max_position_embeddings", "n_ctx", default=1024),
            "norm": {"type": "layernorm", "eps": config.take("layer_norm_epsilon", default=1e-5)},
            "position": "learned",
            "attention": {
                "type": "multihead",
                "qkv_bias": True,
                "out_bias": True,
                "scale": None if config.flag("scale_attn_weights", True) else 1.0,
            },
            "feed_forward": {"type": "mlp", "activation": activation, "bias": True},
            "head": {"type": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        layer = spec.layer(0)
        activation = activation_name(option(layer.feed_forward, "activation"))
        return {
            "vocab_size": spec.vocab_size,
            "n_embd": spec.dim,
            "n_inner": option(layer.feed_forward, "hidden_dim", spec.hidden_dim),
            "n_layer": spec.n_layers,
            "n_head": spec.n_heads,
            "n_positions": spec.max_seq_len,
            "layer_norm_epsilon": option(layer.norm, "eps", 1e-5),
            "activation_function": "gelu_new" if activation == "gelu_pytorch_tanh" else activation,
            "scale_attn_weights": option(layer.attention, "scale") != 1.0,
            "tie_word_embeddings": option(spec.head, "tied", False),
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        return {
            "embedding": "wte",
            f"positions.at_{spec.layer(0).position}": "wpe",
            f"{OURS}.attention_norm": f"{LAYER}.ln_1",
            f"{OURS}.feed_forward_norm": f"{LAYER}.ln_2",
            **MATRICES,
            "final_norm": "ln_f",
        }

    def fused(self, prefix: str, spec: ArchitectureSpec) -> list[Rule]:
        rows = qkv_rows(spec)
        weights, biases = (tuple(f"{OURS}.attention.{n}.{leaf}" for n in "qkv") for leaf in ("weight", "bias"))
        return [
            SplitTransposed(f"{prefix}{self.qkv}.weight", weights, rows),
            Split(f"{prefix}{self.qkv}.bias", biases, rows),
            *(Transpose(f"{prefix}{theirs}.weight", f"{ours}.weight") for ours, theirs in MATRICES.items()),
        ]


MATRICES = {
    f"{OURS}.attention.o": f"{LAYER}.attn.c_proj",
    f"{OURS}.feed_forward.up": f"{LAYER}.mlp.c_fc",
    f"{OURS}.feed_forward.down": f"{LAYER}.mlp.c_proj",
}
