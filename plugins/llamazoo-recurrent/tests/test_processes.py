"""A divided mixer computes what one process computes: forward, on a state, and every gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import llamazoo
from llamazoo import divide
from llamazoo.testing import BASE, ThreadShare, run_ranks, run_threads

CASES: dict[str, dict[str, Any]] = {
    "gla": {"attention": {"type": "gla", "chunk": 5}, "position": "none"},
    "gla, convolutions": {"attention": {"type": "gla", "conv": 4, "chunk": 5}, "position": "none"},
    "retention": {"attention": {"type": "retention", "chunk": 5}},
    "mamba2, one group": {"attention": {"type": "mamba2", "state_dim": 6, "chunk": 5}, "position": "none"},
    "mamba2, four groups": {"attention": {"type": "mamba2", "state_dim": 6, "n_groups": 4, "conv_bias": False}, "position": "none"},
    "gated_delta": {"attention": {"type": "gated_delta", "chunk": 5, "norm": "layernorm"}, "position": "none"},
}


def results(spec: dict[str, Any], mesh: Any = None) -> dict[str, Any]:
    model = llamazoo.build_model({**BASE, **spec}, dtype=torch.float64, device="cpu", mesh=mesh)
    tokens = torch.randint(0, BASE["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(1))
    model.loss(tokens).backward()
    with torch.no_grad():
        state = model.new_state(2, 24)
        pieces = [model(piece, state=state) for piece in tokens.split([5, 1, 1, 12, 5], 1)]
    held = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    grads = held if model.division is None else {name: model.division.whole(name, grad) for name, grad in held.items()}
    mixer = model.blocks[0].attention
    assert isinstance(mixer, llamazoo.Attention)
    numbers = sum(p.numel() for p in mixer.parameters())
    return {"logits": model(tokens).detach(), "cached": torch.cat(pieces, 1), "grads": grads, "numbers": numbers, "state": state.nbytes}


def rank_computes() -> list[dict[str, Any]]:
    mesh = init_device_mesh("cpu", (2,))
    return [results(spec, mesh) for spec in CASES.values()]


@pytest.fixture(scope="module")
def found() -> list[list[dict[str, Any]]]:
    return run_ranks(2, rank_computes)


def assert_close(a: Tensor, b: Tensor, what: str) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=lambda told: f"{what}: {told}")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_compute_what_one_does(case: str, found: list[list[dict[str, Any]]]) -> None:
    one = results(CASES[case])
    for process in found:
        two = process[list(CASES).index(case)]
        assert_close(two["logits"], one["logits"], "logits")
        assert_close(two["cached"], one["logits"], "logits on a state")
        assert two["grads"].keys() == one["grads"].keys()
        for name, grad in one["grads"].items():
            assert_close(two["grads"][name], grad, name)
        assert two["numbers"] < 0.6 * one["numbers"]
        assert two["state"] < 0.6 * one["state"]


WIDE = {"dim": 512, "n_heads": 8, "head_dim": 64, "n_layers": 1, "position": "none"}


@pytest.mark.parametrize("mixer", ["gla", "retention", "mamba2", "gated_delta"])
def test_each_process_holds_its_half_of_a_mixer_of_usual_width(mixer: str) -> None:
    def bytes_of(model: llamazoo.Decoder) -> int:
        return sum(p.nbytes for p in model.get_submodule("blocks.0.attention").parameters())

    def work(share: ThreadShare) -> float:
        whole, divided = (llamazoo.build_model("llama-tiny", overrides={**WIDE, "attention": mixer}, device="meta") for _ in range(2))
        divide(divided, share)
        return bytes_of(divided) / bytes_of(whole)

    assert max(run_threads(2, work)) <= 0.55
