"""Weights: saved and loaded bitwise, in every format, through rules that run both ways."""

import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import llamazoo
from llamazoo import Drop, Fuse, Interleave, Rename, Split, SplitGroups, SplitTransposed, Stack, Transpose
from llamazoo.contract.kinds import RotaryRows
from llamazoo.errors import PluginError, SaveError, WeightsError
from llamazoo.weights.checkpoint import options_of
from llamazoo.weights.formats.meta import hidden_width
from llamazoo.weights.formats.native import Native
from llamazoo.weights.rotary import turned
from llamazoo.weights.rule import plan
from llamazoo.weights.store import Outgoing, SafetensorsStore, write_sharded

GQA = {"n_kv_heads": 2, "n_layers": 2}
SPECS: dict[str, dict[str, Any]] = {
    "canonical": {},
    "grouped and tied": {"n_kv_heads": 2, "head.tied": True},
    "interleaved": {"position.layout": "interleaved"},
    "layernorm, learned": {"norm": "layernorm", "position": "learned"},
    "biases": {"attention.qkv_bias": True, "attention.out_bias": True, "feed_forward.bias": True},
    "t5, mlp, sandwich": {"position": "t5", "feed_forward": "mlp", "block": "sandwich", "attention.qk_norm": "rmsnorm"},
    "patterned": {
        "layers": [{"every": 2, "norm": "layernorm", "attention": {"window": 9}}],
        "block": {"type": "parallel", "shared_norm": True},
    },
}
TOKENS = torch.arange(40).reshape(2, 20) * 5


def same(a: llamazoo.Decoder, b: llamazoo.Decoder) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_a_model_saved_and_loaded_is_bitwise_the_same(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides=SPECS[name], dtype=dtype)
    llamazoo.save_model(model, tmp_path / "model")
    again = llamazoo.load_model(tmp_path / "model")
    assert same(model, again)
    assert again.dtype == dtype
    assert torch.equal(model(TOKENS), again(TOKENS))
    assert again.load_report is not None
    assert again.load_report.missing == again.load_report.unused == []


@pytest.mark.parametrize("form", ["hf", "meta"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_other_formats_give_every_tensor_back_bitwise(form: str, layout: str, tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={**GQA, "position.layout": layout})
    llamazoo.save_model(model, tmp_path / form, format=form)
    again = llamazoo.build_model(model.spec, weights=tmp_path / form)
    assert same(model, again)
    loaded = llamazoo.load_model(tmp_path / form)
    assert torch.allclose(loaded(TOKENS), model(TOKENS), atol=1e-5)


def test_weights_go_round_through_all_formats_bitwise(tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides=GQA)
    current = model
    for step, form in enumerate(("hf", "meta", "native", "hf", "meta")):
        folder = tmp_path / f"{step}-{form}"
        llamazoo.save_model(current, folder, format=form)
        current = llamazoo.load_model(folder)
    assert same(model, current)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"norm": "none"}, r"norm\.type: 'none' would become 'rmsnorm'"),
        ({"position": "learned"}, r"position\.type: 'learned'"),
        ({"head.bias": True}, r"head\.bias: True would become False"),
        ({"attention.softcap": 8.0}, r"attention\.softcap: 8\.0 would become None"),
        ({"attention.out_bias": True}, r"attention\.out_bias: True would become False"),
        ({"block": "sandwich"}, r"block\.type: 'sandwich'"),
        ({"final_norm": "none"}, r"final_norm\.type: 'none'"),
        ({"embedding.scale": 2.0}, r"embedding\.scale: 2\.0 would become None"),
        ({"head.softcap": 2.0}, r"head\.softcap: 2\.0 would become None"),
        ({"feed_forward": "mlp"}, r"feed_forward\.type: 'mlp' would become 'gated'"),
        ({"layers": [{"at": 0, "norm": "none"}]}, r"(layer 0: )?norm.type"),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["hf", "meta"])
