"""Every built-in part keeps the contract, alone and in combination."""

import itertools

import pytest
import torch

import llamazoo
from llamazoo.testing import CHECKS, check_component, failures, subject

REGISTRY = llamazoo.default_registry()
BUILT_IN = sorted({o.component for o in REGISTRY.offers() if o.distribution == "llamazoo"}, key=lambda c: (c.kind, c.name))
FURTHER_OPTIONS = {
    ("norm", "layernorm"): [{"bias": False}],
    ("activation", "gelu"): [{"approximate": "tanh"}],
    ("feed_forward", "gated"): [{"activation": a, "bias": True} for a in ("gelu", "relu", "sigmoid", "identity")],
    ("feed_forward", "mlp"): [{"activation": "relu2", "bias": True}],
    ("position", "rope"): [{"layout": "interleaved"}, {"fraction": 0.5}, {"fraction": 0.25, "layout": "interleaved"}],
    ("position", "t5"): [{"buckets": 8, "max_distance": 12}],
    ("block", "parallel"): [{"shared_norm": True}],
    ("embedding", "table"): [{"scale": "sqrt_dim"}, {"scale": 0.5}],
    ("head", "linear"): [{"tied": True}, {"bias": True, "scale": 0.5, "softcap": 5.0}],
    ("kernel", "auto"): [{"candidates": ["eager"]}],
    ("attention", "multihead"): [
        {"n_kv_heads": 1},
        {"n_kv_heads": 4, "qkv_bias": True, "out_bias": True},
        {"qk_norm": "rmsnorm", "scale": 0.2},
        {"softcap": 3.0},
        {"window": 5},
        {"window": 1},
    ],
}
CASES = [(c, o) for c in BUILT_IN for o in [{}, *FURTHER_OPTIONS.get((c.kind, c.name), [])]]


@pytest.mark.parametrize(("component", "options"), CASES, ids=lambda v: v.__name__ if isinstance(v, type) else str(v or ""))
def test_built_in_components_keep_the_contract(component: type[llamazoo.Component], options: dict[str, object]) -> None:
    with torch.no_grad():
        check_component(component, options)


POSITIONS = ["rope", {"type": "rope", "layout": "interleaved", "fraction": 0.5}, "learned", "sinusoidal", "alibi", "t5", "none"]
ATTENTIONS = [
    {"kernel": "sdpa"},
    {"kernel": "eager", "n_kv_heads": 1},
    {"window": 4, "kernel": "sdpa"},
    {"window": 6, "kernel": "eager", "softcap": 4.0, "qk_norm": "rmsnorm"},
]
BLOCKS = ["prenorm", "postnorm", "sandwich", "parallel", {"type": "parallel", "shared_norm": True}]


@pytest.mark.parametrize("position", POSITIONS, ids=str)
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_cached_equals_uncached_for_every_position_attention_and_block(
    position: object, attention: dict[str, object], block: object
) -> None:
    multihead = REGISTRY.find("attention", "multihead").component
    tried = subject(multihead, attention, around={"position": position, "block": block})
    with torch.no_grad():
        found = [message for name in ("cached", "padding") for message in CHECKS[name](tried)]
    assert found == []


def test_layers_may_differ_in_position_window_and_parts() -> None:
    multihead = REGISTRY.find("attention", "multihead").component
    around = {
        "n_layers": 4,
        "positions": {"near": {"type": "rope", "theta": 100.0}, "far": "alibi", "nowhere": "none"},
        "position": "near",
        "layers": [
            {"every": 2, "offset": 1, "position": "far", "attention": {"window": None}},
            {"at": -1, "feed_forward": "mlp", "block": "sandwich", "position": "nowhere", "norm": "layernorm"},
        ],
    }
    tried = subject(multihead, {"window": 5}, around=around)
    with torch.no_grad():
        assert failures(tried) == []


