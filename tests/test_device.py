"""Devices: named, measured, and on CUDA the same answers as on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from counting import SPEC, CountingData, assert_equal, recipe, weights

import llamazoo
from llamazoo.device import device_memory, device_of, devices
from llamazoo.errors import InputError, UnsupportedError

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def test_a_device_is_the_argument_else_pytorchs_default() -> None:
    assert device_of("cpu") == device_of(None) == torch.device("cpu")
    with torch.device("meta"):
        assert device_of(None).type == "meta"
        assert llamazoo.build_model("llama-tiny").device.type == "meta"
    assert llamazoo.build_model("llama-tiny", device=torch.device("cpu")).device.type == "cpu"


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnsupportedError, match="'cup' names no device; did you mean 'cpu'"):
        llamazoo.build_model("llama-tiny", device="cup")
    with pytest.raises(UnsupportedError, match="there is no device 'cuda:77' here; here are: cpu"):
        llamazoo.build_model("llama-tiny", device="cuda:77")


def test_the_memory_of_the_cpu_is_that_of_the_machine() -> None:
    assert 2**28 < device_memory(torch.device("cpu")) < 2**50
    assert "cpu" in devices()


def test_tokens_on_another_device_are_refused(tiny: llamazoo.Decoder) -> None:
    with pytest.raises(InputError, match="tokens are on meta, the model is on cpu"):
        tiny(torch.zeros(1, 2, dtype=torch.int64, device="meta"))
    with pytest.raises(InputError, match="the model is on the meta device"):
        llamazoo.generate(llamazoo.build_model("llama-tiny", device="meta"), [1], max_new_tokens=1)


CUDA_VARIANTS: list[dict[str, Any]] = [
    {},
    {"n_kv_heads": 2, "attention.window": 9},
    {"position": "alibi", "attention.softcap": 5.0},
    {"position": "t5", "norm": "layernorm", "block": "parallel"},
]


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("changes", CUDA_VARIANTS, ids=str)
def test_cuda_gives_what_the_cpu_gives(changes: dict[str, Any]) -> None:
    here = llamazoo.build_model("llama-tiny", overrides=changes, device="cpu").eval()
    there = llamazoo.build_model("llama-tiny", overrides=changes, device="cuda").eval()
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here.parameters(), there.parameters(), strict=True))
    tokens = torch.randint(0, 256, (3, 40))
    valid = torch.arange(40) < torch.tensor([[40], [17], [3]])
    with torch.no_grad():
        assert (there(tokens.cuda()).cpu() - here(tokens)).abs().max() < 1e-3
        state = there.new_state(3, 64, chunk=16)
        found = there(tokens.cuda(), state=state, valid=valid.cuda())
        assert (found.cpu()[valid] - here(tokens, valid=valid)[valid]).abs().max() < 1e-3


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_cuda_generates_cached_what_it_computes_uncached(dtype: torch.dtype) -> None:
    model = llamazoo.build_model("llama-tiny", device="cuda", dtype=dtype, overrides={"init.std": 0.2}).eval()
    prompts = [[1, 2, 3, 4, 5], [7], [9, 8, 7]]
    made = llamazoo.generate(model, prompts, max_new_tokens=12, stop_ids=())
    for prompt, new in zip(prompts, made.tokens, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + new], device="cuda"))[0, len(prompt) - 1 : -1]
        best = logits.gather(1, torch.tensor(new, device="cuda")[:, None])[:, 0]
        assert (logits.amax(-1) - best).max() < (1e-3 if dtype == torch.float32 else 0.2)


@pytest.mark.cuda
@needs_cuda
def test_cuda_refuses_a_token_outside_the_vocabulary_before_the_kernel_does() -> None:
    model = llamazoo.build_model("llama-tiny", device="cuda")
    with pytest.raises(InputError, match="token id 256 is outside"):
        model(torch.tensor([[256]], device="cuda"))


@pytest.mark.cuda
@needs_cuda
def test_cuda_samples_reproducibly(tmp_path: Any) -> None:
    model = llamazoo.build_model("llama-tiny", device="cuda")
    llamazoo.save_model(model, tmp_path / "model")
    again = llamazoo.load_model(tmp_path / "model", device="cuda")
    first, second = (llamazoo.generate(m, [1, 2], max_new_tokens=20, temperature=1.0, seed=3).tokens for m in (model, again))
    assert first == second


@pytest.mark.cuda
@needs_cuda
def test_cuda_resumes_a_run_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of AdamW's step is where the fused optimizer keeps it, on the device."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic kernels ask for

    class Stop(llamazoo.Watcher):
        def updated(self, step: int, update: Any, seconds: float) -> None:
            if step == 12:
                raise KeyboardInterrupt

    straight, stopped, resumed = (llamazoo.build_model(SPEC, device="cuda") for _ in range(3))
    expected = llamazoo.train(straight, CountingData(), recipe(), tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        llamazoo.train(stopped, CountingData(), recipe(), tmp_path / "run", watchers=[Stop()])
    found = llamazoo.train(resumed, CountingData(), recipe(), tmp_path / "run")
    assert found.points == expected.points
    assert_equal(weights(resumed), weights(straight))


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="there is no MPS device here")
def test_mps_gives_what_the_cpu_gives() -> None:
    here, there = (llamazoo.build_model("llama-tiny", device=d).eval() for d in ("cpu", "mps"))
    tokens = torch.randint(0, 256, (2, 24))
    with torch.no_grad():
        assert (there(tokens.to("mps")).cpu() - here(tokens)).abs().max() < 1e-3
    assert llamazoo.generate(there, [1, 2], max_new_tokens=4).tokens == llamazoo.generate(here, [1, 2], max_new_tokens=4).tokens