def test_what_a_format_cannot_express_is_refused_by_name(form: str, change: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, **change})
    with pytest.raises(WeightsError, match=f"cannot express this architecture:\n(.*\n)*  {told}"):
        llamazoo.save_model(model, tmp_path / "model", format=form)
    assert list(tmp_path.iterdir()) == []


def test_every_hugging_face_activation_comes_back(tmp_path: Path) -> None:
    for act in ("silu", "gelu", {"type": "gelu", "approximate": "tanh"}, "relu", "relu2", "sigmoid"):
        folder = tmp_path / str(act)[:30].replace("'", "").replace(" ", "")
        model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, "feed_forward.activation": act})
        llamazoo.save_model(model, folder, format="hf")
        assert llamazoo.load_model(folder).spec.feed_forward == model.spec.feed_forward


def config(folder: Path, **changes: Any) -> Path:
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 1}), folder, format="hf")
    where = folder / "config.json"
    data = json.loads(where.read_text())
    data.update(changes)
    where.write_text(json.dumps({k: v for k, v in data.items() if v != "REMOVE"}))
    return folder


OLD = {"rope_parameters": "REMOVE"}  # as configs were spelled before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 4}}, "rope_parameters and rope_scaling: are the same field, and differ"),
        ({**OLD, "rope_scaling": {"rope_type": "spiral", "factor": 4}}, "rope_scaling: rope_type: 'spiral' is not supported"),
        ({**OLD, "rope_scaling": {"rope_type": "linear", "factor": 4, "alpha": 2}}, "'alpha': not known for the rope_type linear"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5}}, "rope_parameters: rope_theta: is 5, and 10000.0 outside"),
        ({"rope_parameters": {"rope_type": "default", "beta": 5}}, "rope_parameters: 'beta': not known for the default rope_type"),
        ({"sliding_window": 4096}, "'sliding_window': not known for the model type llama"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: the weights are quantised \\('gptq'\\)"),
        ({"rope_interleaved": True}, "rope_interleaved: True is not supported"),
        ({"model_type": "mamba"}, "model_type: 'mamba' is not supported; supported: llama"),
        ({"hidden_act": "exotic"}, "hidden_act: 'exotic' is not supported"),
        ({"hidden_size": "REMOVE"}, "hidden_size: is required"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "dtype and torch_dtype: are the same field, and differ"),
        ({"num_hidden_layers": "12"}, "num_hidden_layers: expected a whole number from 1, found '12'"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: expected true or false, found 1"),
    ],
    ids=str,
)
def test_a_config_field_that_is_not_understood_is_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=told):
        llamazoo.load_model(config(tmp_path / "model", **changes))


def test_old_and_new_spellings_of_a_config_are_understood(tmp_path: Path) -> None:
    old = config(tmp_path / "old", rope_parameters="REMOVE", rope_theta=7.0, rope_scaling=None, dtype="REMOVE", torch_dtype="float32")
    new = config(tmp_path / "new", rope_theta="REMOVE", rope_parameters={"rope_type": "default", "rope_theta": 7.0})
    assert llamazoo.load_model(old).spec == llamazoo.load_model(new).spec


def test_stray_tensors_of_real_files_are_dropped_with_a_reason(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = config(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}, folder / "model.safetensors")
    report = llamazoo.load_model(folder).load_report
    assert report is not None
    assert report.dropped == {"model.layers.0.self_attn.rotary_emb.inv_freq": "computed from theta"}


