"""mpt: ALiBi, queries, keys and values that may be clipped, and no biases at all."""

from typing import Any

from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.formats.hf.family import option, qkv_rows
from llamazoo.weights.formats.hf.fused import OURS, Fused
from llamazoo.weights.rule import Rule, Split

__all__ = ["MPT"]

LAYER = "blocks.*"
# Said of training, or of the kernel; and of a table of positions, which there is not where there is ALiBi.
IDLE = ("emb_pdrop", "embedding_fraction", "init_config", "init_device", "learned_pos_emb", "tokenizer_name", "verbose")
IDLE_WITHIN = ("attn_impl", "attn_pdrop", "model_type", "dtype", "torch_dtype", "is_encoder_decoder")


class MPT(Fused):
    """MosaicML 2023 (MPT-7B, MPT-30B).

    Fields that transformers passes over count here as in MosaicML's code: alibi_bias_max is the exponent that it says (16 in
    StoryWriter), and what would make another model is refused.
    """

    model_type = "mpt"
    architecture = "MptForCausalLM"
    qkv = f"{LAYER}.attn.Wqkv"

    def spec(self, config: Config) -> dict[str, Any]:
        config.only("no_bias", True)
        config.only("logit_scale", None)
        config.only("expansion_ratio", 4)
        config.only("norm_type", "low_precision_layernorm", "layernorm")
        config.ignore(*IDLE)
        dim = config.number("d_model", "hidden_size")
        return {
            "vocab_size": config.take("vocab_size"),
            "dim": dim,
            "hidden_dim": 4 * dim,
            "n_layers": config.take("n_layers", "num_hidden_layers"),
            "n_heads": config.take("n_heads", "num_attention_heads"),
            "max_seq_len": config.take("max_seq_len", default=2048),
            "norm": {"type": "layernorm", "eps": config.take("layer_norm_epsilon", default=1e-5), "bias": False},
            **self.attention(config.within("attn_config") or Config({}, f"{config.where}: attn_config")),
            "feed_forward": {"type": "mlp", "activation": "gelu"},
            "head": {"type": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def attention(self, within: Config) -> dict[str, Any]:
        """Attention and position, from the object that says both."""
        within.only("attn_type", "multihead_attention")
        within.only("alibi", True)
        for name in ("prefix_lm", "qk_ln", "attn_uses_sequence_id"):
            within.only(name, False)
        within.ignore(*IDLE_WITHIN)
        clip = within.take("clip_qkv", default=None)
        data = {
            "position": {"type": "alibi", "bias_max": within.take("alibi_bias_max", default=8)},
            "attention": {"type": "multihead", "clip": clip or None, "scale": within.take("softmax_scale", default=None)},
        }
        within.done(f"the model type {self.model_type}")
        return data

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        layer = spec.layer(0)
        steepest = option(spec.places()[layer.position], "bias_max", 8.0)
        return {
            "vocab_size": spec.vocab_size,
            "d_model": spec.dim,
            "n_layers": spec.n_layers,
            "n_heads": spec.n_heads,
            "max_seq_len": spec.max_seq_len,
            "expansion_ratio": 4,
            "layer_norm_epsilon": option(layer.norm, "eps", 1e-5),
            "no_bias": True,
            "attn_config": {
                "alibi": True,
                "alibi_bias_max": int(steepest) if steepest == int(steepest) else steepest,
                "clip_qkv": option(layer.attention, "clip"),
                "softmax_scale": option(layer.attention, "scale"),
            },
            "tie_word_embeddings": option(spec.head, "tied", False),
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        return {
            "embedding": "wte",
            f"{OURS}.attention_norm": f"{LAYER}.norm_1",
            f"{OURS}.attention.o": f"{LAYER}.attn.out_proj",
            f"{OURS}.feed_forward_norm": f"{LAYER}.norm_2",
            f"{OURS}.feed_forward.up": f"{LAYER}.ffn.up_proj",
            f"{OURS}.feed_forward.down": f"{LAYER}.ffn.down_proj",
            "final_norm": "norm_f",
        }

    def fused(self, prefix: str, spec: ArchitectureSpec) -> list[Rule]:
        return [Split(f"{prefix}{self.qkv}.weight", tuple(f"{OURS}.attention.{n}.weight" for n in "qkv"), qkv_rows(spec))]
