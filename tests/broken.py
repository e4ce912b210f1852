"""Components that are broken on purpose, each in one way that happens, and the check that must catch it; beside them right ones."""

import sys
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import llamazoo
from llamazoo import ComponentOptions, KeyValueState, Site, Step, Visible

__all__ = ["BROKEN", "Fading", "Mix", "Nearest", "Plain", "Scale", "Waves"]

BROKEN: list[tuple[type[llamazoo.Component], str]] = []  # each with the name of the check that must catch it


def caught_by(check: str) -> Any:
    def listed(component: type[llamazoo.Component]) -> type[llamazoo.Component]:
        BROKEN.append((component, check))
        return component

    return listed


# An attention that is right, and variants of it


class Plain(llamazoo.Attention):
    """Attention with as many heads of keys as of queries, written out."""

    name = "plain"
    honours = frozenset({"rotate"})

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.heads, self.width, self.place = site.n_heads, site.head_dim, site.place
        self.qkv = nn.Linear(site.dim, 3 * self.heads * self.width, bias=False)
        self.o = nn.Linear(self.heads * self.width, site.dim, bias=False)

    def forward(self, x: Tensor, step: Step, state: KeyValueState | None) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, -1, self.width).permute(2, 0, 3, 1, 4)
        q, k = self.place.rotate(q, k, step)
        visible = Visible(step)
        if state is not None:
            k, v, visible = state.extend(k, v, step)
        scores = (q @ k.transpose(-1, -2)) * self.width**-0.5
        seen = self.seen(visible, state is not None)
        y = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def seen(self, visible: Visible, cached: bool) -> Tensor:
        return visible.mask()

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> KeyValueState:
        heads = self.qkv.weight.shape[0] // (3 * self.width)
        return self.memory()(batch, capacity, heads, self.width, window=None, chunk=chunk, device=device, dtype=dtype)

    def memory(self) -> type[KeyValueState]:
        return KeyValueState


@caught_by("cached")
class ForgetsTheMaskInChunks(Plain):
    """With a cache there is only one query, or so it thinks."""

    name = "forgets_the_mask_in_chunks"

    def seen(self, visible: Visible, cached: bool) -> Tensor:
        return torch.ones_like(visible.mask()) if cached else visible.mask()


@caught_by("cached")
class CacheOffByOne(Plain):
    """A token that continues a text does not see itself."""

    name = "cache_off_by_one"

    def seen(self, visible: Visible, cached: bool) -> Tensor:
        q_order, k_order = visible.q_order[:, :, None], visible.k_order[:, None, :]
        return (k_order < q_order)[:, None] if visible.step.extent > visible.q_order.shape[1] else visible.mask()


class KeepsItsValues(KeyValueState):
    def select(self, rows: Tensor) -> None:
        self.keys = self.keys[rows]


@caught_by("state_rows")
class IgnoresSelect(Plain):
    """Its state selects rows of the keys, and not of the values."""

    name = "ignores_select"

    def memory(self) -> type[KeyValueState]:
        return KeepsItsValues


class SharesItsKeys(KeyValueState):
    def clone(self) -> "SharesItsKeys":
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin


@caught_by("state_rows")
class ClonesNothing(Plain):
    """A clone of its state is the same tensors again."""

    name = "clones_nothing"

    def memory(self) -> type[KeyValueState]:
        return SharesItsKeys


class Float32State(KeyValueState):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{**settings, "dtype": torch.float32})

    def extend(self, k: Tensor, v: Tensor, step: Step) -> tuple[Tensor, Tensor, Visible]:
        keys, values, visible = super().extend(k, v, step)
        return keys.to(k.dtype), values.to(v.dtype), visible


@caught_by("dtypes")
class StateInFloat32(Plain):
    """Its state has a number type of its own, and loses what float64 has to say."""

    name = "state_in_float32"

    def memory(self) -> type[KeyValueState]:
        return Float32State


@caught_by("input_unchanged")
class ShiftsThePositions(Plain):
    """It counts from 1, for everybody."""

    name = "shifts_the_positions"

    def forward(self, x: Tensor, step: Step, state: KeyValueState | None) -> Tensor:
        y = super().forward(x, step, state)
        step.positions.data = step.positions + 1
        return y