def test_partial_loading_keeps_fresh_values_and_says_so(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = llamazoo.build_model("llama-tiny", overrides={"init.seed": 3})
    llamazoo.save_model(model, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["blocks.1.attention.q.weight"]
    save_file({**{k: v + 1 for k, v in tensors.items()}, "extra": torch.ones(1)}, path)
    loaded = llamazoo.load_model(tmp_path / "model", partial=True)
    report = loaded.load_report
    assert report is not None
    assert (report.missing, report.unused) == (["blocks.1.attention.q.weight"], ["extra"])
    assert torch.equal(loaded.get_parameter("blocks.1.attention.q.weight"), model.get_parameter("blocks.1.attention.q.weight"))
    assert torch.equal(loaded.get_parameter("blocks.0.attention.q.weight"), model.get_parameter("blocks.0.attention.q.weight") + 1)
    assert "not in the checkpoint, fresh: blocks.1.attention.q.weight" in str(report)


def test_dtype_is_the_arguments_else_the_specs_else_pytorchs(tmp_path: Path) -> None:
    assert llamazoo.build_model("llama-tiny").dtype == torch.float32
    assert llamazoo.build_model("llama-tiny", overrides={"dtype": "bfloat16"}).dtype == torch.bfloat16
    assert llamazoo.build_model("llama-tiny", overrides={"dtype": "bfloat16"}, dtype=torch.float64).dtype == torch.float64
    model = llamazoo.build_model("llama-tiny", dtype=torch.bfloat16)
    llamazoo.save_model(model, tmp_path / "model")
    assert llamazoo.load_model(tmp_path / "model").dtype == torch.bfloat16
    wide = llamazoo.load_model(tmp_path / "model", dtype=torch.float32)
    assert torch.equal(wide.get_parameter("head.weight"), model.get_parameter("head.weight").float())


def test_angles_stay_exact_in_a_bfloat16_model() -> None:
    model = llamazoo.build_model("llama-tiny", dtype=torch.bfloat16)
    rope = model.positions["at_main"]
    assert rope.frequencies.dtype == torch.float32
    wide = llamazoo.build_model("llama-tiny")
    assert torch.equal(wide.to(torch.bfloat16).positions["at_main"].frequencies, rope.frequencies)
    assert wide.to(torch.float64).positions["at_main"].frequencies.dtype == torch.float64


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1})
    llamazoo.save_model(model, tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(SaveError, match="exists already; nothing is ever overwritten"):
        llamazoo.save_model(model, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaveError, match="exists already"):
        llamazoo.save_model(model, tmp_path / "file")
    with pytest.raises(SaveError, match="cannot be made"):
        llamazoo.save_model(model, tmp_path / "file" / "model")
    (tmp_path / "empty").mkdir()
    llamazoo.save_model(model, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "model"]
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_model_without_values_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="meta device has no weights"):
        llamazoo.save_model(llamazoo.build_model("llama-tiny", device="meta"), tmp_path / "model")
    with pytest.raises(PluginError, match="no checkpoint format named 'hff'; did you mean 'hf'"):
        llamazoo.save_model(llamazoo.build_model("llama-tiny"), tmp_path / "model", format="hff")


def test_a_folder_of_no_known_format_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is no checkpoint of a known format \(.*config\.json"):
        llamazoo.load_model(tmp_path)
    with pytest.raises(WeightsError, match="there is no such file or folder"):
        llamazoo.load_model(tmp_path / "gone")


class Within(Native):
    """A format that keeps the tokenizer within the checkpoint, and notes what it was given."""

    name = "within"

    class Options(llamazoo.ComponentOptions):
        level: int = 1

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / "within").exists()

    @classmethod
    def write(cls, model: llamazoo.Decoder, folder: Path, options: Any) -> None:
        (folder / "within").write_text(f"{options.level}")

    @classmethod
    def write_with_tokenizer(cls, model: llamazoo.Decoder, folder: Path, options: Any, tokenizer: Any) -> None:
        (folder / "within").write_text(f"{options.level} {tokenizer}")


