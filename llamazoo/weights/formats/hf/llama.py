"""llama, and what differs from it by little: mistral, qwen2, qwen3, smollm3, olmo2, phi3."""

from typing import Any, ClassVar

from llamazoo.contract.component import Part
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config, activation_name
from llamazoo.weights.formats.hf.family import Family, layers_of, option, qkv_rows, renames
from llamazoo.weights.formats.hf.layered import FULL, SLIDES, counted, types_of, windowed
from llamazoo.weights.formats.hf.rope import read_rotary, rotary_fields
from llamazoo.weights.rule import Drop, Rule, Split

__all__ = ["Llama", "Mistral", "OLMo2", "Phi3", "Qwen2", "Qwen3", "SmolLM3"]

LAYER, OURS = "model.layers.*", "blocks.*"
INV_FREQ = Drop(f"{LAYER}.self_attn.rotary_emb.inv_freq", "computed from theta")


class Llama(Family):
    """Touvron et al. 2023 (arXiv 2302.13971), and Llama 2 to 3.2."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    # What a config means that leaves a field out.
    theta: ClassVar[float] = 10000.0
    context: ClassVar[int] = 2048
    eps: ClassVar[float] = 1e-6
    kv_heads: ClassVar[int | None] = None  # None: as many as heads
    head_dim: ClassVar[int | None] = None  # None: the width divided by the heads
    fraction: ClassVar[float | None] = None  # the share of a head that rotates, if a config can say so
    tied: ClassVar[bool] = False
    attention_bias: ClassVar[bool] = True  # whether a config can say that there are biases
    mlp_bias: ClassVar[bool] = True

    def spec(self, config: Config) -> dict[str, Any]:
        config.only("rope_interleaved", False, told="is not supported: rotary pairs stand by halves")
        config.ignore("is_llama_config")
        n_layers, norm = config.number("num_hidden_layers"), self.norm(config)
        places, context = self.places(config, config.number("max_position_embeddings", "max_sequence_length", default=self.context))
        parts = {"attention": self.attention(config, norm), **places}
        return {
            **self.widths(config),
            "n_layers": n_layers,
            "max_seq_len": context,
            "norm": norm,
            "feed_forward": self.feed_forward(config),
            "head": {"type": "linear", "tied": config.flag("tie_word_embeddings", self.tied)},
            **self.layers(config, n_layers, parts),
        }

    def widths(self, config: Config) -> dict[str, Any]:
        heads = config.take("num_attention_heads")
        return {
            "vocab_size": config.take("vocab_size"),
            "dim": config.take("hidden_size"),
            "hidden_dim": config.take("intermediate_size"),
            "n_heads": heads,
            "n_kv_heads": config.take("num_key_value_heads", default=self.kv_heads or heads),
            "head_dim": config.take("head_dim", default=self.head_dim),
        }

    def norm(self, config: Config) -> dict[str, Any]:
        return {"type": "rmsnorm", "eps": config.take("rms_norm_eps", default=self.eps)}

    def feed_forward(self, config: Config) -> dict[str, Any]:
        bias = self._bias(config, "mlp_bias")
        return {"type": "gated", "activation": config.activation("hidden_act", default="silu"), "bias": bias}

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        """What all layers have; `norm` is the family's, for those that norm queries and keys with it."""
        bias = self._bias(config, "attention_bias")
        return {"type": "multihead", "qkv_bias": bias, "out_bias": bias}

    def _bias(self, config: Config, name: str) -> bool:
        """Whether there are biases: as a config says, where it can; else it may say that there are none."""
        if getattr(self, name):
            return config.flag(name, False)
        config.only(name, False)
        return False

    def places(self, config: Config, context: int) -> tuple[dict[str, Any], int]:
        """The position, or several by name, and the context that it is made for."""
        rotary = read_rotary(config, theta=self.theta, context=context, fraction=self.fraction)
        return {"position": rotary.position}, rotary.max_seq_len

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        """Attention and position, as all layers have them, or some of them otherwise."""
        return parts

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        site, layer = spec.site(), spec.layer(0)
        attention, feed_forward = layer.attention, layer.feed_forward
        fields = {
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.dim,
            "intermediate_size": option(feed_forward, "hidden_dim", spec.hidden_dim or 4 * spec.dim),
            "num_hidden_layers": spec.n_layers,
            "num_attention_heads": spec.n_heads,
            "num_key_value_heads": option(attention, "n_kv_heads", site.n_kv_heads),
            "head_dim": site.head_dim,
            "rms_norm_eps": option(layer.norm, "eps", self.eps),
            "hidden_act": activation_name(option(feed_forward, "activation")),
            **self.rotary(spec.places()[layer.position], spec.max_seq_len),
            "tie_word_embeddings": option(spec.head, "tied", False),
        }
        biases = {"attention_bias": option(attention, "qkv_bias", False), "mlp_bias": option(feed_forward, "bias", False)}
        return {**fields, **{name: value for name, value in biases.items() if getattr(self, name)}}

    def rotary(self, position: Part, context: int) -> dict[str, Any]:
        return rotary_fields(position, context)

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        """Their modules by ours."""
        return {
            "embedding": "model.embed_tokens",
            **{f"{OURS}.attention.{n}": f"{LAYER}.self_attn.{n}_proj" for n in "qkvo"},
            **{f"{OURS}.attention.{n}_norm": f"{LAYER}.self_attn.{n}_norm" for n in "qk"},
            **{f"{OURS}.feed_forward.{n}": f"{LAYER}.mlp.{n}_proj" for n in ("gate", "up", "down")},
            f"{OURS}.attention_norm": f"{LAYER}.input_layernorm",
            f"{OURS}.feed_forward_norm": f"{LAYER}.post_attention_layernorm",
            "final_norm": "model.norm",
            "head": "lm_head",
        }

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        return [INV_FREQ, *renames(self.modules(spec))]


