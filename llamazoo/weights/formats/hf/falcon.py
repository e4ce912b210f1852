"""falcon: attention and feed-forward side by side, or one after the other; a rotation, or ALiBi."""

from typing import Any

from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config, activation_name
from llamazoo.weights.formats.hf.family import option
from llamazoo.weights.formats.hf.fused import OURS, Fused
from llamazoo.weights.formats.hf.rope import read_rotary, rotary_fields

__all__ = ["Falcon"]

LAYER = "h.*"


class Falcon(Fused):
    """Almazrouei et al. 2023 (arXiv 2311.16867).

    The 7B shares a norm and has one key/value head; the larger ones (`new_decoder_architecture`) have several, and mostly two
    norms; the RefinedWeb models (Penedo et al. 2023) are sequential. Theirs rounds ALiBi to bfloat16, which ours does not.
    """

    model_type = "falcon"
    architecture = "FalconForCausalLM"
    qkv = f"{LAYER}.self_attention.query_key_value"
    strays = {f"{LAYER}.self_attention.rotary_emb.inv_freq": "theta"}

    def spec(self, config: Config) -> dict[str, Any]:
        config.only("apply_residual_connection_post_layernorm", False)
        dim, heads = config.number("hidden_size", "n_embed"), config.number("num_attention_heads")
        bias = config.flag("bias", False)
        place, context = self.place(config, dim // heads)
        return {
            "vocab_size": config.take("vocab_size"),
            "dim": dim,
            "hidden_dim": config.take("ffn_hidden_size", default=4 * dim),
            "n_layers": config.take("num_hidden_layers"),
            "n_heads": heads,
            **self.arrangement(config, heads),
            "max_seq_len": context,
            "norm": {"type": "layernorm", "eps": config.take("layer_norm_epsilon", default=1e-5)},
            "position": place,
            "attention": {"type": "multihead", "qkv_bias": bias, "out_bias": bias},
            "feed_forward": {"type": "mlp", "activation": config.activation("activation", default="gelu"), "bias": bias},
            "head": {"type": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def place(self, config: Config, head_dim: int) -> tuple[dict[str, Any], int]:
        """The position, and the context that it is made for. ALiBi is added to scores before they are scaled."""
        context, alibi = config.number("max_position_embeddings", default=2048), config.flag("alibi", False)
        rotary = read_rotary(config, context=context)
        return ({"type": "alibi", "scale": max(1, head_dim) ** -0.5}, context) if alibi else rotary

    def arrangement(self, config: Config, heads: int) -> dict[str, Any]:
        """The block, and how many heads of keys and values there are."""
        new, parallel = config.flag("new_decoder_architecture", False), config.flag("parallel_attn", True)
        single, kv = config.flag("multi_query", True), config.number("num_kv_heads", default=heads)
        norms = config.take("num_ln_in_parallel_attn", default=2 if new else 1)
        if new and not parallel:
            raise config.wrong("parallel_attn", "False is not supported where new_decoder_architecture is true")
        if norms not in ((1, 2) if new else (1,)):
            raise config.wrong("num_ln_in_parallel_attn", f"{ascii(norms)[:60]} is not supported; supported: {'1, 2' if new else '1'}")
        if not new and not single and kv != heads:
            raise config.wrong("num_kv_heads", f"{kv} is not supported where multi_query is false; supported: {heads}, as many as heads")
        block = {"type": "parallel", "shared_norm": norms == 1} if parallel else {"type": "prenorm"}
        return {"block": block, "n_kv_heads": 1 if single and not new else kv}

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        site, layer = spec.site(), spec.layer(0)
        place = spec.places()[layer.position]
        kv, shared = option(layer.attention, "n_kv_heads", site.n_kv_heads), option(layer.block, "shared_norm")
        new = shared is not None and (not shared or 1 < kv < spec.n_heads)
        return {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "ffn_hidden_size": option(layer.feed_forward, "hidden_dim", spec.hidden_dim or 4 * spec.dim),
            "num_hidden_layers": spec.n_layers,
            "num_attention_heads": spec.n_heads,
            "num_kv_heads": kv if new else spec.n_heads,
            "multi_query": kv == 1,
            "new_decoder_architecture": new,
            "num_ln_in_parallel_attn": (1 if shared else 2) if new else None,
            "parallel_attn": shared is not None,
            "alibi": place.type == "alibi",
            "bias": option(layer.attention, "qkv_bias", False),
            "layer_norm_epsilon": option(layer.norm, "eps", 1e-5),
            "activation": activation_name(option(layer.feed_forward, "activation")),
            **rotary_fields(place, spec.max_seq_len),
            "tie_word_embeddings": option(spec.head, "tied", False),
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        two = option(spec.layer(0).block, "shared_norm") is False
        norms = ("ln_attn", "ln_mlp") if two else ("input_layernorm", "post_attention_layernorm")
        return {
            "embedding": "word_embeddings",
            f"{OURS}.attention_norm": f"{LAYER}.{norms[0]}",
            f"{OURS}.attention.o": f"{LAYER}.self_attention.dense",
            f"{OURS}.feed_forward_norm": f"{LAYER}.{norms[1]}",
            f"{OURS}.feed_forward.up": f"{LAYER}.mlp.dense_h_to_4h",
            f"{OURS}.feed_forward.down": f"{LAYER}.mlp.dense_4h_to_h",
            "final_norm": "ln_f",
        }