def test_a_format_has_options_and_may_keep_the_tokenizer_within_the_checkpoint(tmp_path: Path) -> None:
    registry = llamazoo.default_registry().extended()
    registry.add_plugin(SimpleNamespace(llamazoo_formats=llamazoo.hookimpl(specname="llamazoo_formats")(lambda: [Within])), "formats")
    model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1}, registry=registry)
    llamazoo.save_model(model, tmp_path / "plain", format="within")
    llamazoo.save_model(model, tmp_path / "full", format="within", options={"level": 2}, tokenizer="words")
    assert [(tmp_path / name / "within").read_text() for name in ("plain", "full")] == ["1", "2 words"]
    assert len(list((tmp_path / "full").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"levle": 2}, r"the format 'within': levle: no such field; did you mean 'level'\? known here: level"),
        ({"level": "2"}, r"the format 'within': level: .*valid integer, found '2'"),
        ({3: 4}, r"the format 'within': 3: "),
        ("level", r"a map from names to values, found 'level'"),
    ],
    ids=str,
)
def test_an_option_that_a_format_has_not_is_refused_before_anything_is_written(options: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=told):
        options_of(Within, options)
    with pytest.raises(SaveError, match=r"the format 'hf': level: no such field"):
        llamazoo.save_model(llamazoo.build_model("llama-tiny"), tmp_path / "model", format="hf", options={"level": 1})
    assert list(tmp_path.iterdir()) == []


def test_shards_are_no_larger_than_asked_and_the_index_names_them_all(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(5)}
    described = [Outgoing(name, t.dtype, tuple(t.shape), lambda t=t: t) for name, t in tensors.items()]
    write_sharded(tmp_path, described, shard_bytes=100)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3
    store = SafetensorsStore.in_folder(tmp_path)
    assert all(torch.equal(store.read(name), t) for name, t in tensors.items())


def test_our_files_are_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = llamazoo.build_model("llama-tiny", dtype=torch.bfloat16)
    llamazoo.save_model(model, tmp_path / "model")
    read = load_file(tmp_path / "model" / "model.safetensors")
    assert {n: t.shape for n, t in read.items()} == {n: p.shape for n, p in model.named_parameters()}
    assert all(torch.equal(read[n], p) for n, p in model.named_parameters())


RULES: list[tuple[Any, list[tuple[int, ...]]]] = [
    (Rename("a.*", "b.*"), [(3, 2)]),
    (Transpose("a", "b"), [(3, 2)]),
    (Fuse(("a", "c"), "b", sizes=(2, 3)), [(2, 4), (3, 4)]),
    (Split("a", ("b", "c", "d"), sizes=(1, 2, 3), dim=1), [(4, 6)]),
    (SplitTransposed("a", ("b", "c"), sizes=(2, 4)), [(5, 6)]),
    (SplitGroups("a", ("b", "c", "d"), sizes=(4, 2, 2), groups=3), [(24, 5)]),
    (SplitGroups("a", ("b", "c", "d"), sizes=(4, 2, 2), groups=3), [(24,)]),
    (Stack(("a.0", "a.1", "a.2"), "b"), [(4, 2)] * 3),
    (Interleave("a", ("b", "c"), transposed=True), [(2, 3, 6)]),
    (Interleave("a", ("b", "c")), [(2, 6)]),
    (Transpose("a", "b"), [(2, 3, 6)]),
]


@pytest.mark.parametrize(("rule", "shapes"), RULES, ids=lambda v: type(v).__name__)
def test_every_rule_runs_both_ways(rule: Any, shapes: list[tuple[int, ...]]) -> None:
    theirs = [torch.randn(shape) for shape in shapes]
    ours = rule.read(theirs)
    assert all(torch.equal(a, b) for a, b in zip(rule.write(ours), theirs, strict=True))
    back = rule.read(rule.write(ours))
    assert all(torch.equal(a, b) for a, b in zip(back, ours, strict=True))


def test_a_fused_qkv_is_cut_where_each_group_of_heads_has_its_own() -> None:
    q, k, v = SplitGroups("a", ("q", "k", "v"), sizes=(2, 1, 1), groups=2).read([torch.arange(8)])
    assert (q.tolist(), k.tolist(), v.tolist()) == ([0, 1, 4, 5], [2, 6], [3, 7])
    turned_over = SplitTransposed("a", ("q", "k"), sizes=(1, 2)).read([torch.arange(6).view(2, 3)])
    assert [t.tolist() for t in turned_over] == [[[0, 3]], [[1, 4], [2, 5]]]


def test_interleaved_pairs_turn_into_halves_and_back() -> None:
    halves = turned(torch.arange(12), RotaryRows(6, 1), 4, to_half=True)
    assert halves.tolist() == [0, 1, 3, 2, 4, 5, 6, 7, 9, 8, 10, 11]
    assert turned(halves, RotaryRows(6, 1), 4, to_half=False).tolist() == list(range(12))