# A recurrence that is right, and variants of it


class Memory:
    """What Fading remembers of each row."""

    longest_write = None

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def select(self, rows: Tensor) -> None:
        self.memory = self.memory[rows]

    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        back = any(0 < length < now for length, now in zip(lengths, held, strict=True))
        return "what was added to a memory cannot be taken out again" if back else None

    def rewind(self, lengths: list[int], held: list[int]) -> None:
        self.memory[torch.tensor(lengths) < torch.tensor(held)] = 0

    def clear(self, rows: Tensor) -> None:
        self.memory[rows] = 0

    def put(self, rows: Tensor, other: "Memory") -> None:
        self.memory[rows] = other.memory

    def clone(self) -> "Memory":
        return type(self)(self.memory.clone())


class Fading(llamazoo.Attention):
    """A stranger's recurrent mixer: each token adds to a memory that fades."""

    name = "fading"

    class Options(ComponentOptions):
        decay: float = 0.9
        """How much of the memory is left after a token."""

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.v = nn.Linear(site.dim, site.dim, bias=False)
        self.o = nn.Linear(site.dim, site.dim, bias=False)

    def forward(self, x: Tensor, step: Step, state: Memory | None) -> Tensor:
        v = self.v(x)
        memory = torch.zeros_like(v[:, 0]) if state is None else state.memory
        seen = []
        for i in range(v.shape[1]):
            after = self.options.decay * self.before(memory, step, i) + v[:, i]
            memory = self.kept(memory, after, step, i)
            seen.append(memory)
        if state is not None:
            state.memory.copy_(memory)
        return self.o(torch.stack(seen, 1))

    def before(self, memory: Tensor, step: Step, i: int) -> Tensor:
        """Where a document begins, nothing was before."""
        return memory if step.begin is None else memory.masked_fill((step.order[:, i] == step.begin[:, i])[:, None], 0.0)

    def kept(self, memory: Tensor, after: Tensor, step: Step, i: int) -> Tensor:
        """Padding changes nothing."""
        return after if step.valid is None else torch.where(step.valid[:, i, None], after, memory)

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> Memory:
        return self.memory()(torch.zeros(batch, self.v.out_features, device=device, dtype=dtype))

    def memory(self) -> type[Memory]:
        return Memory


@caught_by("padding")
class PaddingLeaks(Fading):
    """Padding is added to the memory as any token is."""

    name = "padding_leaks"

    def kept(self, memory: Tensor, after: Tensor, step: Step, i: int) -> Tensor:
        return after


@caught_by("segments")
class DocumentsLeak(Fading):
    """The memory runs on from document to document."""

    name = "documents_leak"

    def before(self, memory: Tensor, step: Step, i: int) -> Tensor:
        return memory


class RefusesAll(Memory):
    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        return "a memory does not go back" if lengths != held else None


@caught_by("rewind")
class RefusesToForgetAll(Fading):
    """Going back to nothing is refused too, though nothing is needed for it."""

    name = "refuses_to_forget_all"

    def memory(self) -> type[Memory]:
        return RefusesAll


class RefusesNothing(Memory):
    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        return None


@caught_by("rewind")
class PretendsToGoBack(Fading):
    """It agrees to go back by some tokens, and forgets all."""

    name = "pretends_to_go_back"

    def memory(self) -> type[Memory]:
        return RefusesNothing


# Routers


class Nearest(llamazoo.Router):
    """The experts with the highest logits, weighted by a softmax over all."""

    name = "nearest"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.weight = llamazoo.parameter(self.n_experts, site.dim)

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.normal(self.weight)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(llamazoo.as_wide_as_float32(x), llamazoo.as_wide_as_float32(self.weight))

    def forward(self, x: Tensor, step: Step) -> llamazoo.Routing:
        logits = self.logits(x)
        weights, experts = logits.softmax(-1).topk(self.top_k, dim=-1)
        return llamazoo.Routing(experts, weights, logits)


