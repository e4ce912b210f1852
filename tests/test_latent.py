"""Attention over latents: its two forms, its small cache, its rotary rows, and the models that it comes from."""

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import llamazoo
from llamazoo.contract.state import TokenState
from llamazoo.contract.step import Step
from llamazoo.testing.tiny import padded

# A DeepSeek as small as its parts allow: latents that are wide beside one head, and narrow beside all of them.
SMALL: dict[str, Any] = {
    "vocab_size": 101,
    "dim": 48,
    "hidden_dim": 56,
    "n_layers": 3,
    "n_heads": 6,
    "head_dim": 8,
    "max_seq_len": 64,
    "init": {"std": 0.2},
    "norm": {"type": "rmsnorm", "eps": 1e-6},
    "position": {"type": "rope", "layout": "interleaved"},
    "attention": {"type": "mla", "q_rank": 20, "kv_rank": 24, "nope_dim": 12, "v_dim": 10},
    "feed_forward": "swiglu",
}
WIDTH = 24 + 8


def model_of(changes: dict[str, Any] | None = None) -> llamazoo.Decoder:
    return llamazoo.build_model(llamazoo.load_spec(SMALL, changes), dtype=torch.float64).eval()


def stirred(model: llamazoo.Decoder) -> llamazoo.Decoder:
    """The model with all its values away from the first ones."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=parameter.ndim == 1, std=0.3)
    return model


def tokens_of(batch: int = 2, length: int = 20) -> Tensor:
    return torch.randint(0, 101, (batch, length), generator=torch.Generator().manual_seed(1))


def latent_of(model: llamazoo.Decoder) -> Any:
    return model.blocks[0].attention


class Forms:
    """Which form each layer took, in turn; or the one form that all have to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, always: str | None = None) -> None:
        component = llamazoo.default_registry().find("attention", "latent").component
        self.taken: list[str] = []
        for form in ("expanded", "absorbed"):
            monkeypatch.setattr(component, form, self._noting(form, getattr(component, form)))
        if always is not None:
            monkeypatch.setattr(component, "products", lambda *_: (0, 1) if always == "expanded" else (1, 0))

    def _noting(self, form: str, function: Any) -> Any:
        def noted(*args: Any) -> Any:
            self.taken.append(form)
            return function(*args)

        return noted


def test_a_token_is_remembered_as_one_latent_and_one_rotary_key() -> None:
    model, capacity = model_of(), 50
    state = model.new_state(4, capacity)
    unused = 1  # the slot into which padding is written
    assert state.nbytes == 3 * 4 * (capacity + unused) * WIDTH * 8
    assert llamazoo.describe(model.spec, torch.bfloat16).cache_bytes_per_token == 3 * WIDTH * 2
    many = llamazoo.describe(llamazoo.load_spec(model.spec, {"n_heads": 60}), torch.bfloat16)
    assert many.cache_bytes_per_token == 3 * WIDTH * 2  # whatever the number of heads


def test_deepseek_v3_remembers_576_numbers_a_token_and_layer() -> None:
    widths = {"dim": 7168, "hidden_dim": 18432, "n_layers": 61, "n_heads": 128, "head_dim": 64, "vocab_size": 129280}
    told = llamazoo.describe(llamazoo.load_spec({**SMALL, **widths, "attention": {"type": "latent", "q_rank": 1536}}), torch.bfloat16)
    assert told.cache_bytes_per_token == 61 * 576 * 2
    projections = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert told.layers == [(61, told.layers[0][1], projections + 1536 + 512 + 3 * 7168 * 18432 + 2 * 7168)]