class Mistral(Llama):
    """Jiang et al. 2023 (arXiv 2310.06825): a window in every layer, or in none."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    context = 4096 * 32
    kv_heads = 8
    attention_bias = mlp_bias = False
    window: ClassVar[int | None] = 4096  # where a config does not mention it

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        return {**super().attention(config, norm), "window": config.nullable("sliding_window", self.window)}

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        return {**super().config(spec), "sliding_window": option(spec.layer(0).attention, "window")}


class Qwen2(Llama):
    """Yang et al. 2024 (arXiv 2407.10671): biases on queries, keys and values; a window in the upper layers, if at all."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    context = 32768
    kv_heads = 32
    attention_bias = mlp_bias = False

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        config.ignore("attention_bias")  # there are those that there are, whatever this says
        return {"type": "multihead", "qkv_bias": True}

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        window, types = self.window(config), config.numbers("layer_types", n_layers)
        full = config.number("max_window_layers", default=28, least=0)
        config.only("use_mrope", False)
        if types is None and window is None:
            return parts
        return windowed(config, types or [SLIDES if number >= full else FULL for number in counted(config, n_layers)], window, parts)

    def window(self, config: Config) -> Any:
        """The window of the layers that have one; a config may name a window and say that it is not in use."""
        slides, window = config.flag("use_sliding_window", False), config.nullable("sliding_window", 4096)
        return window if slides else None

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        types, window = types_of(spec)
        fields = {**super().config(spec), "use_sliding_window": window is not None, "sliding_window": window}
        if window is None:
            return fields
        return {**fields, "max_window_layers": types.index(SLIDES), "layer_types": types}


