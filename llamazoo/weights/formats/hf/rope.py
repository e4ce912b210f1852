"""Rotary positions in config.json, in the old spelling (rope_theta, rope_scaling) and the new one (rope_parameters)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from llamazoo.contract.component import Part
from llamazoo.weights.formats.hf.config import Config

__all__ = ["Rotary", "read_rotary", "rotary_fields", "write_rotary"]

# rope_type -> {their field: ours}
ORIGINAL = {"original_max_position_embeddings": "original"}
FIELDS: dict[str, dict[str, str]] = {
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "llama3": {**{name: name for name in ("factor", "low_freq_factor", "high_freq_factor")}, **ORIGINAL},
    "yarn": {
        **{name: name for name in ("factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim", "attention_factor")},
        **ORIGINAL,
    },
    "longrope": {**{name: name for name in ("factor", "short_factor", "long_factor", "attention_factor")}, **ORIGINAL},
}
OLD_NAMES = {"su": "longrope"}
STRETCHES = ("dynamic", "yarn")  # whose context grows with the factor, whatever max_position_embeddings says


class Rotary(NamedTuple):
    """A rotary position, as data of a spec, and the context for which it is made."""

    position: dict[str, Any]
    max_seq_len: int


def read_rotary(config: Config, *, theta: float = 10000.0, context: int, fraction: float | None = None) -> Rotary:
    """The position that a config describes; `theta` is the family's own default, `context` its maximum.

    `fraction` is the family's default share of a head that rotates; None: it rotates whole heads, and a config cannot say
    otherwise. Raises WeightsError naming a rope_type, or a field of one, that is not known.
    """
    outer = {"rope_theta": config.take("rope_theta", "rotary_emb_base", default=None)}
    outer["partial_rotary_factor"] = config.take("partial_rotary_factor", "rotary_pct", default=None)
    outer["original_max_position_embeddings"] = config.number("original_max_position_embeddings", default=None)
    given = [within for name in ("rope_parameters", "rope_scaling") if (within := config.within(name)) is not None]
    if len(given) == 2 and given[0].fields != given[1].fields:
        raise config.wrong("rope_parameters and rope_scaling", "are the same field, and differ")
    return _read(given[0] if given else Config({}, config.where), outer, theta, context, fraction)


def _read(given: Config, outer: Mapping[str, Any], theta: float, context: int, fraction: float | None) -> Rotary:
    kind = given.take("rope_type", "type", default="default")
    kind = OLD_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or (kind != "default" and kind not in FIELDS):
        raise given.wrong("rope_type", f"{ascii(kind)[:60]} is not supported; supported: default, {', '.join(FIELDS)}")
    original = outer["original_max_position_embeddings"]
    if original is not None and "original_max_position_embeddings" in FIELDS.get(kind, ()):
        given.fields["original_max_position_embeddings"] = original  # where both are, this one counts
    position: dict[str, Any] = {"type": "rope", "theta": _agreed(given, outer, "rope_theta", theta)}
    share = _agreed(given, outer, "partial_rotary_factor", fraction)
    if fraction is not None:
        position["fraction"] = share
    elif share not in (None, 1, 1.0):
        raise given.wrong("partial_rotary_factor", f"{ascii(share)[:60]} is not supported for this model type, which rotates whole heads")
    if kind == "default":
        given.ignore("factor", "original_max_position_embeddings")  # left over from another type, and not read by it
        given.done("the default rope_type")
        return Rotary(position, context)
    scaling: dict[str, Any] = {"type": kind}
    for name, ours in FIELDS[kind].items():
        value = given.take(name, default=None)
        if value is not None and not (value == 0 and name.startswith("mscale")):  # where nought means that there is none
            scaling[ours] = value
    given.done(f"the rope_type {kind}")
    if kind != "linear":
        scaling.setdefault("original", context)
    factor, start = scaling.get("factor"), scaling.get("original")
    if kind in STRETCHES and isinstance(factor, int | float) and type(start) is int and 1 <= factor < 2**20 and start < 2**40:
        context = max(context, int(start * factor))
    return Rotary({**position, "scaling": scaling}, context)


def _agreed(given: Config, outer: Mapping[str, Any], name: str, default: Any) -> Any:
    """A field that may stand within the object, or beside it; if in both places, then alike."""
    inner = given.take(name, default=None)
    if inner is not None and outer[name] is not None and inner != outer[name]:
        raise given.wrong(name, f"is {inner!r}, and {outer[name]!r} outside")
    return next((value for value in (inner, outer[name]) if value is not None), default)


def write_rotary(part: Part, context: int) -> tuple[dict[str, Any], int]:
    """The rope_parameters nearest to a position, and the max_position_embeddings that go with them."""
    options = part.options
    told: dict[str, Any] = {"rope_type": "default", "rope_theta": getattr(options, "theta", 10000.0)}
    if getattr(options, "fraction", 1.0) != 1.0:
        told["partial_rotary_factor"] = options.fraction  # type: ignore[attr-defined]
    scaling = getattr(options, "scaling", None)
    if scaling is None:
        return told, context
    told["rope_type"] = scaling.type
    for name, ours in FIELDS[scaling.type].items():
        if getattr(scaling, ours) is not None:
            told[name] = getattr(scaling, ours)
    return told, scaling.original if scaling.type == "dynamic" else context


def rotary_fields(part: Part, context: int) -> dict[str, Any]:
    """The fields of a config that say the same; a scaling stands under its old name too, for who does not know the new one."""
    told, context = write_rotary(part, context)
    fields = {"max_position_embeddings": context, "rope_theta": told["rope_theta"], "rope_parameters": told}
    return fields if told["rope_type"] == "default" else {**fields, "rope_scaling": told}
