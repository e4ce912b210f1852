"""Builds a tiny model around a component and tries whether it keeps the contract, in float64, where rounding hides nothing.

b batch, t tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llamazoo.build import build_model, reset
from llamazoo.contract.component import Component
from llamazoo.contract.kinds import Attention
from llamazoo.decoder import Decoder
from llamazoo.decoder_state import DecoderState
from llamazoo.errors import CannotRewind, ConformanceError, LlamazooError
from llamazoo.registry import Registry, default_registry
from llamazoo.spec.architecture import ArchitectureSpec, merge
from llamazoo.spec.compose import load_spec

__all__ = ["BASE", "CHECKS", "Failure", "Subject", "check_component", "failures", "subject"]

TOLERANCE = 1e-9  # for float64: a hundred thousand times its rounding, far below any real mistake
TOKENS = 24

# A LLaMA as small as its parts allow, with two layers, so that one feeds another; grouped heads; an odd vocabulary.
BASE: dict[str, Any] = {
    "vocab_size": 37,
    "dim": 24,
    "hidden_dim": 20,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 8,
    "max_seq_len": 64,
    "init": {"std": 0.3},
    "norm": "rmsnorm",
    "position": "rope",
    "attention": "multihead",
    "feed_forward": "swiglu",
}


@dataclass(frozen=True)
class Subject:
    """A spec in which the component under test stands, and what to call it."""

    name: str
    spec: ArchitectureSpec
    registry: Registry

    def model(self) -> Decoder:
        return build_model(self.spec, dtype=torch.float64, device="cpu", registry=self.registry).eval()

    def tokens(self, batch: int = 2, length: int = TOKENS) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, self.spec.vocab_size, (batch, length), generator=generator)


@dataclass(frozen=True)
class Failure:
    """One check that did not hold: what was done, what was expected, and how far off it was."""

    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.check}: {self.message}"


Check = Callable[[Subject], Iterator[str]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def check_component(
    component: type[Component], options: Mapping[str, Any] | None = None, *, around: Mapping[str, Any] | None = None
) -> None:
    """Put a component through every check; ConformanceError lists those that it fails.

    `options` are its own; `around` changes the tiny spec that it stands in, as an override would.
    """
    found = failures(subject(component, options, around=around))
    if found:
        raise ConformanceError(f"{component.kind} {component.name!r} breaks the contract:\n" + "\n".join(f"  {f}" for f in found))


def failures(of: Subject) -> list[Failure]:
    """Every check that does not hold, each in words."""
    found = []
    for name, function in CHECKS.items():
        try:
            found += [Failure(name, message) for message in function(of)]
        except LlamazooError as error:
            found.append(Failure(name, f"could not be tried: {error}"))
    return found


def subject(component: type[Component], options: Mapping[str, Any] | None = None, *, around: Mapping[str, Any] | None = None) -> Subject:
    """The tiny spec with the component in its place."""
    registry = default_registry()
    name = component.name
    if not any(offer.component is component for offer in registry.offers(component.kind)):
        registry = registry.extended(component, distribution="under-test")
        name = f"under-test/{component.name}"
    part = {"type": name, **(options or {})}
    data = merge(BASE, {**_place(component, part), **(around or {})})
    return Subject(f"{component.kind} {component.name}", load_spec(data, registry=registry), registry)


def _place(component: type[Component], part: dict[str, Any]) -> dict[str, Any]:
    """The change to a spec that puts a part of this kind into it."""
    kind = component.kind
    if kind == "activation":
        return {"feed_forward": {"type": "mlp", "activation": part}}
    if kind == "kernel":
        return {"attention": {"type": "multihead", "kernel": part}}
    if issubclass(component, Attention) and "rotate" not in component.honours:
        return {"attention": part, "position": "none"}
    if kind in ("norm", "feed_forward", "position", "attention", "block", "embedding", "head"):
        return {kind: part}
    raise ConformanceError(f"llamazoo.testing does not know where a component of the kind {kind!r} stands")


@check
def meta_build(of: Subject) -> Iterator[str]:
    """A model made on the meta device and filled later equals one made directly."""
    with torch.device("cpu"):
        direct = Decoder(of.spec).to(torch.float64)
    reset(direct)
    later = of.model()
    mine, theirs = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (direct, later))
    for name, value in mine.items():
        if name not in theirs or not torch.equal(value, theirs[name]):
            yield f"{name} differs between a direct build and one by way of meta; fill it in reset() or compute(), not in __init__"
    yield from _compare("the logits of a direct build", direct.eval()(of.tokens()), later(of.tokens()), "the same by way of meta")


@check
def causality(of: Subject) -> Iterator[str]:
    """What comes later changes nothing that came before."""
    model, tokens = of.model(), of.tokens()
    before = model(tokens)
    for cut in (1, TOKENS // 2, TOKENS - 1):
        other = tokens.clone()
        other[:, cut:] = (other[:, cut:] + 1) % of.spec.vocab_size
        what = f"the logits of the first {cut} tokens, after all later tokens were changed"
        yield from _compare(what, model(other)[:, :cut], before[:, :cut], "unchanged")


@check
def cached(of: Subject) -> Iterator[str]:
    """Any way to cut a text into calls on a state gives what one call gives."""
    model, tokens = of.model(), of.tokens()
    whole = model(tokens)
    for cuts in ((TOKENS,), (1,) * TOKENS, (5, 1, 1, 7, 1, 9), (1, 11, 12)):
        for chunk in (3, 64):
            state = model.new_state(len(tokens), TOKENS + 3, chunk=chunk)
            pieces = [model(piece, state=state) for piece in tokens.split(list(cuts), 1)]
            what = f"calls of {', '.join(map(str, cuts[:6]))} tokens on a state of chunk {chunk}"
            yield from _compare(what, torch.cat(pieces, 1), whole, "what one call gives")


@check
def padding(of: Subject) -> Iterator[str]:
    """Rows of different lengths, padded anywhere, give what each row gives alone: in one call, and as calls on a state."""
    model = of.model()
    rows = [of.tokens(1, length)[0] + 0 for length in (9, 4, 1, 12)]
    alone = [model(row[None])[0] for row in rows]
    for side in ("right", "left", "both sides"):
        tokens, valid = _padded(rows, side)
        logits = model(tokens, valid=valid)
        for i, expected in enumerate(alone):
            yield from _compare(
                f"a row of {len(rows[i])} tokens padded on the {side}", logits[i][valid[i]], expected, "what it gives alone"
            )
        last = model(tokens, valid=valid, last_only=True)
        yield from _compare(f"last_only, padded on the {side}", last[:, 0], torch.stack([a[-1] for a in alone]), "each row's last logits")
        yield from _continued(model, of, rows, tokens, valid, side)


def _continued(model: Decoder, of: Subject, rows: Sequence[Tensor], tokens: Tensor, valid: Tensor, side: str) -> Iterator[str]:
    """A padded prefill, then a step, then a padded chunk, then a step."""
    state = model.new_state(len(rows), 48, chunk=5)
    model(tokens, state=state, valid=valid)
    more = [of.tokens(1, 20)[0, n:] for n in (15, 18, 13, 17)]
    held = list(rows)
    step = torch.stack([row[0] for row in more])[:, None]
    chunk, chunk_valid = _padded(more, side)
    for new, mask in ((step, None), (chunk, chunk_valid), (step, None)):
        logits = model(new, state=state, valid=mask, last_only=True)
        added = list(new) if mask is None else more
        held = [torch.cat(pair) for pair in zip(held, added, strict=True)]
        expected = torch.stack([model(row[None], last_only=True)[0, 0] for row in held])
        what = f"{'a step' if mask is None else 'a padded chunk'} after a prefill padded on the {side}"
        yield from _compare(what, logits[:, 0], expected, "what each row gives alone")


@check
def segments(of: Subject) -> Iterator[str]:
    """Documents packed into one row give what each gives alone, whatever their numbers, and across calls."""
    model, lengths = of.model(), (6, 1, 9, 8)
    documents = of.tokens(1).split(list(lengths), 1)
    expected = torch.cat([model(document) for document in documents], 1)
    ids = torch.cat([torch.full((1, n), number) for n, number in zip(lengths, (4, 0, 4, 7), strict=True)], 1)
    packed = torch.cat(documents, 1)
    yield from _compare("four documents packed into a row", model(packed, segments=ids), expected, "what each gives alone")
    state = model.new_state(1, TOKENS, chunk=4)
    cuts = [3, 2, 5, 1, 13]
    pieces = [model(t, state=state, segments=s) for t, s in zip(packed.split(cuts, 1), ids.split(cuts, 1), strict=True)]
    yield from _compare("the same in calls that cut documents", torch.cat(pieces, 1), expected, "what each gives alone")


@check
def state_rows(of: Subject) -> Iterator[str]:
    """Rows of a state can be selected, cleared, put and copied, and nothing else follows."""
    model, tokens = of.model(), of.tokens(3)
    first, rest = tokens[:, :10], tokens[:, 10:]
    whole = model(tokens)[:, 10:]

    def filled(rows: Tensor) -> DecoderState:
        state = model.new_state(len(rows), TOKENS + 1, chunk=4)
        model(rows, state=state)
        return state

    state = filled(first)
    twin = state.clone()
    model(rest.flip(0), state=state)
    yield from _compare("a clone, after the original went on", model(rest, state=twin), whole, "the original's continuation")
    state = filled(first)
    state.select([2, 0, 0])
    yield from _compare("rows selected as 2, 0, 0", model(rest[[2, 0, 0]], state=state), whole[[2, 0, 0]], "those rows' continuation")
    state = filled(first)
    state.clear([1])
    fresh = model(tokens[:1, 10:])
    yield from _compare("a row that was cleared", model(rest[[0, 0, 2]], state=state)[1:2], fresh, "what a new row gives")
    state = filled(first)
    state.put([1], filled(first[2:]))
    yield from _compare("row 2 put into row 1", model(rest[[0, 2, 2]], state=state), whole[[0, 2, 2]], "that row's continuation")


@check
def rewind(of: Subject) -> Iterator[str]:
    """A row can always go back to nothing; further back than it remembers is refused, with nothing changed."""
    model, tokens = of.model(), of.tokens(3)
    whole, fresh = model(tokens), model(tokens[:, 10:])
    for lengths in ([10, 10, 0], [10, 7, 0], [9, 9, 9], [2, 10, 5]):
        state = model.new_state(3, TOKENS + 8, chunk=4)
        model(tokens[:, :10], state=state)
        try:
            state.rewind(lengths)
        except CannotRewind:
            if lengths == [10, 10, 0]:
                yield "rewinding one row of three to 0: refused, though it forgets everything"
            lengths = [10, 10, 10]
        rest = [tokens[row, length:] if length else tokens[row, 10:] for row, length in enumerate(lengths)]
        padded, valid = _padded(rest, "right")
        logits = model(padded, state=state, valid=valid)
        for row, length in enumerate(lengths):
            expected = whole[row, length:] if length else fresh[row]
            yield from _compare(f"row {row} after a rewind to {lengths}", logits[row][valid[row]], expected, "what one call gives")


def _padded(rows: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows as one tensor with padding of token 1, and where it is not padding. [b t]"""
    width = max(map(len, rows)) + 2
    tokens = torch.ones(len(rows), width, dtype=torch.int64)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        begin = {"right": 0, "left": width - len(row), "both sides": (width - len(row)) // 2}[side]
        tokens[i, begin : begin + len(row)] = row
        valid[i, begin : begin + len(row)] = True
    return tokens, valid


def _compare(what: str, found: Tensor, expected: Tensor, meaning: str) -> Iterator[str]:
    if found.shape != expected.shape:
        yield f"{what}: found the shape {list(found.shape)}, expected {list(expected.shape)}"
        return
    off = (found - expected).abs().nan_to_num(nan=float("inf"))
    worst = off.max().item()
    scale = max(1.0, expected.abs().max().item())
    if not worst <= TOLERANCE * scale:
        place = torch.unravel_index(off.argmax(), off.shape)
        at = [int(i) for i in place]
        yield f"{what}: expected {meaning}; the worst deviation is {worst:.3g}, at {at}, where at most {TOLERANCE * scale:.1g} is rounding"
