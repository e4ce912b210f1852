"""Input from strangers: refused with a reason, before any harm, and nothing is run because a file says so."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import llamazoo
from llamazoo.errors import (
    ContextLengthError,
    InputError,
    PathEscapeError,
    ResourceLimitError,
    SamplingError,
    SpecError,
    UnknownComponentError,
    WeightsError,
)
from llamazoo.spec.patch import merge
from llamazoo.spec.yaml import read_yaml, read_yaml_file


def tiny_spec(**changes: Any) -> dict[str, Any]:
    return merge(llamazoo.load_spec("llama-tiny").canonical(), changes)


def spec_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "spec.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Sizes


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    "change",
    [{"n_layers": 1_000_000_000}, {"vocab_size": 2**40}, {"dim": 2**20, "hidden_dim": 2**39}, {"n_layers": 2**40, "dim": 2**20}],
    ids=str,
)
def test_a_model_beyond_all_memory_is_refused_with_its_bytes_before_anything_is_allocated(change: dict[str, int], device: str) -> None:
    budget = None if "n_layers" in change else "64GB"
    with pytest.raises(ResourceLimitError, match=r"\d+ bytes.*\d+ bytes|more bytes than can be counted"):
        llamazoo.build_model(tiny_spec(**change), device=device, budget=budget)


def test_a_stated_budget_is_kept() -> None:
    with pytest.raises(
        ResourceLimitError, match=r"need 3\.48 MB \(3478016 bytes\) in float32; the stated budget is 3\.00 MB \(3000000 bytes\)"
    ):
        llamazoo.build_model("llama-tiny", budget="3MB")
    assert llamazoo.build_model("llama-tiny", budget="3MB", dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ResourceLimitError, match="a budget is a number of bytes"):
        llamazoo.build_model("llama-tiny", budget="plenty")


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"n_heads": 3}, ("dim", "n_heads")),
        ({"n_kv_heads": 3}, ("n_kv_heads", "n_heads")),
        ({"head_dim": 9}, ("fraction", "head_dim")),
        ({"position": {"fraction": 0.3}}, ("fraction", "head_dim")),
        ({"dim": 0}, ("dim",)),
        ({"n_layers": -1}, ("n_layers",)),
        ({"vocab_size": 0}, ("vocab_size",)),
        ({"max_seq_len": -2}, ("max_seq_len",)),
        ({"attention": {"window": 0}}, ("attention.window",)),
        ({"attention": {"n_kv_heads": -4}}, ("attention.n_kv_heads",)),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused_naming_the_fields(change: dict[str, Any], fields: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match=fields[0]) as caught:
        llamazoo.load_spec(tiny_spec(**change))
    assert all(field in str(caught.value) for field in fields)


# Names and numbers


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"n_layer": 3}, "n_layers"),
        ({"norm": "rmsnrom"}, "rmsnorm"),
        ({"attention": {"windov": 3}}, "window"),
        ({"block": "pre_norm"}, "prenorm"),
    ],
    ids=str,
)
def test_a_misspelt_name_is_answered_with_the_nearest(change: dict[str, Any], nearest: str) -> None:
    with pytest.raises(SpecError, match=f"did you mean '{nearest}'"):
        llamazoo.load_spec(tiny_spec(**change))


def test_an_exponent_is_a_number(tmp_path: Path) -> None:
    spec = llamazoo.load_spec(spec_file(tmp_path, "extends: llama-tiny\nnorm: {eps: 1e-5}\nposition: {theta: 1E4}\n"))
    assert (spec.norm.options.eps, spec.position.options.theta) == (1e-5, 1e4)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "-1e-5", "1e999"])
@pytest.mark.parametrize("field", ["norm: {eps: VALUE}", "position: {theta: VALUE}", "init: {std: VALUE}", "dropout: VALUE"])
def test_numbers_that_are_none_or_negative_are_refused(field: str, value: str, tmp_path: Path) -> None:
    path = spec_file(tmp_path, "extends: llama-tiny\n" + field.replace("VALUE", value))
    with pytest.raises(SpecError, match=r"norm\.eps|position\.theta|init\.std|dropout: no such field"):
        llamazoo.load_spec(path)


@pytest.mark.parametrize("value", ["true", '"12"', "12.5", "no", "010", "12:30", "0x10", "1_00", "0_100", "[3]", "{a: 3}", "null", "1e1"])
def test_nothing_is_coerced_into_an_integer(value: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"n_layers: |is no clear number"):
        llamazoo.load_spec(spec_file(tmp_path, f"extends: llama-tiny\nn_layers: {value}\n"))


@pytest.mark.parametrize("value", [True, "12", 12.5, 12.0, [3], None])
def test_nothing_is_coerced_in_a_map_either(value: object) -> None:
    with pytest.raises(SpecError, match="n_layers: "):
        llamazoo.load_spec(tiny_spec(n_layers=value))


# YAML


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the key 'dim' is given twice, on line 2 and on line 4"):
        llamazoo.load_spec(spec_file(tmp_path, "extends: llama-tiny\ndim: 64\nn_layers: 2\ndim: 128\n"))
    with pytest.raises(SpecError, match="the key 'eps' is given twice, on line 1 and on line 1"):
        read_yaml("norm: {eps: 1, eps: 2}")


BOMB = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
YAML_FAULTS = [
    (BOMB, "anchors and aliases are not used"),
    ("a: &a [*a]", "anchors and aliases are not used"),
    ("[" * 10_000, "nested more than 64 deep"),
    ("{a: " * 10_000 + "1" + "}" * 10_000, "nested more than 64 deep"),
    ("- " * 10_000 + "1", "nested more than 64 deep"),
    ("n_layers: " + "9" * 5_000, "is no clear number"),
    ("n_layers: 4\x00", "special characters are not allowed|cannot be parsed"),
    (b"dim: \xff\xfe\xfa", "is not UTF-8 text"),
    ("", "is empty"),
    ("# nothing but a comment\n", "is empty"),
    ("a: 1\n---\nb: 2\n", "a second document begins"),
    ("!!python/object/apply:os.system ['touch CANARY']", "nothing is made or run because a file says so"),
    ("a: !!python/name:os.system", "nothing is made or run because a file says so"),
    ("a: !!python/object/new:subprocess.Popen [['touch', 'CANARY']]", "nothing is made or run because a file says so"),
    ("a: !!int '3'", "the tag .* is not used"),
    ("? [a, b]\n: 1", "a key must be a word"),
    ("a: [1, 2", "line 1, column 9: .*expected"),
    ("a: b: c", "mapping values are not allowed"),
    ("- 1\n- 2\n", "a spec is a map of fields"),
    ("just words", "a spec is a map of fields"),
]


@pytest.mark.parametrize(("text", "message"), YAML_FAULTS, ids=lambda v: ascii(v)[:40])
def test_a_yaml_file_that_could_mean_harm_is_refused(
    text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=message):
        llamazoo.load_spec(spec_file(tmp_path, text))
    assert not (tmp_path / "CANARY").exists()


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(SpecError, match="has 100000000 bytes; a spec has at most 1048576"):
        llamazoo.load_spec(path)


def test_a_pipe_is_no_spec(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(SpecError, match="is not a regular file"):
        read_yaml_file(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    "name", ["os.system", "../x", "a:b", "rmsn\u043erm", "/etc/passwd", "__import__('os')", "", "x" * 10_000, "\x1b[31mred"]
)
def test_a_component_is_only_looked_up_never_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.setattr(importlib, "import_module", lambda *a: pytest.fail(f"imported {a}"))
    with pytest.raises(UnknownComponentError, match=r"norm: no norm named ['\"]") as caught:
        llamazoo.load_spec(tiny_spec(norm=name))
    assert len(str(caught.value)) < 300
    assert str(caught.value).isascii()
    assert "\x1b" not in str(caught.value)


# extends


def test_extends_in_a_circle_is_refused_with_the_chain(tmp_path: Path) -> None:
    for here, there in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{here}.yaml").write_text(f"extends: {there}.yaml\n")
    with pytest.raises(SpecError, match=r"goes in a circle: a\.yaml -> b\.yaml -> c\.yaml -> a\.yaml"):
        llamazoo.load_spec(tmp_path / "a.yaml")
    (tmp_path / "self.yaml").write_text("extends: self.yaml\n")
    with pytest.raises(SpecError, match=r"goes in a circle: self\.yaml -> self\.yaml"):
        llamazoo.load_spec(tmp_path / "self.yaml")


def test_extends_of_a_missing_file_is_refused_with_the_chain(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"extends: no file and no model of the zoo is named 'gone\.yaml'.*spec\.yaml -> gone\.yaml"):
        llamazoo.load_spec(spec_file(tmp_path, "extends: gone.yaml"))


def test_extends_does_not_leave_the_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("extends: llama-tiny\n")
    inside = tmp_path / "models"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(secret)
    for name in ("../secret.yaml", str(secret), "link.yaml", "../models/../secret.yaml"):
        with pytest.raises(SpecError, match=r"extends: leaves the folder"):
            llamazoo.load_spec(spec_file(inside, f"extends: {name}\n"))
    (inside / "deeper").mkdir()
    (inside / "deeper" / "base.yaml").write_text("extends: llama-tiny\ndim: 64\n")
    assert llamazoo.load_spec(spec_file(inside, "extends: deeper/base.yaml\n")).dim == 64


@pytest.mark.parametrize("value", ["3", "[a, b]", "{a: b}", "null2", '"a\\0b"', "/dev/zero"])
def test_extends_of_something_else_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="extends: "):
        llamazoo.load_spec(spec_file(tmp_path, f"extends: {value}\n"))


# Checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"n_layers": 1, "dim": 32}), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def with_header(path: Path, header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_FILES: list[tuple[str, Any, bytes, int | None]] = [
    ("empty", None, b"", None),
    ("seven bytes", None, b"1234567", None),
    ("garbage", None, bytes(range(256)) * 4, None),
    ("a header of gigabytes", b"{}", b"", 8_000_000_000),
    ("a header longer than the file", b"{}", b"", 3),
    ("no JSON", b"{nonsense}", b"", None),
    ("deep JSON", b'{"a":' + b"[" * 100_000, b"", None),
    ("a list", b"[1, 2]", b"", None),
    (
        "keys twice",
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"1234",
        None,
    ),
    ("a leading space", b' {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"12345678", None),
    ("an unknown dtype", {"a": {**ENTRY, "dtype": "Q4_K"}}, b"12345678", None),
    ("a negative shape", {"a": {**ENTRY, "shape": [-2]}}, b"12345678", None),
    ("a huge shape", {"a": {**ENTRY, "shape": [0, 2**62]}}, b"12345678", None),
    ("a shape of a truth value", {"a": {**ENTRY, "shape": [True, 2]}}, b"12345678", None),
    ("offsets that do not fit the shape", {"a": {**ENTRY, "data_offsets": [0, 4]}}, b"12345678", None),
    ("an overlap", {"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, b"123456789012", None),
    ("a hole", {"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}}, b"12345678901234567890", None),
    ("trailing bytes", {"a": ENTRY}, b"123456789", None),
    ("missing bytes", {"a": ENTRY}, b"1234", None),
    ("an entry of something else", {"a": 3}, b"", None),
    ("metadata of something else", {"__metadata__": {"a": 3}, "b": ENTRY}, b"12345678", None),
    ("a name that climbs", {"../../x": ENTRY}, b"12345678", None),
]


@pytest.mark.parametrize(("what", "header", "data", "length"), BAD_FILES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_broken_safetensors_file_is_refused(what: str, header: Any, data: bytes, length: int | None, folder: Path) -> None:
    path = folder / "model.safetensors"
    if header is None:
        path.write_bytes(data)
    else:
        with_header(path, header, data, length)
    with pytest.raises(WeightsError, match=r"model"):
        llamazoo.load_model(folder)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(keep: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        llamazoo.load_model(folder)


def rewritten(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_all_that_does_not_fit_is_listed_in_one_error(folder: Path) -> None:
    def change(t: dict[str, torch.Tensor]) -> None:
        del t["final_norm.weight"]
        t["extra.weight"] = torch.ones(2)
        t["blocks.0.attention.q.weight"] = torch.ones(3, 32)
        t["blocks.0.attention.k.weight"] = torch.ones(32, 32, dtype=torch.int32)

    rewritten(folder, change)
    with pytest.raises(WeightsError, match="nothing was loaded") as caught:
        llamazoo.load_model(folder)
    told = str(caught.value)
    assert "missing: final_norm.weight" in told
    assert "unexpected: 'extra.weight'" in told
    assert "shape: blocks.0.attention.q.weight is [3, 32], the model's blocks.0.attention.q.weight is [32, 32]" in told
    assert "dtype: blocks.0.attention.k.weight is torch.int32, the model's blocks.0.attention.k.weight is torch.float32" in told


def test_partial_loading_still_refuses_a_tensor_of_another_shape(folder: Path) -> None:
    rewritten(folder, lambda t: t.update({"final_norm.weight": torch.ones(7)}))
    with pytest.raises(WeightsError, match=r"shape: final_norm\.weight is \[7\]"):
        llamazoo.load_model(folder, partial=True)


def test_a_missing_head_and_a_different_tied_head_are_refused(folder: Path, tmp_path: Path) -> None:
    rewritten(folder, lambda t: t.pop("head.weight"))
    with pytest.raises(WeightsError, match=r"missing: head\.weight"):
        llamazoo.load_model(folder)
    tied = tmp_path / "tied"
    llamazoo.save_model(llamazoo.build_model("llama-tiny", overrides={"head.tied": True, "n_layers": 1}), tied)
    rewritten(tied, lambda t: t.update({"head.weight": t["embedding.weight"].clone()}))
    model = llamazoo.load_model(tied)
    assert model.get_parameter("head.weight") is model.get_parameter("embedding.weight")
    rewritten(tied, lambda t: t["head.weight"].add_(1))
    with pytest.raises(WeightsError, match=r"head\.weight and embedding\.weight are tied in this model, but differ"):
        llamazoo.load_model(tied)


def sharded(folder: Path) -> dict[str, Any]:
    """The folder's weights in two shards; the index that says so."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for shard, chosen in (("one.safetensors", names[::2]), ("two.safetensors", names[1::2])):
        save_file({n: tensors[n] for n in chosen}, folder / shard)
        weight_map.update(dict.fromkeys(chosen, shard))
    index = {"weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_sharded_weights_load(folder: Path) -> None:
    whole = llamazoo.load_model(folder).state_dict()
    sharded(folder)
    again = llamazoo.load_model(folder).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    "target", ["../victim.safetensors", "ABSOLUTE", "link", "pipe", "/dev/zero", "directory", "linked/victim.safetensors", "a\0b", ""]
)
def test_an_index_that_points_outside_is_refused_before_anything_is_opened(target: str, folder: Path) -> None:
    victim = folder.parent / "victim.safetensors"
    shutil.copy(folder / "model.safetensors", victim)
    index = sharded(folder)
    (folder / "link").symlink_to(victim)
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    (folder / "directory").mkdir()
    index["weight_map"]["final_norm.weight"] = str(victim) if target == "ABSOLUTE" else target
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PathEscapeError, match=r"points outside|no regular file|no file name"):
        llamazoo.load_model(folder)