@pytest.mark.parametrize("position", ["rope", {"type": "rope", "layout": "interleaved", "fraction": 0.5}, "alibi", "none"], ids=str)
@pytest.mark.parametrize("options", [{}, {"q_rank": None, "bias": True}, {"window": 5, "kernel": "eager"}], ids=str)
def test_both_forms_are_the_same_attention(position: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = stirred(model_of({"position": position, "attention": options}))
    rows = [tokens_of()[0], tokens_of()[1, :13]]
    tokens, valid = padded(rows, "left")
    found = {}
    for form in ("expanded", "absorbed"):
        with monkeypatch.context() as patch:
            forms = Forms(patch, form)
            loss = model.loss(tokens_of())
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            state = model.new_state(2, 40, chunk=7)
            steps = [model(piece, state=state, valid=mask) for piece, mask in zip(tokens.split(13, 1), valid.split(13, 1), strict=True)]
            steps += [model(tokens_of()[:, i : i + 1], state=state) for i in range(3)]
            assert set(forms.taken) == {form}
            found[form] = [model(tokens_of()), torch.cat(steps, 1), *gradients]
    for expanded, absorbed in zip(*found.values(), strict=True):
        torch.testing.assert_close(absorbed, expanded, rtol=0, atol=1e-10)


def test_the_form_is_the_one_that_multiplies_less(monkeypatch: pytest.MonkeyPatch) -> None:
    model, forms = model_of({"n_layers": 1}), Forms(monkeypatch)
    state = model.new_state(2)
    for piece in tokens_of().split([15, 1, 1, 3], 1):
        model(piece, state=state)
    assert forms.taken == ["expanded", "absorbed", "absorbed", "absorbed"]
    # As the latents are 24 wide and a head's key and value 30 + 8: with 24 * 22 products a token to make them, worth it for many queries.
    latent = latent_of(model)
    for queries, keys in ((1, 1), (1, 2), (1, 60), (3, 18), (12, 24), (20, 40), (60, 60)):
        expanded, absorbed = latent.products(queries, keys)
        assert expanded == keys * 24 * 22 + queries * keys * (20 + 10)
        assert absorbed == queries * 24 * 22 + queries * keys * (32 + 32)
    model(tokens_of(2, 30), state=model.new_state(2))
    assert forms.taken[-1] == "expanded"
    narrow = model_of({"n_layers": 1, "attention": {"kv_rank": 4}})
    narrow(tokens_of())
    assert forms.taken[-1] == "absorbed"  # latents so narrow that nothing need be made of them


@pytest.mark.parametrize(("prompt", "form"), [(0, "expanded"), (19, "absorbed")])
@pytest.mark.parametrize("q_rank", [None, 20])
def test_operations_are_those_that_a_decoded_token_takes(prompt: int, form: str, q_rank: int | None) -> None:
    model = model_of({"n_layers": 1, "attention": {"q_rank": q_rank, "kernel": "eager"}})
    state = model.new_state(1)
    if prompt:
        model(tokens_of(1, prompt), state=state)
    with FlopCounterMode(display=False) as counter:
        model(tokens_of(1, 1), state=state)
    assert _attention_flops(counter) == latent_of(model).flops(prompt + 1)
    assert latent_of(model).flops(0) == latent_of(model).flops(1)


def _attention_flops(counter: FlopCounterMode) -> int:
    (found,) = (counts for name, counts in counter.get_flop_counts().items() if name.endswith("blocks.0.attention"))
    return sum(found.values())


def test_a_window_bounds_operations_and_cache() -> None:
    model, full = model_of({"attention": {"window": 6}}), model_of()
    assert latent_of(model).flops(50) == latent_of(model).flops(6) == latent_of(full).flops(6) < latent_of(full).flops(50)
    assert model.new_state(1, 40, chunk=3).nbytes == 3 * (6 + 3 - 1 + 1) * WIDTH * 8


@pytest.mark.parametrize("attention", [{}, {"q_rank": None}, {"kv_rank": 4}, {"window": 6}], ids=str)
def test_prefill_decoding_ragged_batches_and_chunks_equal_one_full_forward(attention: dict[str, Any]) -> None:
    changes = {"attention": attention, "layers": [{"at": 1, "attention": {"kernel": "eager"}, "feed_forward": "mlp"}]}
    model, tokens = model_of(changes), tokens_of(3, 24)
    whole = model(tokens)
    for cuts in ([24], [1] * 24, [10, 1, 1, 12], [3, 20, 1]):
        state = model.new_state(3, 24, chunk=4)
        pieces = torch.cat([model(piece, state=state) for piece in tokens.split(cuts, 1)], 1)
        torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-9)
    for side in ("left", "right", "both sides"):
        ragged, valid = padded([tokens[0, :17], tokens[1, :3], tokens[2, :11]], side)
        state = model.new_state(3, 24, chunk=4)
        logits = model(ragged, state=state, valid=valid)
        for row, length in enumerate((17, 3, 11)):
            torch.testing.assert_close(logits[row][valid[row]], whole[row, :length], rtol=0, atol=1e-9)
        more = torch.stack([tokens[row, length : length + 2] for row, length in enumerate((17, 3, 11))])
        for i in range(2):
            step = model(more[:, i : i + 1], state=state)
            for row, length in enumerate((17, 3, 11)):
                torch.testing.assert_close(step[row, 0], whole[row, length + i], rtol=0, atol=1e-9)