@caught_by("causality")
class ExpertsChoose(Nearest):
    """Each expert takes the tokens of a row that suit it best. Zhou et al. 2022: even by construction, and not causal."""

    name = "experts_choose"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.top_k = self.n_experts

    def forward(self, x: Tensor, step: Step) -> llamazoo.Routing:
        logits = self.logits(x)
        scores = logits.softmax(-1)
        best = scores.topk(max(1, x.shape[1] // 4), dim=1).indices
        taken = torch.zeros_like(scores).scatter(1, best, 1.0)
        experts = torch.arange(self.n_experts, device=x.device).expand(scores.shape)
        return llamazoo.Routing(experts, scores * taken, logits)


@caught_by("cached")
class LooksBack(Nearest):
    """A token is sent where the tokens of this call before it would go too, wherever the call begins."""

    name = "looks_back"

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x.cumsum(1))


@caught_by("gradients")
class LearnsNothing(Nearest):
    """Its weights are cut off from what they came from."""

    name = "learns_nothing"

    def forward(self, x: Tensor, step: Step) -> llamazoo.Routing:
        routing = super().forward(x, step)
        return routing._replace(weights=routing.weights.detach())


@caught_by("shapes")
class ForgetsTheRows(Nearest):
    """A list of tokens, as most code has it, where each row has its own."""

    name = "forgets_the_rows"

    def forward(self, x: Tensor, step: Step) -> llamazoo.Routing:
        return super().forward(x.flatten(0, 1), step)


@caught_by("dtypes")
class WeighsCoarsely(Nearest):
    """Weights in the number type of the activations."""

    name = "weighs_coarsely"

    def forward(self, x: Tensor, step: Step) -> llamazoo.Routing:
        routing = super().forward(x, step)
        return routing._replace(weights=routing.weights.type_as(x))


# Feed-forwards


class Mix(llamazoo.FeedForward):
    """W2 relu(W1 x)."""

    name = "mix"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.up = nn.Linear(site.dim, 16, bias=False)
        self.down = nn.Linear(16, site.dim, bias=False)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return self.down(self.up(x).relu())


@caught_by("causality")
class PeeksAhead(Mix):
    """Mixes each token with its neighbour, the wrong one."""

    name = "peeks_ahead"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(F.pad(x[:, 1:], (0, 0, 0, 1)), step)


@caught_by("cached")
class MixesTheCall(Mix):
    """A token sees the mean of all tokens before it in this call, whatever the document or the cache."""

    name = "mixes_the_call"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x.cumsum(1), step)


@caught_by("batch")
class MixesTheBatch(Mix):
    """Centred over the batch, as a batch norm that is always training would."""

    name = "mixes_the_batch"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True), step)


@caught_by("shapes")
class Flattens(Mix):
    """Rows and tokens come back as one dimension."""

    name = "flattens"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x.flatten(0, 1), step)


@caught_by("gradients")
class CutsTheGradient(Mix):
    """No gradient reaches the first layer."""

    name = "cuts_the_gradient"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return self.down(self.up(x).relu().detach())


@caught_by("gradients")
class CutsTheGradientBelow(Mix):
    """All its own parameters have gradients; those of the layers below miss what goes through it."""

    name = "cuts_the_gradient_below"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x.detach(), step)


class Doubled(torch.autograd.Function):
    """2 x, and a backward by somebody who had another factor in mind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


@caught_by("gradients")
class WrongBackward(Mix):
    """Its backward is written by hand, and wrong."""

    name = "wrong_backward"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(Doubled.apply(x), step)


@caught_by("gradients")
class NeverUsed(Mix):
    """A parameter that was declared and forgotten."""

    name = "never_used"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.gain = nn.Parameter(torch.empty(site.dim))

    def reset(self, draw: llamazoo.Draw) -> None:
        super().reset(draw)
        draw.ones(self.gain)


@caught_by("gradients")
class RootOfNothing(Mix):
    """The root where there is one, and 0 elsewhere; but the gradient of the root is taken everywhere, and 0 times NaN is NaN."""

    name = "root_of_nothing"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        y = self.up(x)
        return self.down(torch.where(y > 0, y.sqrt(), 0.0))


@caught_by("compiled")
class LooksAtValues(Mix):
    """A branch that depends on data."""

    name = "looks_at_values"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x.clamp(-100, 100) if x.abs().max() > 100 else x, step)


@caught_by("determinism")
class AlwaysDrops(Mix):
    """Dropout that does not ask whether this is training."""

    name = "always_drops"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(F.dropout(x, 0.1), step)


@caught_by("determinism")
class ReadsUnwrittenMemory(Mix):
    """A buffer for all tokens, of which the last is never written."""

    name = "reads_unwritten_memory"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        shifted = torch.empty_like(x)
        shifted[:, :-1] = x[:, :-1]
        return super().forward(x + 0 * shifted, step)


@caught_by("global_state")
class Reseeds(Mix):
    """Deterministic, at the cost of everybody else's random numbers."""

    name = "reseeds"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        torch.manual_seed(0)
        return super().forward(F.dropout(x, 0.1), step)


