"""mixtral, qwen3_moe and gpt_oss: feed-forwards that are mixtures of experts, in tensors of single experts or of all."""

from collections.abc import Mapping, Sequence
from typing import Any

from llamazoo.contract.component import Part
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.formats.hf.family import option, renames
from llamazoo.weights.formats.hf.layered import FULL, SLIDES, counted, layered, types_of, windowed
from llamazoo.weights.formats.hf.llama import INV_FREQ, LAYER, OURS, Llama, Mistral, Qwen3
from llamazoo.weights.rule import Interleave, Rename, Rule, Stack, Transpose

__all__ = ["GptOss", "Mixtral", "Qwen3Moe", "dense_of", "experts_of", "how_many", "is_mixture", "sparse", "stacks"]

MOST_EXPERTS = 1 << 16  # each has a name in a rule
# The balance of experts is a loss, and jitter acts in training.
IN_TRAINING = ("router_aux_loss_coef", "output_router_logits", "router_jitter_noise")

UNSAID_ROPE = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}  # of gpt_oss


class Mixtral(Mistral):
    """Jiang et al. 2024 (arXiv 2401.04088)."""

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    theta = 1000000.0
    eps = 1e-5
    window = None

    def feed_forward(self, config: Config) -> dict[str, Any]:
        config.ignore(*IN_TRAINING)
        return {
            "type": "experts",
            "n_experts": how_many(config, "num_local_experts", "num_experts", default=8),
            "top_k": config.take("num_experts_per_tok", default=2),
            "activation": config.activation("hidden_act", default="silu"),
        }

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        experts = spec.layer(0).feed_forward
        chosen = {"num_local_experts": option(experts, "n_experts", 8), "num_experts_per_tok": option(experts, "top_k", 2)}
        return {**super().config(spec), **chosen}

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        names = {f"{OURS}.feed_forward.router": f"{LAYER}.block_sparse_moe.gate"}
        return {**_without_feed_forward(super().modules(spec)), **names}

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        made = stacks(spec, f"{LAYER}.block_sparse_moe.experts", {"gate": "w1", "up": "w3", "down": "w2"})
        return [INV_FREQ, *made, *renames(self.modules(spec))]