class Fading(llamazoo.Attention):
    """A stranger's recurrent mixer: each token adds to a memory that fades."""

    name = "fading"

    class Options(llamazoo.ComponentOptions):
        decay: float = 0.9

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.v = torch.nn.Linear(site.dim, site.dim, bias=False)
        self.o = torch.nn.Linear(site.dim, site.dim, bias=False)

    def forward(self, x: torch.Tensor, step: llamazoo.Step, state: "Memory | None") -> torch.Tensor:
        v = self.v(x)
        memory = torch.zeros_like(v[:, 0]) if state is None else state.memory
        seen = []
        for i in range(v.shape[1]):
            before = memory
            if step.begin is not None:  # a document begins: nothing was before
                before = before.masked_fill((step.order[:, i] == step.begin[:, i])[:, None], 0.0)
            after = self.options.decay * before + v[:, i]
            memory = after if step.valid is None else torch.where(step.valid[:, i, None], after, memory)
            seen.append(memory)
        if state is not None:
            state.memory.copy_(memory)
        return self.o(torch.stack(seen, 1))

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> "Memory":
        return Memory(torch.zeros(batch, self.v.out_features, device=device, dtype=dtype))


class Memory:
    """What Fading remembers of each row."""

    longest_write = None

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def select(self, rows: torch.Tensor) -> None:
        self.memory = self.memory[rows]

    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        back = any(0 < length < now for length, now in zip(lengths, held, strict=True))
        return "what was added to a memory cannot be taken out again" if back else None

    def rewind(self, lengths: list[int], held: list[int]) -> None:
        self.memory[torch.tensor(lengths) < torch.tensor(held)] = 0

    def clear(self, rows: torch.Tensor) -> None:
        self.memory[rows] = 0

    def put(self, rows: torch.Tensor, other: "Memory") -> None:
        self.memory[rows] = other.memory

    def clone(self) -> "Memory":
        return Memory(self.memory.clone())


def test_a_strangers_recurrent_mixer_keeps_the_contract_too() -> None:
    with torch.no_grad():
        check_component(Fading)
        check_component(Fading, {"decay": 0.5}, around={"position": "learned", "block": "parallel"})


class PeeksAhead(llamazoo.FeedForward):
    """A broken part: each token sees the next one."""

    name = "peeks_ahead"

    def forward(self, x: torch.Tensor, step: llamazoo.Step) -> torch.Tensor:
        return x.roll(-1, 1)


class ForgetsItsBuffer(llamazoo.FeedForward):
    """A broken part: a buffer filled in __init__, which a meta build loses."""

    name = "forgets_its_buffer"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.register_buffer("gain", torch.full((site.dim,), 2.0), persistent=False)

    def forward(self, x: torch.Tensor, step: llamazoo.Step) -> torch.Tensor:
        return x * self.gain


class MixesTheRow(llamazoo.FeedForward):
    """A broken part: a token sees the mean of all tokens before it in this call, whatever the document or the cache."""

    name = "mixes_the_row"

    def forward(self, x: torch.Tensor, step: llamazoo.Step) -> torch.Tensor:
        return x.cumsum(1)


@pytest.mark.parametrize(
    ("component", "caught_by"),
    [(PeeksAhead, {"causality", "cached"}), (ForgetsItsBuffer, {"meta_build"}), (MixesTheRow, {"cached", "padding", "segments"})],
)
def test_a_broken_component_is_caught_by_name(component: type[llamazoo.Component], caught_by: set[str]) -> None:
    with torch.no_grad():
        found = {failure.check for failure in failures(subject(component))}
    assert caught_by <= found
    with pytest.raises(llamazoo.ConformanceError, match=f"'{component.name}' breaks the contract"):
        check_component(component)


def test_every_kind_has_a_built_in_part() -> None:
    kinds = {kind for kind, _ in itertools.groupby(c.kind for c in BUILT_IN)}
    assert kinds == {"activation", "attention", "block", "embedding", "feed_forward", "head", "kernel", "norm", "position"}
