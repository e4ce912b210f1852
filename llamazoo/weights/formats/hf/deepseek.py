"""deepseek_v2 and deepseek_v3: attention over latents, dense layers first, then routed and shared experts."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from llamazoo.contract.component import Part
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.formats.hf.family import layers_of, option, renames
from llamazoo.weights.formats.hf.layered import counted
from llamazoo.weights.formats.hf.llama import INV_FREQ, LAYER, OURS, Llama
from llamazoo.weights.formats.hf.mixture import dense_of, experts_of, how_many, is_mixture, sparse, stacks
from llamazoo.weights.rule import Drop, Rename, Rule

__all__ = ["DeepSeekV2", "DeepSeekV3"]

GATED = ("gate", "up", "down")
ATTENTION = {
    "q": "q_proj",
    "q_down": "q_a_proj",
    "q_norm": "q_a_layernorm",
    "q_up": "q_b_proj",
    "kv_down": "kv_a_proj_with_mqa",
    "kv_norm": "kv_a_layernorm",
    "kv_up": "kv_b_proj",
    "o": "o_proj",
}
# The balance of experts is a loss; the others say how the authors divided their training among devices.
IN_TRAINING = ("aux_loss_alpha", "seq_aux", "output_router_logits", "router_aux_loss_coef", "ep_size")


class DeepSeekV2(Llama):
    """DeepSeek-AI 2024 (arXiv 2405.04434): weights of experts that do not sum to 1, groups of which the best expert counts."""

    model_type = "deepseek_v2"
    architecture = "DeepseekV2ForCausalLM"
    layout = "interleaved"
    scoring: ClassVar[str] = "softmax"
    # What a config means that leaves a field out.
    count: ClassVar[int] = 64
    shared: ClassVar[int] = 2
    width: ClassVar[int] = 1407
    dense: ClassVar[int] = 0

    def spec(self, config: Config) -> dict[str, Any]:
        config.ignore(*IN_TRAINING)
        config.only("moe_layer_freq", 1)
        config.only("scoring_func", self.scoring)
        data = super().spec(config)
        width = data["attention"]["nope_dim"] + data["head_dim"]
        whole = config.number("qk_head_dim", default=width)  # transformers adds it up, and writes it
        if whole != width:
            raise config.wrong("qk_head_dim", f"{whole} is not qk_nope_head_dim and qk_rope_head_dim together, {width}")
        scale = _scale(width, data["position"].get("scaling") or {})
        data["attention"] = {**data["attention"], "scale": scale}
        dense = config.number("first_k_dense_replace", default=self.dense, least=0)
        if not dense:
            return data
        bias = data["feed_forward"]["shared"]["bias"]
        return sparse(data, [number < dense for number in counted(config, data["n_layers"])], bias=bias)

    def widths(self, config: Config) -> dict[str, Any]:
        heads, width = config.number("num_attention_heads"), config.number("qk_rope_head_dim", default=64)
        for name, only, told in (
            ("num_key_value_heads", heads, "latents are of all heads, so it can only be num_attention_heads"),
            ("head_dim", width, "a head's width here is that of its rotated part, so it can only be qk_rope_head_dim"),
        ):
            value = config.number(name, default=only)
            if value != only:
                raise config.wrong(name, f"{value} is not supported: {told}, {only}")
        return {
            "vocab_size": config.take("vocab_size"),
            "dim": config.take("hidden_size"),
            "hidden_dim": config.take("intermediate_size"),
            "n_heads": heads,
            "head_dim": width,
        }

    def attention(self, config: Config, norm: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "latent",
            "q_rank": config.nullable("q_lora_rank", 1536),
            "kv_rank": config.take("kv_lora_rank", default=512),
            "nope_dim": config.number("qk_nope_head_dim", default=128),
            "v_dim": config.take("v_head_dim", default=128),
            "bias": config.flag("attention_bias", False),
        }

    def feed_forward(self, config: Config) -> dict[str, Any]:
        act, width = config.activation("hidden_act", default="silu"), config.number("moe_intermediate_size", default=self.width)
        return {
            "type": "experts",
            "n_experts": how_many(config, "n_routed_experts", "num_local_experts", "num_experts", default=self.count),
            "top_k": self.chosen(config),
            "hidden_dim": width,
            "router": self.router(config),
            "shared": {
                "type": "gated",
                "hidden_dim": config.number("n_shared_experts", default=self.shared) * width,
                "activation": act,
                "bias": config.flag("mlp_bias", False) if self.mlp_bias else False,
            },
            "activation": act,
        }

    def chosen(self, config: Config) -> Any:
        """How many experts a token is sent to."""
        return config.take("num_experts_per_tok")

    def router(self, config: Config) -> dict[str, Any]:
        # The authors' code divides the chosen weights by their sum, that of transformers does not; no published model asks for it.
        config.only("norm_topk_prob", False)
        scale, method = config.take("routed_scaling_factor", default=1.0), config.take("topk_method", default="greedy")
        groups, top = config.take("n_group", default=None), config.take("topk_group", default=None)
        if method == "greedy":
            return {"type": "topk", "normalize": False, "scale": scale}
        if method != "group_limited_greedy":
            raise config.wrong("topk_method", f"{ascii(method)[:60]} is not supported; supported: greedy, group_limited_greedy")
        if groups is None or top is None:
            raise config.wrong("n_group and topk_group", "are required with the topk_method group_limited_greedy")
        groups = {"n_groups": groups, "top_groups": top, "group_score": "max"}
        return {"type": "grouped", "scoring": "softmax", **groups, "correction": False, "normalize": False, "scale": scale}

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        attention, experts, dense = spec.layer(0).attention, experts_of(spec), dense_of(spec)
        shared = option(experts, "shared")
        width = option(experts, "hidden_dim", spec.hidden_dim or 4 * spec.dim)
        mixtures = [is_mixture(layer.feed_forward) for layer in layers_of(spec)]
        fields = {
            **super().config(spec),
            "intermediate_size": option(dense, "hidden_dim", spec.hidden_dim or width),
            "attention_bias": option(attention, "bias", False),
            "q_lora_rank": option(attention, "q_rank"),
            "kv_lora_rank": option(attention, "kv_rank", 512),
            "qk_nope_head_dim": option(attention, "nope_dim", 128),
            "qk_rope_head_dim": spec.site().head_dim,
            "v_head_dim": option(attention, "v_dim", 128),
            "first_k_dense_replace": mixtures.index(True) if True in mixtures else spec.n_layers,
            "n_routed_experts": option(experts, "n_experts", self.count),
            "num_experts_per_tok": option(experts, "top_k", 1),
            "moe_intermediate_size": width,
            "n_shared_experts": option(shared, "hidden_dim", spec.hidden_dim or width) // width or 1,
            **self.routing(option(experts, "router")),
        }
        return {**fields, "mlp_bias": option(shared, "bias", False)} if self.mlp_bias else fields

    def routing(self, router: Part | None) -> dict[str, Any]:
        """The fields nearest to a router."""
        fields = {"norm_topk_prob": False, "routed_scaling_factor": option(router, "scale", 1.0), "topk_method": "greedy"}
        groups = option(router, "n_groups")
        if groups is None:
            return {**fields, "n_group": 1, "topk_group": 1}
        return {**fields, "topk_method": "group_limited_greedy", "n_group": groups, "topk_group": option(router, "top_groups", 1)}

    def modules(self, spec: ArchitectureSpec) -> dict[str, str]:
        ours = f"{OURS}.attention."
        return {
            **{name: theirs for name, theirs in super().modules(spec).items() if not name.startswith(ours)},
            **{f"{ours}{name}": f"{LAYER}.self_attn.{theirs}" for name, theirs in ATTENTION.items()},
            **{f"{OURS}.feed_forward.shared.{name}": f"{LAYER}.mlp.shared_experts.{name}_proj" for name in GATED},
            f"{OURS}.feed_forward.router": f"{LAYER}.mlp.gate",
        }

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        made = stacks(spec, f"{LAYER}.mlp.experts", {name: f"{name}_proj" for name in GATED})
        return [INV_FREQ, *made, *renames(self.modules(spec))]


class DeepSeekV3(DeepSeekV2):
    """DeepSeek-AI 2024 (arXiv 2412.19437): experts scored one by one, corrected for an even load; groups by their best two."""

    model_type = "deepseek_v3"
    architecture = "DeepseekV3ForCausalLM"
    mlp_bias = False
    context = 4096
    scoring = "sigmoid"
    count, shared, width, dense = 256, 1, 2048, 3

    def spec(self, config: Config) -> dict[str, Any]:
        config.only("rope_interleave", True)
        # One layer more in a checkpoint, to predict the token after the next: what `rules` drops.
        config.only("num_nextn_predict_layers", 1, 0)
        config.only("num_mtp_layers", 1, 0)
        return super().spec(config)

    def chosen(self, config: Config) -> Any:
        return config.take("num_experts_per_tok", default=8)

    def router(self, config: Config) -> dict[str, Any]:
        config.only("topk_method", "noaux_tc")
        return {
            "type": "grouped",
            "n_groups": config.take("n_group", default=8),
            "top_groups": config.take("topk_group", default=4),
            "normalize": config.flag("norm_topk_prob", True),
            "scale": config.take("routed_scaling_factor", default=2.5),
        }

    def config(self, spec: ArchitectureSpec) -> dict[str, Any]:
        return {**super().config(spec), "rope_interleave": True, "num_nextn_predict_layers": 0}

    def routing(self, router: Part | None) -> dict[str, Any]:
        return {
            "scoring_func": self.scoring,
            "topk_method": "noaux_tc",
            "n_group": option(router, "n_groups", 1),
            "topk_group": option(router, "top_groups", 1),
            "norm_topk_prob": option(router, "normalize", True),
            "routed_scaling_factor": option(router, "scale", 2.5),
        }

    def rules(self, spec: ArchitectureSpec) -> list[Rule]:
        further = Drop(f"model.layers.{spec.n_layers}.**", "multi-token prediction, which is not computed")
        correction = Rename(f"{LAYER}.mlp.gate.e_score_correction_bias", f"{OURS}.feed_forward.router.correction")
        return [further, correction, *super().rules(spec)]


def _scale(width: int, scaling: Mapping[str, Any]) -> float | None:
    """What scores are multiplied by where YaRN has an mscale_all_dim: (1 + 0.1 mscale_all_dim ln factor)^2 / sqrt(width)."""
    by, factor = scaling.get("mscale_all_dim"), scaling.get("factor")
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (by, factor))
    if not numbers or not by:
        return None  # or something that the spec refuses
    assert isinstance(factor, int | float)
    softened = 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0
    return float(width**-0.5 * softened * softened)
