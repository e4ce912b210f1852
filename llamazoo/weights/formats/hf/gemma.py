"""gemma, gemma2 and gemma3_text: norms that scale by 1 + w, scaled embeddings, caps on scores and logits, layers with windows."""

from typing import Any, ClassVar

from llamazoo.contract.component import Part
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config, activation_name
from llamazoo.weights.formats.hf.family import layers_of, option
from llamazoo.weights.formats.hf.layered import FULL, SLIDES, counted, types_of, windowed
from llamazoo.weights.formats.hf.llama import LAYER, OURS, Llama
from llamazoo.weights.formats.hf.rope import read_rotary, write_rotary

__all__ = ["Gemma", "Gemma2", "Gemma3"]

WINDOW = 4096  # where a config does not say


class Gemma(Llama):
    """Mesnard et al. 2024 (arXiv 2403.08295)."""

    model_type = "gemma"
    architecture = "GemmaForCausalLM"
    context = 8192
    head_dim = 256
    tied = True
    mlp_bias = False

    def spec(self, config: Config) -> dict[str, Any]:
        config.only("use_bidirectional_attention", False)
        return {**super().spec(config), "embedding": {"type": "table", "scale": "sqrt_dim"}}

    def norm(self, config: Config) -> dict[str, Any]:
        return {**super().norm(config), "unit_offset": True}

    def feed_forward(self, config: Config) -> dict[str, Any]:
        # The first configs have hidden_act "gelu" and mean the approximation; hidden_activation, where it is, says so.
        known = ["gelu_pytorch_tanh", "gelu_new"]
        for name, allowed in (("hidden_act", [*known, "gelu"]), ("hidden_activation", known)):
            config.only(name, *allowed)
        return {"type": "gated", "activation": {"type": "gelu", "approximate": "tanh"}}

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        fields = super().config(spec)
        act = activation_name(option(spec.layer(0).feed_forward, "activation"))
        return {**fields, "hidden_act": act, "hidden_activation": act}


class Gemma2(Gemma):
    """Riviere et al. 2024 (arXiv 2408.00118): norms before and after each sublayer, caps, a window in every other layer."""

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    every: ClassVar[int] = 2  # so many layers, and one has no window
    caps: ClassVar[tuple[float | None, float | None]] = (50.0, 30.0)  # of scores and of logits, where a config does not say

    def spec(self, config: Config) -> dict[str, Any]:
        cap = config.nullable("final_logit_softcapping", self.caps[1])
        data = super().spec(config)
        return {**data, "block": "sandwich", "head": {**data["head"], "softcap": cap}}

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        scalar, cap = config.take("query_pre_attn_scalar", default=256), self.cap(config)
        if isinstance(scalar, bool) or not isinstance(scalar, int | float) or not 0 < scalar < 2**40:
            raise config.wrong("query_pre_attn_scalar", f"expected a positive number, found {ascii(scalar)[:60]}")
        return {**super().attention(config, norm), "scale": scalar**-0.5, "softcap": cap}

    def cap(self, config: Config) -> Any:
        """The cap on scores."""
        return config.nullable("attn_logit_softcapping", self.caps[0])

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        window = config.nullable("sliding_window", WINDOW)
        config.only("sliding_window_size", window, told="is not sliding_window")
        return windowed(config, self.types(config, n_layers), window, parts)

    def types(self, config: Config, n_layers: int) -> list[Any]:
        """The type of each layer."""
        types = config.numbers("layer_types", n_layers)
        if types:
            config.ignore("sliding_window_pattern", "_sliding_window_pattern")  # which only say it shorter
            return types
        every = self.pattern(config)
        return [SLIDES if (number + 1) % every else FULL for number in counted(config, n_layers)]

    def pattern(self, config: Config) -> int:
        """Of how many layers one has no window, where they are not listed."""
        return self.every

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        types, window = types_of(spec)
        attention = spec.layer(0).attention
        return {
            **super().config(spec),
            "query_pre_attn_scalar": _scalar(option(attention, "scale", spec.site().head_dim ** -0.5)),
            "attn_logit_softcapping": option(attention, "softcap"),
            "final_logit_softcapping": option(spec.head, "softcap"),
            "sliding_window": WINDOW if window is None else window,  # asked for even where no layer slides
            "layer_types": types,
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        names = {
            f"{OURS}.attention_post_norm": f"{LAYER}.post_attention_layernorm",
            f"{OURS}.feed_forward_norm": f"{LAYER}.pre_feedforward_layernorm",
            f"{OURS}.feed_forward_post_norm": f"{LAYER}.post_feedforward_layernorm",
        }
        return {**super().modules(spec), **names}


def _scalar(scale: float) -> float:
    """The query_pre_attn_scalar that gives a scale."""
    whole = round(scale**-2)
    return whole if whole and whole**-0.5 == scale else scale**-2


class Gemma3(Gemma2):
    """Kamath et al. 2025 (arXiv 2503.19786): five layers with a window to one without, each sort with its own rotary base."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    context = 131072
    theta = 1000000.0
    every = 6
    caps = (None, None)
    local_theta: ClassVar[float] = 10000.0  # of the layers that have a window

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        return {**super().attention(config, norm), "qk_norm": norm}

    def cap(self, config: Config) -> Any:
        config.only("attn_logit_softcapping", None)  # transformers keeps the field, and caps nothing
        return None

    def pattern(self, config: Config) -> int:
        return int(config.number("sliding_window_pattern", default=self.every))

    def places(self, config: Config, context: int) -> tuple[dict[str, Any], int]:
        local = {"rope_theta": config.take("rope_local_base_freq", default=self.local_theta)}
        given = config.fields.get("rope_parameters")
        if isinstance(given, dict) and set(given) <= {FULL, SLIDES}:  # in the new spelling, one object for each type of layer
            config.fields["rope_parameters"] = given.get(FULL)
            local = {**local, **self._object(config, given.get(SLIDES) or {})}
        rotary = read_rotary(config, theta=self.theta, context=context)
        near = read_rotary(Config({"rope_parameters": local}, config.where), context=context)
        return {"positions": {"local": near.position, "global": rotary.position}}, rotary.max_seq_len

    def _object(self, config: Config, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise config.wrong(f"rope_parameters.{SLIDES}", f"expected an object, found {ascii(value)[:60]}")
        return value

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        types = self.types(config, n_layers)
        places = ["local" if kind == SLIDES else "global" for kind in types]
        return windowed(config, types, config.nullable("sliding_window", WINDOW), parts, places)

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        fields = super().config(spec)
        places: dict[str, Part] = {}
        for kind, layer in zip(types_of(spec)[0], layers_of(spec), strict=True):
            places.setdefault(kind, spec.places()[layer.position])
        told = {kind: write_rotary(place, spec.max_seq_len)[0] for kind, place in places.items()}
        if FULL in places:
            fields["max_position_embeddings"] = write_rotary(places[FULL], spec.max_seq_len)[1]
        for name in ("rope_theta", "rope_scaling"):
            fields.pop(name, None)
        if FULL in told:
            fields["rope_theta"] = told[FULL]["rope_theta"]
        if SLIDES in told:
            fields["rope_local_base_freq"] = told[SLIDES]["rope_theta"]
        return {**fields, "rope_parameters": told}