class Qwen3(Qwen2):
    """Yang et al. 2025 (arXiv 2505.09388): a norm over each head of queries and keys, and no biases unless a config says so."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    head_dim: ClassVar[int | None] = 128
    attention_bias = True

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        return {**Llama.attention(self, config, norm), "qk_norm": norm}


class SmolLM3(Qwen2):
    """Bakouch et al. 2025 (SmolLM3): every fourth layer has no position at all. Yang et al. 2025 (arXiv 2501.18795)."""

    model_type = "smollm3"
    architecture = "SmolLM3ForCausalLM"
    theta = 2000000.0
    context = 32768
    kv_heads = 4
    tied = True
    attention_bias = mlp_bias = True

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        return Llama.attention(self, config, norm)

    def places(self, config: Config, context: int) -> tuple[dict[str, Any], int]:
        places, context = super().places(config, context)
        return {"positions": {"rope": places["position"], "nope": "none"}}, context

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        interval = config.number("no_rope_layer_interval", default=4)
        config.ignore("max_window_layers")  # of qwen2, whose config this one's was; nothing reads it
        turns = config.numbers("no_rope_layers", n_layers)  # 1 where there is a position, whatever the name says
        turns = turns or [int((number + 1) % interval != 0) for number in counted(config, n_layers)]
        window = self.window(config)
        types = config.numbers("layer_types", n_layers) or [SLIDES if window is not None and not turn else FULL for turn in turns]
        return windowed(config, types, window, parts, ["rope" if turn else "nope" for turn in turns])

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        places = [spec.places()[layer.position] for layer in layers_of(spec)]
        turning = [place for place in places if place.type != "none"]
        fields = super().config(spec)
        fields.pop("max_window_layers", None)
        if turning:
            fields.update(self.rotary(turning[0], spec.max_seq_len))
        return {**fields, "no_rope_layers": [int(place.type != "none") for place in places], "layer_types": types_of(spec)[0]}


class OLMo2(Llama):
    """OLMo et al. 2025 (arXiv 2501.00656): norms on what the sublayers return, and across all heads of queries and keys."""

    model_type = "olmo2"
    architecture = "Olmo2ForCausalLM"
    eps = 1e-5
    mlp_bias = False

    def spec(self, config: Config) -> dict[str, Any]:
        return {**super().spec(config), "block": "reordered"}

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        return {**super().attention(config, norm), "qk_norm": norm, "qk_norm_over": "all"}

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        names = {
            f"{OURS}.attention_norm": f"{LAYER}.post_attention_layernorm",
            f"{OURS}.feed_forward_norm": f"{LAYER}.post_feedforward_layernorm",
        }
        return {**super().modules(spec), **names}


class Phi3(Llama):
    """Abdin et al. 2024 (arXiv 2404.14219): queries, keys and values in one projection, gate and up in another."""

    model_type = "phi3"
    architecture = "Phi3ForCausalLM"
    context = 4096
    eps = 1e-5
    fraction = 1.0
    attention_bias = mlp_bias = False

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        for name, harmless in (("lm_head_bias", False), ("full_attn_mod", 1), ("interpolate_factor", 1)):
            config.only(name, harmless)
        return {**super().attention(config, norm), "window": config.nullable("sliding_window", None)}

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        fields = {**super().config(spec), "sliding_window": option(spec.layer(0).attention, "window")}
        original = fields["rope_parameters"].get("original_max_position_embeddings")
        return fields if original is None else {**fields, "original_max_position_embeddings": original}

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        hidden = option(spec.feed_forward, "hidden_dim", spec.hidden_dim)
        fused = {
            f"{LAYER}.self_attn.qkv_proj.weight": ([f"{OURS}.attention.{n}.weight" for n in "qkv"], qkv_rows(spec)),
            f"{LAYER}.mlp.gate_up_proj.weight": ([f"{OURS}.feed_forward.{n}.weight" for n in ("gate", "up")], (hidden, hidden)),
        }
        cut = {name.removesuffix(".weight") for ours, _ in fused.values() for name in ours}
        alone = {ours: theirs for ours, theirs in self.modules(spec).items() if ours not in cut}
        return [INV_FREQ, *(Split(theirs, tuple(ours), sizes) for theirs, (ours, sizes) in fused.items()), *renames(alone)]