@caught_by("global_state")
class SetsTheDefault(Mix):
    """Its table is made in float64, as is everybody's from then on."""

    name = "sets_the_default"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super().forward(x * torch.linspace(1, 2, x.shape[-1]).type_as(x), step)


@caught_by("global_state")
class SharesItsTable(Mix):
    """A table kept on the class for speed: the first model's weights are everybody's."""

    name = "shares_its_table"
    tables: dict[torch.dtype, Tensor] = {}

    def forward(self, x: Tensor, step: Step) -> Tensor:
        table = self.tables.setdefault(x.dtype, self.up.weight.detach().clone())
        return self.down(F.linear(x, table).relu())


SEEN: list[int] = []


@caught_by("global_state")
class CountsForAll(Mix):
    """A list in the module, to which every call adds."""

    name = "counts_for_all"

    def forward(self, x: Tensor, step: Step) -> Tensor:
        SEEN.append(x.shape[1])
        return super().forward(x, step)


@caught_by("global_state")
class RunsOn(Mix):
    """A running mean that is updated outside training too, for later use."""

    name = "runs_on"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.register_buffer("mean", torch.empty(site.dim))

    def compute(self) -> None:
        self.mean = torch.zeros(self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 1)))
        return super().forward(x, step)


@caught_by("round_trip")
class KnowsMoreThanItSaves(Mix):
    """Scaled by the norm that the weights had at first."""

    name = "knows_more_than_it_saves"

    def reset(self, draw: llamazoo.Draw) -> None:
        super().reset(draw)
        self.first = float(self.up.weight.detach().norm())

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x / self.first, step)


@caught_by("meta_build")
class StaleBuffer(Mix):
    """Two buffers, of which compute() fills one; the other is lost on the meta device."""

    name = "stale_buffer"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.register_buffer("gain", torch.full((site.dim,), 2.0), persistent=False)
        self.register_buffer("slopes", torch.empty(site.dim), persistent=False)

    def compute(self) -> None:
        self.slopes = torch.linspace(0, 1, len(self.slopes), dtype=self.slopes.dtype, device=self.slopes.device)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return super().forward(x * (self.gain + self.slopes).type_as(x), step)


@caught_by("splits")
class WrongSplit(Mix):
    """A gain that all features share is not marked: divided, the forward is right and the gain's gradient is a part of it."""

    name = "wrong_split"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.gain = nn.Parameter(torch.empty(1))

    def reset(self, draw: llamazoo.Draw) -> None:
        super().reset(draw)
        draw.ones(self.gain)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return self.down(self.gain * self.up(x).relu())

    def splits(self) -> dict[str, Any]:
        return {"up": llamazoo.Column(), "down": llamazoo.Row()}


@caught_by("splits")
class CutsAHead(Plain):
    """One unit for a fused projection: the first process gets the queries and half of the keys, and takes them for its heads."""

    name = "cuts_a_head"

    def splits(self) -> dict[str, Any]:
        return {"qkv": llamazoo.Column(self.width), "o": llamazoo.Row(self.width)}


# Activations, norms, positions, heads


@caught_by("input_unchanged")
class InPlace(llamazoo.Activation):
    """max(x, 0), written over x."""

    name = "in_place"

    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class Scale(llamazoo.Norm):
    """x / rms(x) * w."""

    name = "scale"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.weight = nn.Parameter(torch.empty(site.dim))

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.ones(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)


@caught_by("dtypes")
class LeaksFloat32(Scale):
    """Computed in float32, as it should be, and never cast back."""

    name = "leaks_float32"

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, None, 1e-5) * self.weight.float()


