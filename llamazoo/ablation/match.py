"""Variants of the base's size: the width of a variant's feed-forwards is solved for, so that it gains nothing by being larger."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from itertools import count
from typing import Any, Literal

from llamazoo.ablation.results import Matched
from llamazoo.contract.component import Part, nested_parts
from llamazoo.cost import describe
from llamazoo.errors import Problem, SpecError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import load_spec

__all__ = ["TOLERANCE", "Measure", "match", "size_of"]

Measure = Literal["parameters", "flops", "none"]
Path = tuple[str | int, ...]

TOLERANCE = 0.005  # of the base's size
STEPS = (64, 32, 16, 8, 4, 2, 1)  # widths that processors like come first
WIDEST = 1 << 30  # a wider feed-forward is not looked for
WIDTH = "hidden_dim"
USUAL = 4  # where no width is given at all: so many times the model's. Vaswani et al. 2017, section 3.3


def match(
    base: ArchitectureSpec, variant: ArchitectureSpec, what: Measure = "parameters", seq_len: int | None = None
) -> tuple[ArchitectureSpec, Matched]:
    """The variant with feed-forwards of such a width that its size is within 0.5 % of the base's, and how that was done.

    Sizes are trainable parameters, all experts counted, without those that only texts longer than `seq_len` would use: they would get no
    gradient. Or they are operations for one token at `seq_len` tokens (unless given, at the whole context), of experts only the chosen
    ones: forward, as `describe` counts them, of which a training step takes three times as many.
    A variant that is near enough already stays as it is. The width is the spec's `hidden_dim`, or what its feed-forwards have set for
    themselves, all of those in proportion. Raises SpecError where no width will do, with both sizes and the reason.
    """
    target, found = (size_of(spec, what, seq_len) for spec in (base, variant))
    if what == "none" or _near(found, target):
        beyond = _beyond(variant, what, seq_len)
        return variant, Matched(what=what, target=target, found=found, off=_off(found, target), beyond=beyond)
    told = _Told(what, seq_len, target)
    widths = _Widths.of(variant, lambda spec: size_of(spec, what, seq_len))
    if widths is None:
        raise told.refusal(found, f"and nothing in it follows {WIDTH}, which could make up for that")
    low, high = widths.around(target)
    for step in STEPS:
        steps = {n for n in (low // step * step, (low // step + 1) * step) if n >= 1}
        built = {n: spec for n in sorted(steps) if (spec := widths.built(n)) is not None}
        sizes = {n: widths.size(spec) for n, spec in built.items()}
        best = min(sizes, key=lambda n: abs(sizes[n] - target), default=None)
        if best is not None and _near(sizes[best], target):
            off, beyond = _off(sizes[best], target), _beyond(built[best], what, seq_len)
            size = {"target": target, "found": sizes[best], "beyond": beyond}
            return built[best], Matched(what=what, field=widths.field, value=best, off=off, **size)
    if low == high == 1:
        raise told.refusal(found, f"and with {widths.field} 1, the smallest, still {told(widths.sized(1))}")
    near = min((low, high), key=lambda n: abs(widths.sized(n) - target))
    raise told.refusal(found, f"and comes no nearer than {told(widths.sized(near))}, with {widths.field} {near}")


def size_of(spec: ArchitectureSpec, what: Measure, seq_len: int | None = None) -> int:
    """Trainable parameters that texts of `seq_len` tokens use (for `none` too), or operations for one token at that length, forward."""
    if what != "flops":
        counted = describe(spec, length=seq_len)
        return counted.parameters - counted.beyond_parameters
    here = seq_len is None or seq_len == spec.max_seq_len
    return describe(spec if here else load_spec(spec, {"max_seq_len": seq_len}, registry=spec.registry)).flops_per_token


def _beyond(spec: ArchitectureSpec, what: Measure, seq_len: int | None) -> int:
    """Parameters beside those that `size_of` counts; among operations there are none."""
    return 0 if what == "flops" else describe(spec, length=seq_len).beyond_parameters


def _off(found: int, target: int) -> float:
    return (found - target) / target if target else float(found != target)


def _near(found: int, target: int) -> bool:
    return abs(_off(found, target)) <= TOLERANCE


class _Told:
    """Sizes, and refusals, in words."""

    def __init__(self, what: Measure, seq_len: int | None, target: int) -> None:
        self.unit = "parameters" if what == "parameters" else f"FLOPs a token{f' at {seq_len} tokens' if seq_len else ''}"
        self.target = target

    def __call__(self, found: int) -> str:
        share = _off(found, self.target)
        return f"{found:,} ({abs(share):.1%} {'more' if share > 0 else 'fewer'})"

    def refusal(self, found: int, reason: str) -> SpecError:
        sizes = f"the base has {self.target:,} {self.unit}, this {self(found)}, {reason}"
        would = f"which is not within {TOLERANCE:.1%}; change widths of the variant's other parts, use another base, or `match: none`"
        return SpecError(Problem(("match",), f"{sizes}, {would}"))


class _Widths:
    """The widths of a spec's feed-forwards, as one number: the first that matters, with which all later ones go in proportion."""

    def __init__(self, spec: ArchitectureSpec, widths: Mapping[Path, int], size: Callable[[ArchitectureSpec], int]) -> None:
        self.spec = spec
        self.widths = widths
        self.size = size
        self.lead, self.start = next(iter(widths.items()))
        self.sizes: dict[int, int] = {}

    @classmethod
    def of(cls, spec: ArchitectureSpec, size: Callable[[ArchitectureSpec], int]) -> "_Widths | None":
        """None if nothing follows any of them."""
        found = list(_widths(spec))
        for i, (path, width) in enumerate(found):
            alone = cls(spec, {path: width}, size)
            if alone.sized(2 * width) != alone.sized(width):
                return cls(spec, dict(found[i:]), size)
        return None

    @property
    def field(self) -> str:
        return ".".join(map(str, self.lead))

    def built(self, width: int) -> ArchitectureSpec | None:
        """The spec with this width, or None if a part refuses it."""
        try:
            return self._with(width)
        except SpecError:
            return None

    def sized(self, width: int) -> int:
        """The size with this width, or with the next wider one that no part refuses."""
        if width not in self.sizes:
            near = (-(-width // step) * step for step in reversed(STEPS))
            spec = next((spec for n in near if (spec := self.built(n)) is not None), None)
            self.sizes[width] = self.size(self._with(width) if spec is None else spec)
        return self.sizes[width]

    def around(self, target: int) -> tuple[int, int]:
        """Two neighbours between whose sizes the target lies; twice the same where it lies beyond what a width can do.

        Sizes grow with the width, in most parts along a line, on which the first guess is right.
        """
        low, high = 1, 2 * self.start
        if self.sized(low) > target:
            return low, low
        while self.sized(high) <= target:
            low, high = high, 2 * high
            if high > WIDEST:
                return low, low
        for tries in count(1):
            if high - low == 1:
                break
            below, above = self.sized(low), self.sized(high)
            along = low + (target - below) * (high - low) // (above - below)
            middle = (low + high) // 2 if tries % 4 == 0 else min(max(along, low + 1), high - 1)
            low, high = (middle, high) if self.sized(middle) <= target else (low, middle)
        return low, high

    def _with(self, width: int) -> ArchitectureSpec:
        overrides: dict[str, Any] = {}
        if any(path[0] == "layers" for path in self.widths):
            overrides["layers"] = deepcopy(self.spec.canonical()["layers"])  # a list is replaced as a whole
        for path, own in self.widths.items():
            within: Any = overrides
            for name in path[:-1]:
                within = within[name] if isinstance(name, int) else within.setdefault(name, {})
            within[path[-1]] = max(1, (2 * own * width + self.start) // (2 * self.start))  # rounded
        return load_spec(self.spec, overrides, registry=self.spec.registry)


def _widths(spec: ArchitectureSpec) -> Iterator[tuple[Path, int]]:
    """Where a spec says how wide its feed-forwards are: for all, in a part, in a change to some layers."""
    yield (WIDTH,), spec.hidden_dim or USUAL * spec.dim
    whole = spec.canonical()
    yield from _said(whole, (("feed_forward", *path) for path in _own(spec.feed_forward)))
    for i, patch in enumerate(spec.layers):
        if patch.feed_forward is not None:
            part = spec.layer(patch.layers(spec.n_layers)[0]).feed_forward
            yield from _said(whole, (("layers", i, "feed_forward", *path) for path in _own(part)))


def _own(part: Part) -> Iterator[Path]:
    """Where, within a feed-forward, options stand that may hold a width; those of feed-forwards inside it too."""
    if WIDTH in type(part.options).model_fields:
        yield (WIDTH,)
    for field, inner in nested_parts(part.options):
        if inner.kind == part.kind and getattr(part.options, field) is inner:  # one of several has no path
            yield from ((field, *path) for path in _own(inner))


def _said(data: Any, paths: Iterator[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        found = data
        for name in path:
            if isinstance(name, int):
                found = found[name]
            else:
                found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, int):
            yield path, found