def test_a_plan_takes_every_name_once_and_says_what_is_left() -> None:
    rules = [Drop("*.junk", "not needed"), Split("l.*.qkv", ("b.*.q", "b.*.k"), (1, 1)), Rename("l.**", "b.**")]
    moves, left = plan(rules, ["l.0.qkv", "l.0.norm.weight", "x.junk", "other"], "theirs")
    assert left == ["other"]
    assert [(m.theirs, m.ours) for m in moves] == [
        (("x.junk",), ()),
        (("l.0.qkv",), ("b.0.q", "b.0.k")),
        (("l.0.norm.weight",), ("b.0.norm.weight",)),
    ]
    back, left = plan(rules, ["b.0.q", "b.0.k", "b.0.norm.weight"], "ours")
    assert ([m.theirs for m in back], left) == ([("l.0.qkv",), ("l.0.norm.weight",)], [])


@pytest.mark.parametrize(
    ("dim", "multiple_of", "multiplier", "width"),
    [
        (4096, 256, None, 11008),
        (5120, 256, None, 13824),
        (6656, 256, None, 17920),
        (8192, 256, None, 22016),
        (8192, 4096, 1.3, 28672),
        (4096, 1024, 1.3, 14336),
    ],
)
def test_metas_width_rule_gives_the_published_widths(dim: int, multiple_of: int, multiplier: float | None, width: int) -> None:
    assert hidden_width(dim, multiple_of, multiplier) == width


def meta_shards(folder: Path, model: llamazoo.Decoder, shards: int, vocabulary_cut: bool) -> None:
    """A folder as Meta's own code would have cut the model among several processes."""
    llamazoo.save_model(model, folder, format="meta")
    whole = torch.load(folder / "consolidated.00.pth", weights_only=True)
    rows, columns = ("wq", "wk", "wv", "w1", "w3", "output"), ("wo", "w2")
    for rank in range(shards):
        part = {}
        for name, tensor in whole.items():
            word = name.split(".")[-2]
            cut = 0 if word in rows else 1 if word in columns else (0 if vocabulary_cut else 1) if word == "tok_embeddings" else None
            part[name] = tensor if cut is None else tensor.chunk(shards, cut)[rank].clone()
        part["rope.freqs"] = torch.ones(4)
        torch.save(part, folder / f"consolidated.{rank:02d}.pth")


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("vocabulary_cut", [False, True])
def test_metas_shards_are_joined_as_they_were_cut(shards: int, vocabulary_cut: bool, tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"n_kv_heads": 4, "n_layers": 2})
    meta_shards(tmp_path / "meta", model, shards, vocabulary_cut)
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    (tmp_path / "meta" / "params.json").write_text(json.dumps({**params, "vocab_size": -1}))
    assert same(llamazoo.load_model(tmp_path / "meta"), model)


def test_metas_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 1})
    folder = tmp_path / "meta"
    meta_shards(folder, model, 2, False)
    second = torch.load(folder / "consolidated.01.pth", weights_only=True)
    torch.save({**second, "norm.weight": second["norm.weight"] + 1}, folder / "consolidated.01.pth")
    with pytest.raises(WeightsError, match=r"norm\.weight differs from that in consolidated\.00\.pth"):
        llamazoo.load_model(folder)
    torch.save({k: v for k, v in second.items() if k != "norm.weight"}, folder / "consolidated.01.pth")
    with pytest.raises(WeightsError, match=r"has not the same tensors as consolidated\.00\.pth: norm\.weight"):
        llamazoo.load_model(folder)
    (folder / "consolidated.01.pth").rename(folder / "consolidated.02.pth")
    with pytest.raises(WeightsError, match=r"expected consolidated\.00\.pth, consolidated\.01\.pth"):
        llamazoo.load_model(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_scaled_rope": True}, "use_scaled_rope: is not supported"),
        ({"mystery": 1}, "'mystery': not known"),
        ({"dim": 1.5}, "dim: expected a positive integer"),
        ({"multiple_of": 0}, "multiple_of: expected a positive integer"),
        ({"ffn_dim_multiplier": "x"}, "ffn_dim_multiplier: expected a positive number"),
        ({"n_layers": 10**13}, "n_layers: expected a positive integer"),
    ],
    ids=str,
)
def test_metas_params_that_are_not_understood_are_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = tmp_path / "meta"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 1}), folder, format="meta")
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps({**params, **changes}))
    with pytest.raises(WeightsError, match=told):
        llamazoo.load_model(folder)


