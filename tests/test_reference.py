"""Against references made by others: real trained weights, Meta's own layout, the transformers library, a LLaMA by hand."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import llamazoo


def test_real_weights_give_the_reference_ids_logits_and_tokens(smollm2: Path, oracles: Path) -> None:
    model = llamazoo.load_model(smollm2, dtype=torch.float32).eval()
    tokenizer = llamazoo.load_tokenizer(smollm2)
    for row in json.loads((oracles / "smollm2_135m.json").read_text())["rows"]:
        assert tokenizer.encode(row["prompt"]) == row["ids"]
        ids = torch.tensor([row["ids"]])
        with torch.no_grad():
            logits = model(ids)
            nll = model.loss(ids).item()
        expected = torch.tensor(row["last_logits_first32"])
        assert (logits[0, -1, :32] - expected).abs().max() < 2e-3
        assert logits[0, -1].argmax() == row["last_argmax"]
        assert abs(logits[0, -1].logsumexp(-1).item() - row["last_logsumexp"]) < 2e-3
        assert abs(nll - row["mean_nll"]) < 2e-3
        made = llamazoo.generate(model, row["prompt"], max_new_tokens=48, stop_ids=(), tokenizer=tokenizer)
        assert made.tokens[0] == row["greedy_48"]
        assert made.text == row["text"]


@pytest.fixture(scope="module")
def meta(oracles: Path) -> tuple[Path, dict[str, Any]]:
    folder = oracles / "meta_tiny"
    return folder, json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-5)], ids=str)
def test_metas_shards_are_joined_and_give_the_reference_logits(
    meta: tuple[Path, dict[str, Any]], dtype: torch.dtype, tolerance: float
) -> None:
    folder, expected = meta
    model = llamazoo.load_model(folder, dtype=dtype).eval()
    logits = model(torch.tensor(expected["tokens"])).double()
    assert (logits[:, -1] - torch.tensor(expected["logits_last"], dtype=torch.float64)).abs().max() < tolerance
    assert (logits[..., :16] - torch.tensor(expected["logits_first16"], dtype=torch.float64)).abs().max() < tolerance
    made = llamazoo.generate(model, expected["greedy_prompt"], max_new_tokens=32, stop_ids=())
    assert expected["greedy_prompt"] + made.tokens[0] == expected["greedy"]


def test_metas_model_saved_for_transformers_gives_the_same_logits_there(meta: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder, expected = meta
    tokens = torch.tensor(expected["tokens"])
    model = llamazoo.load_model(folder, dtype=torch.float32).eval()
    llamazoo.save_model(model, tmp_path / "hf", format="hf")
    assert torch.equal(llamazoo.load_model(tmp_path / "hf")(tokens), model(tokens))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (theirs(tokens).logits - model(tokens)).abs().max() < 1e-4


VARIANTS: list[dict[str, Any]] = [
    {},
    {"n_kv_heads": 2, "head.tied": True, "position.theta": 5e5},
    {"attention.qkv_bias": True, "attention.out_bias": True, "feed_forward.bias": True, "head_dim": 48},
    {"feed_forward.activation": {"type": "gelu", "approximate": "tanh"}, "norm.eps": 1e-3},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_transformers_loads_what_we_save_and_we_load_what_it_saves(changes: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = llamazoo.build_model("llama-tiny", overrides={"init.std": 0.1, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # so that biases and gains say something
    llamazoo.save_model(model, tmp_path / "ours", format="hf")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, 256, (2, 40))
    with torch.no_grad():
        assert (theirs.eval()(tokens).logits - model(tokens)).abs().max() < 1e-4
    theirs.save_pretrained(tmp_path / "theirs")
    again = llamazoo.load_model(tmp_path / "theirs").eval()
    assert torch.equal(again(tokens), model(tokens))


# Composition costs nothing

VIEWS = {
    "view",
    "_unsafe_view",
    "transpose",
    "t",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "detach",
    "alias",
    "permute",
    "split",
}


class Operators(TorchDispatchMode):
    """Counts the operators that compute, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("layers", "kv_heads", "dtype"), [(1, 4, torch.float32), (2, 2, torch.float32), (4, 1, torch.float32), (2, 4, torch.bfloat16)], ids=str
)
def test_a_spec_built_llama_runs_no_more_operators_than_one_written_by_hand(
    layers: int, kv_heads: int, dtype: torch.dtype, oracles: Path
) -> None:
    where = importlib.util.spec_from_file_location("plain_llama", oracles / "plain_llama.py")
    assert where is not None
    assert where.loader is not None
    plain_llama = importlib.util.module_from_spec(where)
    where.loader.exec_module(plain_llama)
    plain = plain_llama.PlainLlama(256, 64, layers, 4, kv_heads, 176, 128).to(dtype).eval()
    spec = llamazoo.load_spec("llama-tiny", {"dim": 64, "n_layers": layers, "n_kv_heads": kv_heads, "hidden_dim": 176, "max_seq_len": 128})
    model = llamazoo.build_model(spec, dtype=dtype).eval()
    names = {"q": "q", "kk": "k", "v": "v", "o": "o"}
    with torch.no_grad():
        plain.embedding.weight.copy_(model.get_parameter("embedding.weight"))
        plain.head.weight.copy_(model.get_parameter("head.weight"))
        for i, block in enumerate(plain.blocks):
            for theirs, ours in names.items():
                getattr(block, theirs).weight.copy_(model.get_parameter(f"blocks.{i}.attention.{ours}.weight"))
            for name in ("gate", "up", "down"):
                getattr(block, name).weight.copy_(model.get_parameter(f"blocks.{i}.feed_forward.{name}.weight"))
        caches = [(torch.zeros(1, kv_heads, 64, 16, dtype=dtype), torch.zeros(1, kv_heads, 64, 16, dtype=dtype)) for _ in range(layers)]
        state = model.new_state(1, 64)
        tokens = torch.randint(0, 256, (1, 24))
        tolerance = 1e-4 if dtype == torch.float32 else 0.1
        for chunk, start in ((tokens, 0), (tokens[:, :1], 24)):
            with Operators() as by_hand:
                expected = plain(chunk, caches, start)
            with Operators() as composed:
                found = model(chunk, state=state)
            assert (found - expected).abs().max() < tolerance
            assert composed.counts.total() <= by_hand.counts.total(), (composed.counts - by_hand.counts, by_hand.counts - composed.counts)
        with Operators() as by_hand:
            plain(tokens)
        with Operators() as composed:
            model(tokens)
        assert composed.counts.total() <= by_hand.counts.total(), composed.counts - by_hand.counts