def test_documents_in_one_row_do_not_see_each_other() -> None:
    model, tokens = model_of(), tokens_of(1, 20)
    segments = torch.tensor([[0] * 8 + [1] * 12])
    packed = model(tokens, segments=segments)
    torch.testing.assert_close(packed[:, 8:], model(tokens[:, 8:]), rtol=0, atol=1e-9)


def test_a_prompt_is_not_read_back_from_the_cache() -> None:
    state = TokenState(2, 9, [(1, 5), (3, 2)], window=None, chunk=4, device=torch.device("cpu"), dtype=torch.float64)
    values = torch.randn(2, 1, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 2, dtype=torch.float64)
    found, visible = state.write(values, Step.even(2, 4, start=0, horizon=9, device=torch.device("cpu")))
    assert found[0] is values[0]
    assert found[1] is values[1]
    assert (visible.keys, visible.pattern) == ("own", "causal")
    more = torch.randn(2, 1, 1, 5, dtype=torch.float64), torch.randn(2, 3, 1, 2, dtype=torch.float64)
    found, visible = state.write(more, Step.even(2, 1, start=4, horizon=9, device=torch.device("cpu")))
    for all_of_them, first, second in zip(found, values, more, strict=True):
        assert torch.equal(all_of_them, torch.cat((first, second), 2))
    assert (visible.keys, visible.size, visible.pattern) == ("slots", 5, "all")
    assert state.nbytes == 2 * 10 * (5 + 6) * 8


KERNELS = [llamazoo.default_registry().find("kernel", name).component for name in ("eager", "sdpa", "auto")]