def test_a_link_within_a_hub_cache_is_followed(folder: Path) -> None:
    cache = folder.parent / "cache"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        file.rename(cache / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert llamazoo.load_model(snapshot).spec.dim == 32


def test_shards_that_disagree_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file

    index = sharded(folder)
    where = folder / "model.safetensors.index.json"
    where.write_text(json.dumps({"weight_map": {**index["weight_map"], "ghost": "one.safetensors"}}))
    with pytest.raises(WeightsError, match=r"does not agree with its files: not where it says: 'ghost'"):
        llamazoo.load_model(folder)
    where.write_text(json.dumps({"weight_map": {n: f for n, f in index["weight_map"].items() if n != "final_norm.weight"}}))
    with pytest.raises(WeightsError, match=r"in a file but not in the index: 'final_norm\.weight'"):
        llamazoo.load_model(folder)
    where.write_text(json.dumps({"weight_map": "one.safetensors"}))
    with pytest.raises(WeightsError, match="has no `weight_map`"):
        llamazoo.load_model(folder)
    where.write_text(json.dumps(index))
    save_file(load_file(folder / "one.safetensors") | load_file(folder / "two.safetensors"), folder / "two.safetensors")
    with pytest.raises(WeightsError, match=r"is in one\.safetensors too"):
        llamazoo.load_model(folder)
    (folder / "two.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"the file 'two\.safetensors' is missing"):
        llamazoo.load_model(folder)


class Canary:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        llamazoo.load_model(folder)
    torch.save({"norm.weight": Canary(canary)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="a zip or pickle file"):
        llamazoo.load_model(folder)
    meta = tmp_path / "meta"
    meta.mkdir()
    (meta / "params.json").write_text('{"dim": 8, "n_layers": 1, "n_heads": 1, "multiple_of": 8}')
    for payload in ({"norm.weight": Canary(canary)}, Canary(canary)):
        torch.save(payload, meta / "consolidated.00.pth")
        with pytest.raises(WeightsError, match=r"consolidated\.00\.pth: is no file of plain tensors"):
            llamazoo.load_model(meta)
    (meta / "consolidated.00.pth").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(WeightsError, match="is no file of plain tensors"):
        llamazoo.load_model(meta)
    assert not canary.exists()


def meta_folder(path: Path, tensors: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "params.json").write_text('{"dim": 8, "n_layers": 1, "n_heads": 1, "multiple_of": 8, "vocab_size": 16}')
    torch.save(tensors, path / "consolidated.00.pth")
    return path


def repacked(path: Path, compression: int, change: Any) -> None:
    """The same archive with `change(name, data)` for each entry."""
    with zipfile.ZipFile(path) as old:
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in entries:
            new.writestr(name, change(name, data))


def test_a_pth_that_is_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    meta = meta_folder(tmp_path / "meta", {"norm.weight": torch.ones(8)})
    repacked(meta / "consolidated.00.pth", zipfile.ZIP_DEFLATED, lambda name, data: bytes(50 << 20) if "data/" in name else data)
    assert (meta / "consolidated.00.pth").stat().st_size < 1 << 20
    with pytest.raises(WeightsError, match=r"consolidated\.00\.pth: the entry .* is compressed, to [0-9]+ of [0-9]+ bytes"):
        llamazoo.load_model(meta)


def test_a_pth_whose_tensors_overlap_or_are_giants_of_few_bytes_is_refused(tmp_path: Path) -> None:
    values = torch.ones(1 << 16)
    giant = meta_folder(tmp_path / "giant", {"norm.weight": torch.ones(1).expand(1 << 40)})
    with pytest.raises(WeightsError, match=r"'norm\.weight' is no contiguous tensor"):
        llamazoo.load_model(giant)
    shared = meta_folder(tmp_path / "shared", {f"layers.{i}.ffn_norm.weight": values for i in range(100)})
    with pytest.raises(WeightsError, match=r"ffn_norm\.weight' overlaps 'layers"):
        llamazoo.load_model(shared)


def test_a_pth_whose_entries_overlap_is_refused(tmp_path: Path) -> None:
    meta = meta_folder(tmp_path / "meta", {"norm.weight": torch.ones(8), "tok_embeddings.weight": torch.ones(16, 8)})
    path = meta / "consolidated.00.pth"
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first, second = (info for info in archive.infolist() if "/data/" in info.filename)
    at = data.rindex(second.filename.encode()) - 4  # the offset of the second, in the directory at the end of the file
    path.write_bytes(data[:at] + struct.pack("<I", first.header_offset) + data[at + 4 :])
    with pytest.raises(WeightsError, match="overlaps another, or reaches beyond the file"):
        llamazoo.load_model(meta)


QUANTIZED = {
    "GPTQ or AWQ": {"model.layers.0.self_attn.q_proj.qweight": torch.zeros(4, 4, dtype=torch.int32)},
    "MXFP4": {"model.layers.0.mlp.experts.gate_up_proj_blocks": torch.zeros(4, 4, dtype=torch.uint8)},
    "FP8": {"model.layers.0.self_attn.q_proj.weight_scale_inv": torch.zeros(4)},
}


@pytest.mark.parametrize("method", QUANTIZED)
def test_a_quantised_file_is_refused_by_name_whatever_its_config_says(method: str, tmp_path: Path) -> None:
    llamazoo.save_model(llamazoo.build_model("llama-tiny"), tmp_path / "model", format="hf")
    save_file(QUANTIZED[method], tmp_path / "model" / "model.safetensors")
    told = rf"{next(iter(QUANTIZED[method]))}: the weights are quantised \({method}\), which is not supported; supported are plain"
    with pytest.raises(WeightsError, match=told):
        llamazoo.load_model(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(WeightsError, match=r"config\.json: quantization_config: the weights are quantised \('awq'\)"):
        llamazoo.load_model(tmp_path / "model")


# Tokens


BAD_TOKENS = [
    (torch.tensor([[0, -1]]), "token id -1 is outside the vocabulary, 0 to 255"),
    (torch.tensor([[0, 256]]), "token id 256 is outside the vocabulary"),
    (torch.tensor([[0.0, 1.0]]), r"integer ids, found torch\.float32"),
    (torch.zeros(1, 0, dtype=torch.int64), r"at least one token a row; found \[1, 0\]"),
    (torch.zeros(0, 3, dtype=torch.int64), r"found \[0, 3\]"),
    (torch.tensor([1, 2]), r"found \[2\]"),
    ([[1, 2]], "found list"),
]


@pytest.mark.parametrize(("tokens", "message"), BAD_TOKENS, ids=lambda v: str(v)[:30])
def test_tokens_that_are_none_are_refused(tokens: Any, message: str, tiny: llamazoo.Decoder) -> None:
    with pytest.raises(InputError, match=message):
        tiny(tokens)
    with pytest.raises(InputError, match=message):
        tiny(tokens, state=tiny.new_state(1))
    with pytest.raises(InputError, match=message):
        tiny.loss(tokens)


BAD_PROMPTS: list[tuple[Any, str]] = [
    ([], "there is no prompt|prompt 0 is empty"),
    ([[]], "prompt 0 is empty"),
    ([[1], []], "prompt 1 is empty"),
    ([1, 256], "the token id 256, outside"),
    ([-1], "the token id -1, outside"),
    ([1.5], r"1\.5, which is no integer id"),
    ([True], "True, which is no integer id"),
    ("text", "give the tokenizer too"),
    (None, "found NoneType"),
    (torch.tensor([[0.5]]), "integer ids"),
    (torch.zeros(1, 0, dtype=torch.int64), "prompt 0 is empty"),
]


@pytest.mark.parametrize(("prompt", "message"), BAD_PROMPTS, ids=lambda v: str(v)[:30])
def test_prompts_that_are_none_are_refused(prompt: Any, message: str, tiny: llamazoo.Decoder) -> None:
    with pytest.raises(InputError, match=message):
        llamazoo.generate(tiny, prompt, max_new_tokens=2)


def test_more_than_the_context_or_the_cache_is_refused_before_work(tiny: llamazoo.Decoder) -> None:
    with pytest.raises(
        ContextLengthError, match=r"a prompt of 500 tokens and 13 new ones need 513; the model's context, max_seq_len, is 512"
    ):
        llamazoo.generate(tiny, [1] * 500, max_new_tokens=13)
    with pytest.raises(ContextLengthError, match=r"row 0 would hold 0 \+ 513 tokens, more than the model's context"):
        tiny(torch.zeros(1, 513, dtype=torch.int64))
    with pytest.raises(ContextLengthError, match="a cache of 513 tokens is longer"):
        tiny.new_state(1, 513)
    state = tiny.new_state(2, 8)
    tiny(torch.zeros(2, 6, dtype=torch.int64), state=state)
    with pytest.raises(ContextLengthError, match=r"row 0 would hold 6 \+ 3 tokens, more than the state's capacity \(8\)"):
        tiny(torch.zeros(2, 3, dtype=torch.int64), state=state)
    assert state.lengths == [6, 6]
    tiny(torch.zeros(2, 2, dtype=torch.int64), state=state)
    assert state.lengths == [8, 8]


BAD_SAMPLING = [
    {"temperature": -0.1},
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"top_p": 0.0},
    {"top_p": 1.1},
    {"top_p": float("nan")},
    {"top_k": 0},
    {"top_k": 257},
    {"top_k": 2.5},
    {"min_p": -0.1},
    {"min_p": 1.5},
    {"repetition_penalty": 0.0},
    {"repetition_penalty": float("nan")},
    {"seed": -1},
    {"seed": 1.5},
]


@pytest.mark.parametrize("settings", BAD_SAMPLING, ids=str)
def test_settings_that_say_nothing_sensible_are_refused(settings: dict[str, Any], tiny: llamazoo.Decoder) -> None:
    with pytest.raises(SamplingError, match=next(iter(settings))):
        llamazoo.generate(tiny, [1], max_new_tokens=1, **{"temperature": 1.0, **settings})


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_from_which_nothing_can_be_drawn_give_no_token(value: float, temperature: float) -> None:
    from llamazoo.generation.sampling import Sampler, Sampling

    sampler = Sampler(Sampling(temperature=temperature), 2, 4, 0, torch.device("cpu"))
    logits = torch.stack((torch.zeros(4), torch.full((4,), value)))
    with pytest.raises(SamplingError, match="the logits of row 1 hold"):
        sampler.draw(logits)
    if value != float("-inf"):
        logits = torch.tensor([[0.0, value, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
        with pytest.raises(SamplingError, match="the logits of row 0 hold"):
            sampler.draw(logits)


def test_a_row_of_padding_only_is_refused(tiny: llamazoo.Decoder) -> None:
    tokens = torch.ones(3, 4, dtype=torch.int64)
    valid = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    with pytest.raises(InputError, match="row 1 is all padding; leave it out"):
        tiny(tokens, valid=valid)
    with pytest.raises(InputError, match="valid is a bool tensor"):
        tiny(tokens, valid=valid.long())
    with pytest.raises(InputError, match=r"valid has the shape \[3, 3\], tokens \[3, 4\]"):
        tiny(tokens, valid=valid[:, :3])