def test_a_checkpoint_loads_into_a_spec_of_the_other_layout(tmp_path: Path) -> None:
    model = llamazoo.build_model("llama-tiny", overrides={**GQA, "attention.qk_norm": {"type": "layernorm"}, "position.fraction": 0.5})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    llamazoo.save_model(model, tmp_path / "half")
    other = llamazoo.load_spec(model.spec, {"position.layout": "interleaved"})
    turned = llamazoo.build_model(other, weights=tmp_path / "half")
    assert not same(model, turned)
    assert torch.allclose(turned(TOKENS), model(TOKENS), atol=1e-4)


class Turns(llamazoo.Position):
    """A stranger's rotary position that does not say which features pair up."""

    name = "turns"

    def rotate(self, q: torch.Tensor, k: torch.Tensor, at: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return q, k


def test_a_rotation_of_undeclared_layout_is_not_loaded_from_a_format_that_has_one(tmp_path: Path) -> None:
    registry = llamazoo.default_registry().extended(Turns)
    llamazoo.save_model(llamazoo.build_model("llama-tiny"), tmp_path / "meta", format="meta")
    with pytest.raises(WeightsError, match="the position 'local/turns' rotates, but says not in which layout"):
        llamazoo.build_model("llama-tiny", overrides={"position": "turns"}, weights=tmp_path / "meta", registry=registry)
    model = llamazoo.build_model("llama-tiny", overrides={"position": "turns"}, registry=registry)
    llamazoo.save_model(model, tmp_path / "own")
    assert same(llamazoo.load_model(tmp_path / "own", registry=registry), model)


NONSENSE = [[], {}, None, "", True, 10**400, "abc", -1, 1e400]


@pytest.mark.parametrize("form", ["hf", "meta"])
def test_nonsense_in_any_field_of_a_configuration_is_an_error_of_ours_or_understood(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, "dim": 32}), folder, format=form)
    where = folder / ("config.json" if form == "hf" else "params.json")
    good = json.loads(where.read_text())
    fields = [
        *good,
        *(("rope_scaling", "torch_dtype", "head_dim", "num_key_value_heads") if form == "hf" else ("rope_theta", "n_kv_heads")),
    ]
    for field in fields:
        for value in NONSENSE:
            where.write_text(json.dumps({**good, field: value}))
            with contextlib.suppress(llamazoo.LlamazooError):  # any other error fails the test
                llamazoo.load_model(folder)


def test_numbers_in_other_clothes_are_refused_in_configurations(tmp_path: Path) -> None:
    folder = tmp_path / "meta"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 1}), folder, format="meta")
    params = json.loads((folder / "params.json").read_text())
    for changes in ({"rope_theta": "500000"}, {"rope_theta": True}, {"ffn_dim_multiplier": True}, {"n_kv_heads": 0}, {"n_kv_heads": False}):
        (folder / "params.json").write_text(json.dumps({**params, **changes}))
        with pytest.raises(WeightsError, match=r"theta|ffn_dim_multiplier|n_kv_heads"):
            llamazoo.load_model(folder)
    for changes in (
        {"num_key_value_heads": 0},
        {"is_encoder_decoder": True},
        {"rope_parameters": {"rope_type": "default", "type": "llama3"}},
    ):
        hf = config(tmp_path / f"hf{len(list(tmp_path.iterdir()))}", **changes)
        with pytest.raises(WeightsError, match=r"n_kv_heads|is_encoder_decoder|rope_type"):
            llamazoo.load_model(hf)