@pytest.mark.parametrize("tokens", [1, 3, 7])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("width", [3, 8, 11])
@pytest.mark.parametrize("biased", [None, 1, 6])
def test_kernels_take_values_of_another_width_than_keys(tokens: int, groups: int, width: int, biased: int | None) -> None:
    start, spec = 7 - tokens, llamazoo.load_spec(SMALL)
    step = Step.even(2, tokens, start=start, horizon=9, device=torch.device("cpu"))
    visible = llamazoo.Visible(step, "slots", 7)
    q, k, v = (torch.randn(2, h, n, e, dtype=torch.float64) for h, n, e in ((6, tokens, 8), (groups, 7, 8), (groups, 7, width)))
    bias = None if biased is None else torch.randn(2, biased, tokens, 7, dtype=torch.float64)
    for window in (None, 4):
        seen = visible._replace(window=window)
        found = [made(made.Options(), spec.site())(q, k, v, visible=seen, bias=bias, scale=0.3) for made in KERNELS]
        scores = torch.einsum("bhte,bhse->bhts", q, k.repeat_interleave(6 // groups, 1)) * 0.3 + (0 if bias is None else bias)
        distance = torch.arange(start, 7)[:, None] - torch.arange(7)
        hidden = (distance < 0) | (distance >= (window or 9))
        expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v.repeat_interleave(6 // groups, 1)
        for y in found:
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


HYBRID = {"n_layers": 4, "attention": {"q_rank": None}, "layers": [{"every": 2, "attention": {"type": "multihead", "qk_norm": "rmsnorm"}}]}


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention": {"q_rank": None, "bias": True}}, {"position": {"fraction": 0.5}}, HYBRID],
    ids=["with q_rank", "without, with biases", "half of the rotary part", "beside multihead"],
)
def test_a_checkpoint_of_latents_loads_into_a_spec_of_the_other_layout(changes: dict[str, Any], tmp_path: Path) -> None:
    model = stirred(model_of(changes))
    llamazoo.save_model(model, tmp_path / "interleaved")
    other = llamazoo.load_spec(model.spec, {"position.layout": "half"})
    turned = llamazoo.build_model(other, weights=tmp_path / "interleaved", dtype=torch.float64)
    torch.testing.assert_close(turned(tokens_of()), model(tokens_of()), rtol=0, atol=1e-10)
    differ = {name.split(".", 3)[-1] for name, p in turned.named_parameters() if not torch.equal(p, model.get_parameter(name))}
    assert differ <= {f"{name}.{leaf}" for name in ("q", "k", "q_up", "kv_down", "q_norm", "k_norm") for leaf in ("weight", "bias")}
    assert differ >= {"kv_down.weight"}
    llamazoo.save_model(turned, tmp_path / "half")
    back = llamazoo.build_model(model.spec, weights=tmp_path / "half", dtype=torch.float64)
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in back.named_parameters())


class Untold(llamazoo.Attention):
    """A stranger's attention that says nothing of its rotary rows."""

    name = "untold"
    honours: ClassVar[frozenset[str]] = frozenset({"rotate"})

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.q = torch.nn.Linear(site.dim, site.head_dim, bias=False)

    def forward(self, x: Tensor, step: llamazoo.Step, state: Any) -> Tensor:
        q, _ = self.place.rotate(self.q(x)[:, None], self.q(x)[:, None], step)
        return torch.zeros_like(x) + q.squeeze(1).sum(-1, keepdim=True)


class Told(Untold):
    """One that says it."""

    name = "told"

    @classmethod
    def rotary_rows(cls, options: Any, site: llamazoo.Site) -> dict[str, llamazoo.RotaryRows]:
        return {"q.weight": llamazoo.RotaryRows(site.head_dim)}


def test_a_strangers_attention_says_which_of_its_rows_turn_or_is_refused(tmp_path: Path) -> None:
    registry = llamazoo.default_registry().extended(Untold, Told)
    for name in ("untold", "told"):
        spec = llamazoo.load_spec({**SMALL, "attention": name}, registry=registry)
        model = llamazoo.build_model(spec, dtype=torch.float64, registry=registry)
        llamazoo.save_model(model, tmp_path / name)
        other = llamazoo.load_spec(spec, {"position.layout": "half"}, registry=registry)
        if name == "told":
            turned = llamazoo.build_model(other, weights=tmp_path / name, dtype=torch.float64, registry=registry)
            torch.testing.assert_close(turned(tokens_of()), model(tokens_of()), rtol=0, atol=1e-10)
            continue
        with pytest.raises(llamazoo.WeightsError, match="give the class of the attention 'local/untold' a rotary_rows"):
            llamazoo.build_model(other, weights=tmp_path / name, registry=registry)
        beside = {"positions": {"turning": spec.position, "still": "none"}, "position": "still"}
        still = [{"at": 0, "position": "turning", "attention": "told"}]
        mixed = llamazoo.load_spec({**SMALL, "attention": "untold", **beside, "layers": still}, registry=registry)
        llamazoo.save_model(llamazoo.build_model(mixed, registry=registry), tmp_path / "mixed")
        other = llamazoo.load_spec(mixed, {"positions.turning.layout": "half"}, registry=registry)
        llamazoo.build_model(other, weights=tmp_path / "mixed", registry=registry)  # what does not turn need not say so


def test_a_kernel_that_cannot_compute_it_is_refused_with_its_reason() -> None:
    class Picky(llamazoo.Kernel):
        """Computes nothing."""

        name = "picky"

        def refuses(self, **_: Any) -> str:
            return "nothing suits it"

    registry = llamazoo.default_registry().extended(Picky)
    with pytest.raises(llamazoo.SpecError, match=r"attention\.kernel: local/picky cannot compute this attention: nothing suits it"):
        llamazoo.load_spec(SMALL, {"attention.kernel": "picky"}, registry=registry)
    with pytest.raises(llamazoo.SpecError, match=r"attention\.kv_rank: "):
        llamazoo.load_spec(SMALL, {"attention.kv_rank": 0})


def test_a_format_that_knows_no_latents_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(llamazoo.WeightsError, match="cannot express this architecture"):
        llamazoo.save_model(model_of(), tmp_path / "meta", format="meta")


THEIRS = {
    "q": "q_proj",
    "q_down": "q_a_proj",
    "q_norm": "q_a_layernorm",
    "q_up": "q_b_proj",
    "kv_down": "kv_a_proj_with_mqa",
    "kv_norm": "kv_a_layernorm",
    "kv_up": "kv_b_proj",
    "o": "o_proj",
}


def theirs_of(name: str) -> str:
    """What transformers calls a tensor of ours."""
    outside = {"embedding.weight": "model.embed_tokens.weight", "final_norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}
    if name in outside:
        return outside[name]
    _, layer, part, *rest = name.split(".")
    if part == "attention":
        return f"model.layers.{layer}.self_attn.{THEIRS[rest[0]]}.{rest[1]}"
    if part == "feed_forward":
        return f"model.layers.{layer}.mlp.{rest[0]}_proj.{rest[1]}"
    norms = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    return f"model.layers.{layer}.{norms[part]}.{rest[0]}"


def yarn(mscale: float, mscale_all_dim: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The context stretched fourfold, in their words and in ours; scores are multiplied by the square of a softening, too."""
    said = {"factor": 4.0, "beta_fast": 2.0, "beta_slow": 0.5, "mscale": mscale, "mscale_all_dim": mscale_all_dim}
    theirs = {**said, "rope_type": "yarn", "rope_theta": 100.0, "original_max_position_embeddings": 16}
    ours = {"theta": 100.0, "scaling": {**said, "type": "yarn", "original": 16}}
    softening = 1 + 0.1 * mscale_all_dim * math.log(4)
    return {"rope_parameters": theirs}, {"position": ours, "attention": {"scale": softening**2 / math.sqrt(12 + 8)}}


@pytest.mark.parametrize(
    ("family", "fields", "changes"),
    [
        ("V2", {}, {}),
        ("V2", {"q_lora_rank": None, "attention_bias": True}, {"attention": {"q_rank": None, "bias": True}}),
        ("V3", {}, {}),
        ("V3", {"rope_interleave": False, "attention_bias": True}, {"position": {"layout": "half"}, "attention": {"bias": True}}),
        ("V3", {"q_lora_rank": None}, {"attention": {"q_rank": None}}),
        ("V2", *yarn(0.707, 0.707)),
        ("V2", *yarn(1.0, 0.5)),
        ("V3", *yarn(1.0, 1.0)),
        ("V3", *yarn(0.5, 1.0)),
    ],
    ids=["V2", "V2 Lite, biases", "V3", "V3 by halves, biases", "V3 without q_rank", *(f"YaRN {n}" for n in range(4))],
)
def test_transformers_computes_the_same(family: str, fields: dict[str, Any], changes: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"Deepseek{family}Config")(
        **{
            "vocab_size": 101,
            "hidden_size": 48,
            "intermediate_size": 56,
            "num_hidden_layers": 3,
            "first_k_dense_replace": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": 64,
            "q_lora_rank": 20,
            "kv_lora_rank": 24,
            "qk_nope_head_dim": 12,
            "qk_rope_head_dim": 8,
            "v_head_dim": 10,
            "rms_norm_eps": 1e-3,  # that of the layers; those over latents have their own
            **fields,
        }
    )
    config._attn_implementation = "eager"
    theirs = getattr(transformers, f"Deepseek{family}ForCausalLM")(config).double().eval()
    model = stirred(model_of({"norm": {"eps": 1e-3}, **changes}))
    tensors = {theirs_of(name): p.detach() for name, p in model.named_parameters()}
    report = theirs.load_state_dict(tensors, strict=True)
    assert not report.missing_keys
    tokens = tokens_of(2, 40)
    with torch.no_grad():
        expected = theirs(tokens).logits
        state = model.new_state(2)
        cached = torch.cat([model(piece, state=state) for piece in tokens.split([30, *[1] * 10], 1)], 1)
        close = 1e-5 * expected.abs().max().item()  # angles, norms and softmax are float32 there, whatever the model's dtype
        torch.testing.assert_close(model(tokens), expected, rtol=0, atol=close)
        torch.testing.assert_close(cached, expected, rtol=0, atol=close)
        other = llamazoo.load_spec(model.spec, {"attention.scale": 1.01 * latent_of(model).scale})
        scaled = llamazoo.build_model(other, dtype=torch.float64)
        scaled.load_state_dict(model.state_dict())
        assert (scaled(tokens) - expected).abs().max() > 100 * close  # so that much would be seen
