"""The decoder: tokens -> embedding -> blocks -> norm -> head -> logits, and what it remembers between calls.

b batch, t tokens of this call, d model width, v vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.kinds import Block, Embedding, Head, Norm, Place, Position
from llamazoo.contract.state import State
from llamazoo.contract.step import FAR, Losses, Step
from llamazoo.device import device_memory
from llamazoo.errors import CannotRewind, ContextLengthError, InputError, ResourceLimitError, StateError
from llamazoo.spec.architecture import ArchitectureSpec

if TYPE_CHECKING:
    from llamazoo.weights.load import LoadReport

__all__ = ["Decoder", "DecoderState"]

LARGE = 1 << 20  # tokens that a state may hold before its bytes are counted against the device's
CHUNK = 512  # tokens that enter a bounded state at once, unless said otherwise
IGNORED = -100  # a target that is not learned from: PyTorch's own word for it


class Decoder(nn.Module):
    """A decoder language model, made of the parts that a spec names. Make one with `build_model` or `load_model`."""

    load_report: "LoadReport | None" = None  # what `load_model` found

    def __init__(self, spec: ArchitectureSpec, *, only: Sequence[int] | None = None) -> None:
        """Shapes without values. `only` some of the layers is for counting what they hold."""
        super().__init__()
        self.spec = spec
        site = spec.site()
        self.embedding: Embedding = site.build(spec.embedding)
        self.place_names = tuple(spec.places())
        # Prefixed, since `global` is a good name for a position and a bad one for an attribute.
        self.positions = nn.ModuleDict({f"at_{name}": site.build(part) for name, part in spec.places().items()})
        self.blocks = nn.ModuleList(self._block(spec, number) for number in (range(spec.n_layers) if only is None else only))
        self.final_norm: Norm = site.build(spec.final_norm or spec.norm)
        self.head: Head = site.build(spec.head)
        self.link()

    def _block(self, spec: ArchitectureSpec, number: int) -> Block:
        layer = spec.layer(number)
        place = Place(layer.position, cast(Position, self.positions[f"at_{layer.position}"]))
        make = cast(type[Block], layer.block.component)
        return make(layer.block.options, spec.site(number, place), layer)

    def link(self) -> None:
        """Share again what is shared: a move from the meta device, or an assignment, makes copies."""
        self.head.tie(self.embedding)

    def to_empty(self, *, device: torch.device | str | int | None, recurse: bool = True) -> Self:
        super().to_empty(device=device, recurse=recurse)
        self.link()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        found = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.link()
        return found

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def forward(
        self,
        tokens: Tensor,
        state: "DecoderState | None" = None,
        valid: Tensor | None = None,
        segments: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits for the token after each of `tokens` [b t]: [b t v], or [b 1 v] with `last_only`; at least float32.

        With a `state`, the tokens continue what it holds, and are added to it; no gradients are kept then. `valid` [b t]
        is False at padding, wherever it stands. `segments` [b t] numbers the documents packed into a row: they do not see
        each other. Raises InputError or ContextLengthError before any work.
        """
        if isinstance(valid, Tensor) and isinstance(tokens, Tensor) and valid.dtype == torch.bool and valid.shape == tokens.shape:
            tokens = tokens.masked_fill(~valid, 0)  # what stands at padding does not matter, so it need not be a token
        self.check_tokens(tokens)
        if state is None:
            return self.logits(self._hidden(tokens, None, valid, segments, last_only))
        return self.advance(tokens, state, valid, segments, last_only)

    @torch.no_grad()
    def advance(
        self,
        tokens: Tensor,
        state: "DecoderState",
        valid: Tensor | None = None,
        segments: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """`forward` on a state, for tokens that are known to be in the vocabulary: looking at them would make a GPU wait."""
        return self.logits(self._hidden(tokens, state, valid, segments, last_only))

    def core(self, tokens: Tensor, step: Step, states: Sequence[State | None]) -> Tensor:
        """Tokens [b t] through all blocks, to features [b t d] before the final norm; tensors only, so this is what compiles."""
        x = self.embedding(tokens)
        places = {}
        for name, position in zip(self.place_names, self.positions.values(), strict=True):
            assert isinstance(position, Position)
            places[name] = at = position.prepare(step.positions, horizon=step.horizon, dtype=x.dtype)
            x = position.embed(x, at)
        step = step.with_places(places)
        for block, state in zip(self.blocks, states, strict=True):
            x = block(x, step, state)
        return x

    def logits(self, x: Tensor) -> Tensor:  # [b t d] -> [b t v]
        y: Tensor = self.head(self.final_norm(x))
        return y

    def loss(self, tokens: Tensor, targets: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, in nats, of predicting `targets` [b t]; by default each next token of the same document.

        A target of -100 is not learned from. Auxiliary losses of the layers are added. A scalar, at least float32.
        """
        self.check_tokens(tokens)
        given = targets is not None
        if targets is None:
            if segments is not None and segments.shape != tokens.shape:
                raise InputError(f"segments has the shape {list(segments.shape)}, tokens {list(tokens.shape)}")
            if tokens.shape[1] < 2:
                raise InputError("a row of one token has no next token to predict; give targets or longer rows")
            targets = F.pad(tokens[:, 1:], (0, 1), value=IGNORED)
            if segments is not None:
                same = F.pad(segments[:, 1:] == segments[:, :-1], (0, 1), value=False)
                targets = targets.masked_fill(~same, IGNORED)
        else:
            self._check_targets(tokens, targets)
        if (given or segments is not None) and not torch.compiler.is_compiling() and not bool((targets != IGNORED).any()):
            raise InputError("there is nothing to predict: every target is -100, or the last token of its document")
        losses = Losses()
        logits = self.logits(self._hidden(tokens, None, None, segments, False, losses))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)
        for extra in losses.take().values():
            loss = loss + extra
        return loss

    def new_state(self, batch: int, capacity: int | None = None, *, chunk: int = CHUNK) -> "DecoderState":
        """Room to remember `capacity` tokens (max_seq_len unless given) in each of `batch` rows, allocated now and once.

        Layers with a window remember window + chunk - 1; longer inputs then enter in chunks of `chunk`.
        """
        capacity = self.spec.max_seq_len if capacity is None else capacity
        for name, number in (("batch", batch), ("capacity", capacity), ("chunk", chunk)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InputError(f"{name} is a whole number from 1, found {number!r}")
        if capacity > self.spec.max_seq_len:
            raise ContextLengthError(
                f"a cache of {capacity} tokens is longer than the model's context, max_seq_len {self.spec.max_seq_len}"
            )
        device, tokens = self.device, batch * capacity
        if tokens > LARGE:  # the host's part is quick, but so are most states
            needed = sum(s.nbytes for s in self._states(batch, capacity, chunk, torch.device("meta")) if s is not None)
            if needed > device_memory(device):
                limit = f"the memory of {device} is {device_memory(device)} bytes"
                raise ResourceLimitError(f"a state of {batch} rows of {capacity} tokens needs {needed} bytes; {limit}")
        return DecoderState(self._states(batch, capacity, chunk, device), batch, capacity, chunk, device, self.spec, self.dtype)

    @torch.inference_mode(False)  # a state made in inference mode could not be used outside
    @torch.no_grad()
    def _states(self, batch: int, capacity: int, chunk: int, device: torch.device) -> list[State | None]:
        blocks = (cast(Block, block) for block in self.blocks)
        return [block.new_state(batch, capacity, chunk=chunk, device=device, dtype=self.dtype) for block in blocks]

    def check_tokens(self, tokens: Tensor) -> None:
        """Raise InputError unless these are ids of the vocabulary, [b t], at least one a row, on the model's device."""
        if not isinstance(tokens, Tensor):
            raise InputError(f"tokens are an int64 tensor [batch tokens], found {type(tokens).__name__}")
        if tokens.dtype not in (torch.int64, torch.int32):
            raise InputError(f"tokens are integer ids, found {tokens.dtype}")
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise InputError(f"tokens have the shape [batch tokens], at least one token a row; found {list(tokens.shape)}")
        if tokens.device != self.device:
            raise InputError(f"tokens are on {tokens.device}, the model is on {self.device}")
        if torch.compiler.is_compiling() or tokens.is_meta:
            return
        low, high = _ends(tokens)
        if low < 0 or high >= self.spec.vocab_size:
            wrong = low if low < 0 else high
            raise InputError(f"token id {wrong} is outside the vocabulary, 0 to {self.spec.vocab_size - 1}")

    def _check_targets(self, tokens: Tensor, targets: Tensor) -> None:
        if targets.shape != tokens.shape:
            raise InputError(f"targets have the shape {list(targets.shape)}, tokens {list(tokens.shape)}")
        if targets.dtype not in (torch.int64, torch.int32):
            raise InputError(f"targets are integer ids, found {targets.dtype}")
        if torch.compiler.is_compiling():
            return
        low, high = _ends(targets.masked_fill(targets == IGNORED, 0))
        if low < 0 or high >= self.spec.vocab_size:
            wrong = low if low < 0 else high
            raise InputError(f"target {wrong} is outside the vocabulary, 0 to {self.spec.vocab_size - 1}, and not {IGNORED}")

    def _hidden(
        self,
        tokens: Tensor,
        state: "DecoderState | None",
        valid: Tensor | None,
        segments: Tensor | None,
        last_only: bool,
        losses: Losses | None = None,
    ) -> Tensor:
        """The host's part of a call: limits, padding moved last, slices for bounded states. -> [b t d], or [b 1 d]"""
        if state is not None:
            state.check_model(self.spec, self.dtype, self.device)
        rows = _Rows.read(tokens, state, valid, segments, self.spec.max_seq_len)
        states = state.layers if state is not None else [None] * len(self.blocks)
        limit = rows.width
        for layer in states:
            if layer is not None and layer.longest_write is not None:
                limit = min(limit, layer.longest_write)
        pieces = []
        for first in range(0, rows.width, limit):
            piece, step = rows.step(first, min(first + limit, rows.width))
            if losses is not None:
                step = replace(step, losses=losses)
            pieces.append(self.core(piece, step, states))
        if state is not None:
            state.advanced(rows.ends, rows.last_segment(), rows.last_begin())
        x = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        return rows.last(x) if last_only else rows.restored(x)


def _ends(tokens: Tensor) -> tuple[int, int]:
    """The lowest and the highest id. A few ids on the CPU are read faster than operators are called on them."""
    if tokens.device.type == "cpu" and tokens.numel() <= 1024:
        ids = [i for row in tokens.tolist() for i in row]
        return min(ids), max(ids)
    low, high = tokens.aminmax()
    return int(low), int(high)


@dataclass
class _Rows:
    """The tokens of one call with padding moved last, and where each row begins and ends."""

    tokens: Tensor  # [b w]
    starts: list[int]  # how many tokens each row held before
    counts: list[int]  # how many of `tokens` are its own
    horizon: int  # how many tokens a row may come to hold
    segments: Tensor | None  # [b w] the documents' numbers as the caller gave them
    begin: Tensor | None  # [b w] where each token's document begins
    place: Tensor | None  # [b t] where each token of the caller stands now; None: where it stood

    @classmethod
    def read(cls, tokens: Tensor, state: "DecoderState | None", valid: Tensor | None, segments: Tensor | None, max_seq_len: int) -> "_Rows":
        batch, width = tokens.shape
        for name, given in (("valid", valid), ("segments", segments)):
            if given is not None and not isinstance(given, Tensor):
                raise InputError(f"{name} is a tensor [batch tokens], found {type(given).__name__}")
            if given is not None and given.shape != tokens.shape:
                raise InputError(f"{name} has the shape {list(given.shape)}, tokens {list(tokens.shape)}")
        if state is not None and state.batch != batch:
            raise InputError(f"the state holds {state.batch} rows, tokens have {batch}")
        starts = [0] * batch if state is None else list(state.lengths)
        counts, place = [width] * batch, None
        if valid is not None:
            if valid.dtype != torch.bool:
                raise InputError(f"valid is a bool tensor, True at real tokens; found {valid.dtype}")
            counts = valid.sum(1).tolist()
            if 0 in counts:
                raise InputError(f"row {counts.index(0)} is all padding; leave it out")
            if min(counts) < width:
                index = (~valid).to(torch.int8).argsort(dim=1, stable=True)[:, : max(counts)]
                place = (valid.cumsum(1) - 1).clamp(min=0)
                tokens = tokens.gather(1, index)
                segments = None if segments is None else segments.gather(1, index)
        capacity, what = (max_seq_len, "the model's context, max_seq_len") if state is None else (state.capacity, "the state's capacity")
        rows = cls(tokens, starts, counts, capacity, segments, None, place)
        if max(rows.ends) > capacity:
            row = rows.ends.index(max(rows.ends))
            raise ContextLengthError(f"row {row} would hold {starts[row]} + {counts[row]} tokens, more than {what} ({capacity})")
        if segments is not None:
            if segments.dtype.is_floating_point or segments.dtype == torch.bool:
                raise InputError(f"segments are integers, found {segments.dtype}")
            rows.begin = rows._begin(state)
        if state is not None:
            state.check_segments(segments is not None)
        return rows

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    @property
    def ends(self) -> list[int]:
        return [start + count for start, count in zip(self.starts, self.counts, strict=True)]

    @property
    def padded(self) -> bool:
        return min(self.counts) < self.width

    def step(self, first: int, last: int) -> tuple[Tensor, Step]:
        """The tokens of columns `first` to `last`, and what a forward call knows about them."""
        tokens = self.tokens[:, first:last]
        extent = max(start + min(count, last) for start, count in zip(self.starts, self.counts, strict=True))
        if not self.padded and len(set(self.starts)) == 1:
            step = Step.even(len(tokens), last - first, start=self.starts[0] + first, horizon=self.horizon, device=tokens.device)
        else:
            column = torch.arange(first, last, device=tokens.device)
            starts, counts = (torch.tensor(n, device=tokens.device) for n in (self.starts, self.counts))
            order = starts[:, None] + column
            ends = starts + counts.clamp(max=last)
            valid = column < counts[:, None] if self.padded else None
            positions = order if valid is None else order.masked_fill(~valid, 0)
            order = order if valid is None else order.masked_fill(~valid, FAR)
            step = Step(positions=positions, order=order, extent=extent, horizon=self.horizon, ends=ends, valid=valid)
        if self.begin is not None:
            begin = self.begin[:, first:last]
            step = replace(step, begin=begin, positions=(step.positions - begin).clamp(min=0))
        return tokens, step

    def _begin(self, state: "DecoderState | None") -> Tensor:
        """The order at which each token's document begins: a running count, since a raw number may return later. [b w]"""
        assert self.segments is not None
        ids, device = self.segments.long(), self.tokens.device
        starts = torch.tensor(self.starts, device=device)
        order = starts[:, None] + torch.arange(self.width, device=device)
        changed = torch.ones_like(ids, dtype=torch.bool)
        changed[:, 1:] = ids[:, 1:] != ids[:, :-1]
        if state is not None and state.segment is not None and state.begin is not None:
            changed[:, 0] = (starts == 0) | (ids[:, 0] != state.segment)
            before = state.begin.masked_fill(starts == 0, 0)
        else:
            before = torch.zeros_like(starts)
        return order.masked_fill(~changed, -1).cummax(1).values.maximum(before[:, None])

    def last_segment(self) -> Tensor | None:
        return None if self.segments is None else self._at_last(self.segments.long())

    def last_begin(self) -> Tensor | None:
        return None if self.begin is None else self._at_last(self.begin)

    def _at_last(self, x: Tensor) -> Tensor:  # [b w] -> [b]
        return x.gather(1, torch.tensor(self.counts, device=x.device)[:, None] - 1)[:, 0]

    def last(self, x: Tensor) -> Tensor:
        """The features of each row's last real token. [b w d] -> [b 1 d]"""
        if not self.padded:
            return x[:, -1:]
        index = torch.tensor(self.counts, device=x.device)[:, None, None] - 1
        return x.gather(1, index.expand(-1, 1, x.shape[-1]))

    def restored(self, x: Tensor) -> Tensor:
        """Features in the caller's order again; at padding, those of a real token. [b w d] -> [b t d]"""
        return x if self.place is None else x.gather(1, self.place[:, :, None].expand(-1, -1, x.shape[-1]))


class DecoderState:
    """What a decoder remembers of each row of a batch, and the one true count of tokens. Made by `model.new_state`."""

    def __init__(
        self,
        layers: list[State | None],
        batch: int,
        capacity: int,
        chunk: int,
        device: torch.device,
        spec: ArchitectureSpec,
        dtype: torch.dtype,
    ) -> None:
        self.layers = layers
        self.spec, self.dtype = spec, dtype  # of the model that it is for
        self.capacity = capacity
        self.chunk = chunk
        self.device = device
        self.lengths = [0] * batch
        self.reached = [0] * batch  # the most each row has held since it was new
        self.segment: Tensor | None = None  # [b] the number of each row's last document
        self.begin: Tensor | None = None  # [b] and where it begins

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes that all layers hold."""
        return sum(layer.nbytes for layer in self.layers if layer is not None)

    def advanced(self, lengths: list[int], segment: Tensor | None, begin: Tensor | None) -> None:
        """Called by the decoder when a call is done."""
        self.lengths = lengths
        self.reached = [max(pair) for pair in zip(self.reached, lengths, strict=True)]
        self.segment, self.begin = segment, begin

    def check_model(self, spec: ArchitectureSpec, dtype: torch.dtype, device: torch.device) -> None:
        """Raise StateError unless the state was made for such a model."""
        if (dtype, device) != (self.dtype, self.device):
            raise StateError(f"the state is for {self.dtype} on {self.device}, the model is {dtype} on {device}")
        if spec is not self.spec and spec != self.spec:
            raise StateError("the state was made by a model of another spec; use that model's new_state")

    def check_segments(self, given: bool) -> None:
        if any(self.lengths) and given != (self.segment is not None):
            had = "with" if self.segment is not None else "without"
            raise StateError(f"this state was filled {had} `segments`; continue it so, or clear it")

    @torch.inference_mode(False)
    def select(self, rows: Sequence[int] | Tensor) -> None:
        """Make row i what row `rows[i]` was; rows may repeat, and the batch may grow or shrink."""
        chosen, index = self._rows(rows)
        for layer in self._held():
            layer.select(index)
        self.lengths, self.reached = ([counts[row] for row in chosen] for counts in (self.lengths, self.reached))
        self.segment = None if self.segment is None else self.segment[index]
        self.begin = None if self.begin is None else self.begin[index]

    def rewind(self, lengths: int | Sequence[int]) -> None:
        """Forget all but the first tokens of each row. Raises CannotRewind, with nothing changed, where a layer has forgotten them."""
        if not isinstance(lengths, int | Sequence):
            raise StateError(f"lengths are a whole number, or one for each row; found {lengths!r}")
        wanted = [lengths] * self.batch if isinstance(lengths, int) else list(lengths)
        if any(isinstance(length, bool) or not isinstance(length, int) for length in wanted):
            raise StateError(f"lengths are whole numbers, found {wanted}")
        if len(wanted) != self.batch:
            raise StateError(f"{len(wanted)} lengths for {self.batch} rows")
        for row, (length, held) in enumerate(zip(wanted, self.lengths, strict=True)):
            if not 0 <= length <= held:
                raise StateError(f"row {row} holds {held} tokens and cannot be rewound to {length}")
        if self.begin is not None:
            for row, (length, begin) in enumerate(zip(wanted, self.begin.tolist(), strict=True)):
                if 0 < length <= begin:
                    raise CannotRewind(f"row {row}: its last document begins at {begin}; the number of the one before is forgotten")
        for number, layer in enumerate(self.layers):  # ask all before the first is changed
            reason = layer.refuses_rewind(wanted, self.lengths, self.reached) if layer is not None else None
            if reason is not None:
                raise CannotRewind(f"layer {number}: {reason}")
        for layer in self._held():
            layer.rewind(wanted, self.lengths)
        self.lengths = wanted
        self.reached = [far if length else 0 for length, far in zip(wanted, self.reached, strict=True)]

    def clear(self, rows: Sequence[int] | Tensor | None = None) -> None:
        """Make these rows, or all, as new."""
        chosen, index = self._rows(range(self.batch) if rows is None else rows)
        for layer in self._held():
            layer.clear(index)
        for row in chosen:
            self.lengths[row] = self.reached[row] = 0
        if not any(self.lengths):
            self.segment = self.begin = None
        elif self.begin is not None:
            self.begin = self.begin.index_fill(0, index, 0)

    @torch.inference_mode(False)
    def put(self, rows: Sequence[int] | Tensor, other: "DecoderState") -> None:
        """Make these rows what the rows of another state of the same model, capacity and chunk are."""
        chosen, index = self._rows(rows)
        other.check_model(self.spec, self.dtype, self.device)
        if (other.capacity, other.chunk) != (self.capacity, self.chunk):
            raise StateError(
                f"a state of capacity {other.capacity} and chunk {other.chunk} does not fit one of {self.capacity} and {self.chunk}"
            )
        if len(chosen) != other.batch or len(set(chosen)) != len(chosen):
            raise StateError(f"{other.batch} rows cannot be put into the rows {chosen}")
        kept = [length for row, length in enumerate(self.lengths) if row not in chosen]
        if not any(kept):
            self.segment = self.begin = None
        if any(kept) and any(other.lengths) and (self.segment is None) != (other.segment is None):
            raise StateError("one state was filled with `segments`, the other without")
        for layer, source in zip(self.layers, other.layers, strict=True):
            if layer is not None and source is not None:
                layer.put(index, source)
        for row, length, far in zip(chosen, other.lengths, other.reached, strict=True):
            self.lengths[row], self.reached[row] = length, far
        if other.segment is not None and other.begin is not None:
            blank = torch.zeros(self.batch, dtype=torch.int64, device=self.device)
            self.segment = (blank if self.segment is None else self.segment).index_copy(0, index, other.segment)
            self.begin = (blank if self.begin is None else self.begin).index_copy(0, index, other.begin)

    @torch.inference_mode(False)
    def clone(self) -> "DecoderState":
        """An independent copy."""
        layers = [None if s is None else s.clone() for s in self.layers]
        twin = DecoderState(layers, self.batch, self.capacity, self.chunk, self.device, self.spec, self.dtype)
        twin.lengths, twin.reached = list(self.lengths), list(self.reached)
        twin.segment, twin.begin = self.segment, self.begin  # replaced, never written
        return twin

    def _held(self) -> list[State]:
        return [layer for layer in self.layers if layer is not None]

    def _rows(self, rows: Sequence[int] | Tensor) -> tuple[list[int], Tensor]:
        given = rows.tolist() if isinstance(rows, Tensor) else list(rows)
        chosen = [row for row in given if isinstance(row, int) and not isinstance(row, bool)] if isinstance(given, list) else []
        if len(chosen) != len(given):
            raise StateError(f"rows are given by their numbers, found {given}")
        if not chosen or min(chosen) < 0 or max(chosen) >= self.batch:
            raise StateError(f"rows {chosen} of a state with the rows 0 to {self.batch - 1}")
        return chosen, torch.tensor(chosen, device=self.device)
