"""The names of real checkpoints, of each model type: all are taken in, none of the model's is missing, and they go back as they came."""

import pytest
from published_names import NAMES, Names

import llamazoo
from llamazoo.weights.formats.hf.format import FAMILIES, HuggingFace
from llamazoo.weights.load import targets
from llamazoo.weights.rule import Drop, plan

# Buffers in each layer (masks, frequencies), and the layer for multi-token prediction.
DROPPED = {"llama": 32, "gpt2": 24, "gpt_neox": 108, "deepseek_v3": 788}


@pytest.mark.parametrize("case", NAMES, ids=str)
def test_the_names_of_a_real_checkpoint_are_all_taken_in_and_given_back(case: Names) -> None:
    spec = llamazoo.load_spec(case.zoo, case.changes)
    assert spec.about.model_type == case.model_type
    names, rules = case.all(), HuggingFace.rules(spec, spec)
    wanted, shared = targets(llamazoo.build_model(spec, device="meta"))

    moves, unknown = plan(rules, names, "theirs")
    assert unknown == []
    dropped = {name: move.rule.reason for move in moves if isinstance(move.rule, Drop) for name in move.theirs}
    assert [name for name, reason in dropped.items() if not reason] == []
    kept = [move for move in moves if not isinstance(move.rule, Drop)]
    assert sorted([*dropped, *(name for move in kept for name in move.theirs)]) == sorted(names)
    made = [name for move in kept for name in move.ours]
    assert sorted(set(made) - set(shared)) == sorted(wanted)
    assert len(set(made)) == len(made)

    back, unknown = plan(rules, wanted, "ours")
    assert unknown == []
    twice = {name for move in kept if set(move.ours) <= set(shared) for name in move.theirs}  # a tied head that is in the file too
    expected = [case.prefix + name for name in names if name not in dropped and name not in twice]
    assert sorted(name for move in back for name in move.theirs) == sorted(expected)


@pytest.mark.parametrize("case", NAMES, ids=str)
def test_of_a_real_checkpoint_only_buffers_and_another_models_layer_are_dropped(case: Names) -> None:
    spec = llamazoo.load_spec(case.zoo, case.changes)
    moves, _ = plan(HuggingFace.rules(spec, spec), case.all(), "theirs")
    assert sum(len(move.theirs) for move in moves if isinstance(move.rule, Drop)) == DROPPED.get(case.model_type, 0)


def test_the_model_types_that_are_read_are_those_with_names_of_a_real_checkpoint() -> None:
    assert sorted(FAMILIES) == sorted(case.model_type for case in NAMES)


@pytest.mark.parametrize(("model_type", "count"), [("llama", 323), ("qwen3", 311), ("deepseek_v3", 46_183)])
def test_compact_names_stand_for_as_many_as_the_file_has(model_type: str, count: int) -> None:
    names = next(case for case in NAMES if case.model_type == model_type).all()
    assert len(set(names)) == len(names) == count
