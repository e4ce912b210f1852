"""llama models in GGUF files."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from llamazoo_gguf import llama
from llamazoo_gguf.plugin import Gguf

import llamazoo

Kind = GGMLQuantizationType
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def logits(model):
    with torch.no_grad():
        return model.eval()(TOKENS)


@pytest.mark.parametrize(
    "kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1], ids=lambda k: k.name
)
def test_logits_equal_those_of_the_same_model_saved_natively(kind, tiny, converted, write, tmp_path):
    model = tiny()
    with torch.no_grad():
        model.final_norm.weight.fill_(1.1)  # which 16 bits cannot hold
    path = write(converted(model, kind))
    llamazoo.save_model(model, tmp_path / "native")
    found = llamazoo.load_model(path)
    assert found.spec.canonical()["dtype"] == "float32"
    assert torch.equal(logits(found), logits(llamazoo.load_model(tmp_path / "native")))


def test_a_file_without_an_output_matrix_is_a_tied_model(tiny, converted, write):
    model = tiny(head={"tied": True})
    found = llamazoo.load_model(write(converted(model)))
    assert found.head.weight is found.embedding.weight
    assert torch.equal(logits(found), logits(model))


def test_biases_of_all_projections_are_read(tiny, converted, write):
    model = tiny(attention={"qkv_bias": True, "out_bias": True}, feed_forward={"bias": True})
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(logits(llamazoo.load_model(write(converted(model)))), logits(model))


def test_part_of_a_head_may_be_rotated(tiny, converted, write):
    model = tiny(position={"fraction": 0.5})
    tensors = converted(model)
    state = model.state_dict()
    for layer in range(2):
        for name, heads in (("q", 4), ("k", 2)):
            # llama.cpp pairs neighbours among the first rows of each head, whatever the converter did with them.
            rows = state[f"blocks.{layer}.attention.{name}.weight"].numpy().reshape(heads, 16, 64)
            first = rows[:, :8].reshape(heads, 2, 4, 64).swapaxes(1, 2).reshape(heads, 8, 64)
            tensors[f"blk.{layer}.attn_{name}.weight"] = np.concatenate((first, rows[:, 8:]), 1).reshape(-1, 64), None
    found = llamazoo.load_model(write(tensors, {"llama.rope.dimension_count": 8}))
    assert torch.equal(logits(found), logits(model))


def test_heads_may_have_a_width_of_their_own(tiny, converted, write):
    model = tiny(head_dim=32)
    lengths = {"llama.attention.key_length": 32, "llama.attention.value_length": 32}
    assert torch.equal(logits(llamazoo.load_model(write(converted(model), lengths))), logits(model))


def test_a_model_with_interleaved_pairs_takes_the_rows_as_they_are(tiny):
    model = tiny(position={"layout": "interleaved"})
    (written,) = [out for out in llamazoo.outgoing(model, Gguf) if out.name == "blk.0.attn_q.weight"]
    assert torch.equal(written.make(), model.get_parameter("blocks.0.attention.q.weight"))


def test_a_dtype_that_all_tensors_share_is_kept(tiny, converted, write):
    tensors = {name: (value.astype(np.float16), None) for name, (value, _) in converted(tiny()).items()}
    assert llamazoo.load_model(write(tensors)).dtype == torch.float16


@pytest.mark.parametrize(("kind", "dtype"), [(Kind.F16, torch.float16), (Kind.BF16, torch.bfloat16)], ids=str)
def test_vectors_in_float32_widen_a_model_only_if_16_bits_do_not_hold_them(kind, dtype, tiny, converted, write, monkeypatch):
    tensors = converted(tiny(), kind)
    path = write(tensors)
    assert llamazoo.load_model(path).dtype == dtype
    monkeypatch.setattr(llama, "MAX_VECTOR", 63)  # too large to be read for this
    assert llamazoo.load_model(path).dtype == torch.float32
    monkeypatch.undo()
    for value in (1 + 2**-12, float("inf"), float("nan"), 1e-30 if kind is Kind.F16 else 1 + 2**-9):
        norm = np.full(64, value, np.float32)
        held = bool((torch.from_numpy(norm).to(dtype).float() == torch.from_numpy(norm)).all())
        found = Gguf.read(write({**tensors, "output_norm.weight": (norm, None)}), llamazoo.default_registry()).spec.dtype
        assert found == (str(dtype).removeprefix("torch.") if held else "float32")
    assert Gguf.read(write({**tensors, "token_embd.weight": (np.zeros((40, 64), np.float32), None)}), None).spec.dtype == "float32"


def test_metadata_become_the_spec(tiny, converted, write):
    ends = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.eot_token_id": 7}
    about = {"general.type": "model", "general.quantization_version": 2, "quantize.imatrix.file": "x", "llama.rope.scaling.type": "none"}
    spec = llamazoo.load_model(write(converted(tiny()), {**ends, **about})).spec
    assert (spec.bos_id, spec.eos_ids, spec.max_seq_len) == (1, [2, 7], 32)
    assert (spec.norm.type, spec.norm.options.eps) == ("rmsnorm", 1e-5)


def test_a_folder_with_just_one_file_stands_for_that_file(tiny, converted, write, tmp_path):
    model = tiny()
    write(converted(model))
    assert torch.equal(logits(llamazoo.load_model(tmp_path)), logits(model))
    write(converted(model), name="second.gguf")
    with pytest.raises(llamazoo.WeightsError, match=r"gguf: a \.gguf file, or a folder with just one"):
        llamazoo.load_model(tmp_path)


@pytest.mark.parametrize("other", ["llamazoo.yaml", "config.json", "params.json"])
def test_a_folder_of_another_format_is_left_to_that(other, tmp_path):
    (tmp_path / "model.gguf").touch()
    assert Gguf.recognises(tmp_path)
    (tmp_path / other).touch()
    assert not Gguf.recognises(tmp_path)


def test_a_link_out_of_a_folder_is_refused(tiny, converted, write, tmp_path):
    path = write(converted(tiny()))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.gguf").symlink_to(path)
    with pytest.raises(llamazoo.PathEscapeError, match="points outside this folder"):
        llamazoo.load_model(tmp_path / "folder")
    assert llamazoo.load_model(tmp_path / "folder" / "model.gguf").spec.n_layers == 2


def test_rotary_factors_are_dropped_only_if_they_are_ones(tiny, converted, write):
    tensors = {**converted(tiny()), "rope_freqs.weight": (np.ones(8, np.float32), None)}
    assert llamazoo.load_model(write(tensors)).load_report.dropped == {"rope_freqs.weight": "all ones; others are refused"}
    for factors in (np.full(8, 2, np.float32), np.ones(4, np.float32)):
        with pytest.raises(llamazoo.WeightsError, match=r"rope_freqs.weight: scales the rotary frequencies"):
            llamazoo.load_model(write({**tensors, "rope_freqs.weight": (factors, None)}))


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"general.architecture": "gemma3"}, r"general.architecture: 'gemma3' is not supported; supported: llama"),
        ({"general.architecture": None}, r"general.architecture: is required"),
        ({"general.type": "adapter"}, r"general.type: 'adapter' is not supported"),
        ({"general.quantization_version": 3}, r"general.quantization_version: 3 is not supported"),
        ({"split.count": 3}, r"split.count: 3 is not supported"),
        ({"clip.has_vision_encoder": True}, r"'clip.has_vision_encoder': not known"),
        ({"llama.block_count": None}, r"llama.block_count: is required"),
        ({"llama.block_count": 0}, r"llama.block_count: expected a positive number, found 0"),
        ({"llama.block_count": 4_000_000_000}, r"llama.block_count: 4000000000 layers, in a file of 21 tensors"),
        ({"llama.block_count": 1.5}, r"llama.block_count: expected int, found 1.5"),
        ({"llama.attention.head_count_kv": [2, 1]}, r"llama.attention.head_count_kv: expected int, found \[2, 1\]"),
        ({"llama.attention.head_count_kv": 3}, r"n_kv_heads: 3 key/value heads do not divide 4 heads"),
        ({"llama.attention.value_length": 8}, r"llama.attention.value_length: 8 is not supported"),
        ({"llama.vocab_size": 41}, r"llama.vocab_size: 41 is not supported; supported: 40"),
        ({"llama.rope.dimension_count": 64}, r"position.fraction"),
        ({"llama.rope.freq_base": float("nan")}, r"position.theta"),
        ({"llama.rope.scaling.type": "yarn"}, r"llama.rope.scaling.type: 'yarn' is not supported"),
        ({"llama.rope.scaling.factor": 4.0}, r"llama.rope.scaling.factor: 4.0 is not supported"),
        ({"llama.expert_count": 8}, r"llama.expert_count: 8 is not supported"),
        ({"llama.attention.sliding_window": 16}, r"llama.attention.sliding_window: is not known, and so not safe to ignore"),
        ({"tokenizer.ggml.eos_token_id": 40}, r"eos_ids: 40 is no token"),
    ],
)
def test_metadata_that_cannot_be_followed_are_refused_by_name(metadata, told, tiny, converted, write):
    path = write(converted(tiny()), metadata)
    with pytest.raises(llamazoo.WeightsError, match=told) as caught:
        llamazoo.load_model(path)
    assert str(path) in str(caught.value)


def test_tensors_that_are_missing_unknown_or_of_another_shape_are_listed(tiny, converted, write):
    tensors = converted(tiny())
    del tensors["blk.1.attn_k.weight"]
    tensors["blk.0.ffn_up.weight"] = np.zeros((95, 64), np.float32), None
    tensors["blk.0.attn_sinks.weight"] = np.zeros(4, np.float32), None
    with pytest.raises(llamazoo.WeightsError, match="nothing was loaded") as caught:
        llamazoo.load_model(write(tensors))
    for told in ("missing: blk.1.attn_k.weight", "blk.0.ffn_up.weight is [95, 64]", "unexpected: 'blk.0.attn_sinks.weight'"):
        assert told in str(caught.value)
    del tensors["token_embd.weight"]
    with pytest.raises(llamazoo.WeightsError, match=r"has no tensor token_embd.weight"):
        llamazoo.load_model(write(tensors))
