"""Every zoo file is the published model: its size, and what a Hugging Face configuration of it says."""

import json
from pathlib import Path

import pytest

import llamazoo
from llamazoo.spec.compose import parse_spec
from llamazoo.spec.differences import differences
from llamazoo.weights.formats.hf.format import spec_of

OURS = {"llama-tiny", "llama-7b-layernorm", "llama-7b-learned"}  # not published models


@pytest.mark.parametrize("name", llamazoo.zoo_names())
def test_every_zoo_file_builds_on_meta_with_the_size_that_is_described(name: str) -> None:
    model = llamazoo.build_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == llamazoo.describe(model.spec).parameters


@pytest.mark.parametrize("name", sorted(set(llamazoo.zoo_names()) - OURS))
def test_a_zoo_file_is_the_published_model(name: str, oracles: Path) -> None:
    published = json.loads((oracles / "zoo.json").read_text())[name]
    spec = llamazoo.load_spec(name)
    assert llamazoo.describe(spec).parameters == published["parameters"]
    theirs = parse_spec(spec_of(published["hf_config"], name))
    lost = [d for d in differences(spec, theirs) if d.path not in ("bos_id", "eos_ids")]
    assert lost == []


def test_llama_7b_is_the_size_of_the_paper() -> None:
    assert llamazoo.describe(llamazoo.load_spec("llama-7b.yaml")).parameters == 6_738_415_616


def test_the_two_ablations_are_three_lines_at_most() -> None:
    for name in ("llama-7b-layernorm", "llama-7b-learned"):
        assert len((Path(llamazoo.__file__).parent / "zoo" / f"{name}.yaml").read_text().splitlines()) <= 3


def test_a_zoo_file_read_again_from_its_canonical_form_is_the_same() -> None:
    for name in llamazoo.zoo_names():
        spec = llamazoo.load_spec(name)
        assert parse_spec(spec.canonical()) == spec
        assert parse_spec(spec.canonical()).canonical() == spec.canonical()


def test_building_a_large_model_on_meta_takes_no_memory() -> None:
    model = llamazoo.build_model("llama-2-70b", device="meta")
    assert all(p.is_meta for p in model.parameters())