class Qwen3Moe(Qwen3):
    """Yang et al. 2025 (arXiv 2505.09388): experts of a width of their own, and dense layers between them, if a config says so."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"
    kv_heads = 4
    head_dim = None

    def spec(self, config: Config) -> dict[str, Any]:
        data = super().spec(config)
        step, given = config.number("decoder_sparse_step", default=1), config.take("mlp_only_layers", default=[])
        if not isinstance(given, list) or any(type(each) is not int or not 0 <= each < data["n_layers"] for each in given):
            raise config.wrong("mlp_only_layers", f"expected layers from 0 to {data['n_layers'] - 1}, found {ascii(given)[:60]}")
        if step == 1 and not given:
            return data
        alone = set(given)
        return sparse(data, [number in alone or (number + 1) % step != 0 for number in counted(config, data["n_layers"])])

    def feed_forward(self, config: Config) -> dict[str, Any]:
        config.ignore(*IN_TRAINING)
        return {
            "type": "experts",
            "n_experts": how_many(config, "num_experts", "num_local_experts", default=128),
            "top_k": config.take("num_experts_per_tok", default=8),
            "hidden_dim": config.take("moe_intermediate_size", default=768),
            "router": {"type": "topk", "normalize": config.flag("norm_topk_prob", False)},
            "activation": config.activation("hidden_act", default="silu"),
        }

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        window = self.window(config)
        if window is None:
            config.ignore("max_window_layers")
            return parts
        # Unlike qwen3, transformers gives the window to every layer here, and does not look at this field.
        config.only("max_window_layers", 0, told="is not supported with use_sliding_window: every layer of this model type has the window")
        return {**parts, "attention": {**parts["attention"], "window": window}}

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        experts, dense = experts_of(spec), dense_of(spec)
        fields = super().config(spec)
        fields.pop("max_window_layers", None)
        fields.pop("layer_types", None)
        width = option(experts, "hidden_dim", spec.hidden_dim or 4 * spec.dim)
        return {
            **fields,
            "intermediate_size": option(dense, "hidden_dim", spec.hidden_dim or width),
            "moe_intermediate_size": width,
            "num_experts": option(experts, "n_experts", 128),
            "num_experts_per_tok": option(experts, "top_k", 8),
            "norm_topk_prob": option(option(experts, "router"), "normalize", False),
            "decoder_sparse_step": 1,
            "mlp_only_layers": [] if dense is None else [n for n in range(spec.n_layers) if not is_mixture(spec.layer(n).feed_forward)],
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        return {**super().modules(spec), f"{OURS}.feed_forward.router": f"{LAYER}.mlp.gate"}

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        made = stacks(spec, f"{LAYER}.mlp.experts", {n: f"{n}_proj" for n in ("gate", "up", "down")})
        return [INV_FREQ, *made, *renames(self.modules(spec))]


class GptOss(Llama):
    """OpenAI 2025 (arXiv 2508.10925): sinks, a window in every other layer, biases everywhere, a clamped gate."""

    model_type = "gpt_oss"
    architecture = "GptOssForCausalLM"
    theta = 150000.0
    context = 131072
    eps = 1e-5
    kv_heads = 8
    head_dim = 64
    mlp_bias = False

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        bias = config.flag("attention_bias", True)
        return {"type": "multihead", "qkv_bias": bias, "out_bias": bias, "sinks": True}

    def places(self, config: Config, context: int) -> tuple[dict[str, Any], int]:
        if config.fields.get("rope_parameters") is None and config.fields.get("rope_scaling") is None:
            config.fields["rope_parameters"] = UNSAID_ROPE
        start = config.number("initial_context_length", default=None)  # what the authors' own code calls the original context
        places, context = super().places(config, context)
        original = (places["position"].get("scaling") or {}).get("original", start)
        if start not in (None, original):
            raise config.wrong("initial_context_length", f"is {start}, and original_max_position_embeddings {ascii(original)[:60]}")
        return places, context

    def feed_forward(self, config: Config) -> dict[str, Any]:
        config.ignore(*IN_TRAINING)
        config.only("hidden_act", "silu")
        return {
            "type": "experts",
            "n_experts": how_many(config, "num_local_experts", "num_experts", default=128),
            "top_k": config.take("num_experts_per_tok", "experts_per_token", default=4),
            "router": {"type": "topk", "bias": True},
            "activation": {"type": "swish", "beta": config.take("swiglu_alpha", default=1.702)},
            "limit": config.take("swiglu_limit", default=7.0),
            "up_offset": 1.0,
            "bias": True,
        }

    def layers(self, config: Config, n_layers: int, parts: dict[str, Any]) -> dict[str, Any]:
        types = config.numbers("layer_types", n_layers) or [FULL if number % 2 else SLIDES for number in counted(config, n_layers)]
        return windowed(config, types, config.nullable("sliding_window", 128), parts)

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        experts, (types, window) = spec.layer(0).feed_forward, types_of(spec)
        return {
            **super().config(spec),
            "hidden_act": "silu",
            "num_local_experts": option(experts, "n_experts", 128),
            "num_experts_per_tok": option(experts, "top_k", 4),
            "swiglu_alpha": option(option(experts, "activation"), "beta", 1.702),
            "swiglu_limit": option(experts, "limit", 7.0),
            "sliding_window": window or 128,  # transformers wants one, even if no layer has it
            "layer_types": types,
        }

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        names = {f"{OURS}.feed_forward.router": f"{LAYER}.mlp.router"}
        return {**_without_feed_forward(super().modules(spec)), **names}

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        theirs, ours = f"{LAYER}.mlp.experts", f"{OURS}.feed_forward"
        return [
            INV_FREQ,
            Interleave(f"{theirs}.gate_up_proj", (f"{ours}.gate", f"{ours}.up"), transposed=True),
            Interleave(f"{theirs}.gate_up_proj_bias", (f"{ours}.gate_bias", f"{ours}.up_bias")),
            Transpose(f"{theirs}.down_proj", f"{ours}.down"),
            Rename(f"{theirs}.down_proj_bias", f"{ours}.down_bias"),
            Rename(f"{LAYER}.self_attn.sinks", f"{OURS}.attention.sinks"),
            *renames(self.modules(spec)),
        ]


def how_many(config: Config, *names: str, default: int) -> int:
    """How many experts there are: few enough that each can be named."""
    count = config.number(*names, default=default)
    if count > MOST_EXPERTS:
        raise config.wrong(names[0], f"{count} experts are too many; at most {MOST_EXPERTS} are supported")
    return int(count)


def sparse(data: Mapping[str, Any], dense: Sequence[bool], **options: Any) -> dict[str, Any]:
    """A spec's data, where the layers that are `dense` have one feed-forward of the spec's own width, with these options."""
    experts = data["feed_forward"]
    gated = {"type": "gated", "activation": experts["activation"], **options}
    return {**data, **layered([{"feed_forward": gated if each else experts} for each in dense])}


def is_mixture(part: Part) -> bool:
    """Whether a feed-forward says how many experts it has."""
    return option(part, "n_experts") is not None


def experts_of(spec: ArchitectureSpec) -> Part | None:
    """The first feed-forward of a spec that is a mixture, if there is one."""
    return next((part for part in _feed_forwards(spec) if is_mixture(part)), None)


def dense_of(spec: ArchitectureSpec) -> Part | None:
    """The first that is none."""
    return next((part for part in _feed_forwards(spec) if not is_mixture(part)), None)


def _feed_forwards(spec: ArchitectureSpec) -> list[Part]:
    return [spec.layer(number).feed_forward for number, _ in spec.sorts()]


def stacks(spec: ArchitectureSpec, prefix: str, names: Mapping[str, str]) -> list[Rule]:
    """Rules for the matrices of all experts, theirs by ours; none where the spec has no experts."""
    count = option(experts_of(spec), "n_experts", 0)
    return [
        Stack(tuple(f"{prefix}.{number}.{theirs}.weight" for number in range(count)), f"{OURS}.feed_forward.{ours}")
        for ours, theirs in names.items()
        if count
    ]


def _without_feed_forward(modules: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in modules.items() if not ours.startswith(f"{OURS}.feed_forward.")}