def test_a_dtype_or_folder_that_is_none_is_refused() -> None:
    for dtype in ("bfloat16", torch.int64, 3):
        with pytest.raises(llamazoo.InputError, match=r"dtype is torch\.float32"):
            llamazoo.build_model("llama-tiny", dtype=dtype)
    with pytest.raises(llamazoo.InputError, match="a folder is named by a text or a path"):
        llamazoo.load_model(3)


class Lossy(llamazoo.Norm):
    """A norm with a buffer that nobody fills after a build by way of the meta device."""

    name = "lossy"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.register_buffer("gain", torch.ones(site.dim), persistent=False)


def test_a_buffer_that_nobody_fills_is_refused() -> None:
    registry = llamazoo.default_registry().extended(Lossy)
    with pytest.raises(llamazoo.LlamazooError, match=r"Lossy has the buffers gain and no compute\(\)"):
        llamazoo.build_model("llama-tiny", overrides={"norm": "lossy"}, registry=registry)


class Frozen(llamazoo.Norm):
    """A norm whose gain is kept as it was loaded, and never learned."""

    name = "frozen"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.gain = torch.nn.Parameter(torch.empty(site.dim), requires_grad=False)

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.ones(self.gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain


class Persistent(llamazoo.Norm):
    """A norm with a buffer that the state dict holds, and compute() would overwrite."""

    name = "persistent"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.register_buffer("scale", torch.ones(site.dim))

    def compute(self) -> None:
        self.scale = torch.ones_like(self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_a_parameter_that_is_not_learned_stays_so_when_it_is_loaded(tmp_path: Path) -> None:
    registry = llamazoo.default_registry().extended(Frozen)
    model = llamazoo.build_model("llama-tiny", overrides={"norm": "frozen"}, registry=registry)
    model.final_norm.gain.fill_(3.0)
    llamazoo.save_model(model, tmp_path / "model")
    again = llamazoo.load_model(tmp_path / "model", registry=registry)
    assert again.final_norm.gain.tolist() == model.final_norm.gain.tolist()
    frozen = [name for name, p in again.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, p in model.named_parameters() if not p.requires_grad] != []


def test_a_buffer_that_would_be_loaded_and_then_overwritten_is_refused() -> None:
    registry = llamazoo.default_registry().extended(Persistent)
    with pytest.raises(llamazoo.LlamazooError, match="Persistent has the persistent buffers scale; make them persistent=False if"):
        llamazoo.build_model("llama-tiny", overrides={"norm": "persistent"}, registry=registry)


def test_a_layernorm_ablation_loads_everything_but_the_norms_and_says_so(tmp_path: Path) -> None:
    llama = llamazoo.build_model("llama-tiny")
    llamazoo.save_model(llama, tmp_path / "llama", format="hf")
    told = r"of the norm 'rmsnorm' in the checkpoint, of the norm 'layernorm' in the model: blocks\.0\.attention_norm\.weight"
    with pytest.raises(WeightsError, match=told):
        llamazoo.load_model(tmp_path / "llama", overrides={"norm": "layernorm"})
    model = llamazoo.load_model(tmp_path / "llama", overrides={"norm": "layernorm"}, partial=True)
    other = llamazoo.build_model({"extends": "llama-tiny", "norm": "layernorm"}, weights=tmp_path / "llama", partial=True)
    assert str(other.load_report) == str(model.load_report)
    report = model.load_report
    assert report is not None
    norms = [name for name, _ in model.named_parameters() if "norm" in name]
    assert sorted(report.missing) == sorted(norms)
    assert sorted(report.loaded) == sorted(name for name, _ in model.named_parameters() if "norm" not in name)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in report.unused} == {"input_layernorm", "post_attention_layernorm", "norm"}
    assert all(torch.equal(model.get_parameter(name), llama.get_parameter(name)) for name in report.loaded)
    assert "not in the checkpoint, fresh: final_norm.bias" in str(report)