@caught_by("dtypes")
class RoundsToFloat32(Scale):
    """The right number type comes out, but float64 has become float32 on the way."""

    name = "rounds_to_float32"

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, None, 1e-5).type_as(x) * self.weight


@caught_by("options")
class IgnoresItsOption(Scale):
    """Reads its eps, and computes with another."""

    name = "ignores_its_option"

    class Options(ComponentOptions):
        eps: float = 1e-5
        """Added to the mean square."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.eps = options.eps


@caught_by("options")
class ForgetsWhatItBuilt(Scale):
    """Builds the part that its option asks for, and never calls it."""

    name = "forgets_what_it_built"

    class Options(ComponentOptions):
        gate: llamazoo.ActivationPart = llamazoo.part("silu")
        """What acts on the result."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.gate = site.build(options.gate)


@caught_by("options")
class SaysNothing(Scale):
    """An option that works and is not explained."""

    name = "says_nothing"

    class Options(ComponentOptions):
        gain: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.options.gain


@caught_by("options")
class AcceptsTooMuch(Scale):
    """Any number of groups fits the spec; those that do not divide the width break when called."""

    name = "accepts_too_much"

    class Options(ComponentOptions):
        groups: int = 3
        """In how many groups the features are normalised."""
        mode: Literal["mean", "max"] = "mean"
        """What the features of a group are divided by."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.unflatten(-1, (self.options.groups, -1))
        y = y / (1e-3 + y.abs().amax(-1, keepdim=True) if self.options.mode == "max" else 1e-3 + y.abs().mean(-1, keepdim=True))
        return y.flatten(-2) * self.weight


@caught_by("dtypes")
class CountsInBfloat16(llamazoo.Position):
    """Sines of positions that are counted in the number type of the activations: bfloat16 does not know 257."""

    name = "counts_in_bfloat16"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.dim = site.dim

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Tensor:
        frequency = 0.8 ** torch.arange(self.dim, device=positions.device).to(dtype)
        return (positions[..., None].to(dtype) * frequency).sin()

    def embed(self, x: Tensor, at: Tensor) -> Tensor:
        return x + at


class Waves(llamazoo.Position):
    """Sines that are the longer, the more tokens a row may come to hold; right, since that is the same in every call on a state."""

    name = "waves"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.dim = site.dim

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Tensor:
        return self.waves(positions, positions.new_full((), horizon), dtype)

    def waves(self, positions: Tensor, length: Tensor, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        frequency = 0.8 ** torch.arange(self.dim, device=positions.device).to(wide) / length
        return (positions[..., None].to(wide) * frequency).sin().to(dtype)

    def embed(self, x: Tensor, at: Tensor) -> Tensor:
        return x + at


@caught_by("cached")
class WavesOfTheCall(Waves):
    """Sines that are the longer, the further the call itself reaches: the next call finds those of the last one too short."""

    name = "waves_of_the_call"

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Tensor:
        return self.waves(positions, positions.max() + 1, dtype)


@caught_by("cached")
class WavesOfTheWidth(Waves):
    """Sines that are the longer, the more tokens the call brings, however many there are already."""

    name = "waves_of_the_width"

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Tensor:
        return self.waves(positions, positions.new_full((), positions.shape[1]), dtype)


@caught_by("gradients")
class Claims(llamazoo.Norm):
    """A gain that is said to be for longer texts only, and so would not count where sizes are matched."""

    name = "claims"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.weight = llamazoo.parameter(site.dim)

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.ones(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.to(x.dtype)

    def beyond(self, length: int) -> int:
        return self.weight.numel()


@caught_by("dtypes")
class HalfLogits(llamazoo.Head):
    """Logits in the number type of the features: in bfloat16 many tokens are equally likely."""

    name = "half_logits"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.linear = nn.Linear(site.dim, site.vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@caught_by("shapes")
class Raises(llamazoo.Activation):
    """Fails in a way that has nothing to do with llamazoo."""

    name = "raises"

    def forward(self, x: Tensor) -> Tensor:
        return x + self.nowhere


@caught_by("shapes")
class Leaves(llamazoo.Activation):
    """Ends the process, or tries to."""

    name = "leaves"

    def forward(self, x: Tensor) -> Tensor:
        sys.exit(3)
