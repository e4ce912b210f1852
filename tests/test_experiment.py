"""The experiment file: what is read, what is refused, and which runs it stands for."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

import llamazoo
from llamazoo.ablation.cautions import divided
from llamazoo.ablation.experiment import Experiment, check_vocabulary, read_experiment
from llamazoo.ablation.factors import combinations_of
from llamazoo.ablation.match import TOLERANCE
from llamazoo.ablation.outcomes import at_length, better, length_of, on_probe, probe_of, sort_of
from llamazoo.ablation.plan import Choice, Job, choose, plan
from llamazoo.ablation.preview import Preview, preview
from llamazoo.ablation.results import Run
from llamazoo.ablation.timing import timings_of
from llamazoo.ablation.work import RunTiming
from llamazoo.errors import TrainingError
from llamazoo.spec.differences import differences
from llamazoo.spec.patch import merge
from llamazoo.spec.yaml import read_yaml
from llamazoo.training.recipe import Recipe

TEXT = {"source": "stdlib", "tokenizer": "bytes"}
RECALL = {"source": "associative_recall", "vocab_size": 128}
EXPERIMENT: dict[str, Any] = {
    "base": "llama-tiny",
    "variants": {"layernorm": {"norm": "layernorm"}, "gelu": {"feed_forward": {"type": "mlp", "activation": "gelu"}}},
    "data": TEXT,
    "train": {"tokens": 40_000, "batch_tokens": 2048, "seq_len": 256, "lr": [1e-3, 3e-3]},
}


def read(change: dict[str, Any] | None = None, registry: llamazoo.Registry | None = None) -> Experiment:
    return read_experiment(merge(EXPERIMENT, change or {}), registry)


def with_variants(variants: dict[str, Any], **more: Any) -> Experiment:
    return read_experiment({**EXPERIMENT, "variants": variants, **more})


def with_factors(factors: dict[str, Any], **more: Any) -> Experiment:
    return read_experiment({**{k: v for k, v in EXPERIMENT.items() if k != "variants"}, "factors": factors, **more})


# Reading


def test_a_file_is_read_with_its_own_name_and_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "norms.yaml"
    path.write_text(
        "base: llama-tiny\nvariants:\n  layernorm: {norm: layernorm}\ndata: {source: stdlib, tokenizer: bytes}\n"
        "train: {tokens: 2_000_000, lr: [3e-3, 1e-3]}\n"
    )
    experiment = read_experiment(path)
    assert (experiment.name, experiment.match, experiment.seeds, experiment.noise) == ("norms", "parameters", 5, True)
    assert (experiment.train.tokens, experiment.train.rates, experiment.folder) == (2_000_000, [1e-3, 3e-3], tmp_path.resolve())
    assert [each.name for each in experiment.candidates] == ["base", "layernorm"]
    written = json.loads(json.dumps(experiment.model_dump(mode="json")))
    assert read_experiment(written).model_dump() == experiment.model_dump()
    assert read_experiment(path, overrides={"train.tokens": 4096, "seeds": 2}).train.tokens == 4096


def test_a_base_is_found_beside_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("extends: llama-tiny\nn_layers: 2\n")
    (tmp_path / "elsewhere" / "llama-tiny").mkdir(parents=True)
    (tmp_path / "elsewhere" / "llama-tiny" / "llamazoo.yaml").write_text("extends: llama-7b\n")
    path = tmp_path / "experiment.yaml"
    monkeypatch.chdir(tmp_path / "elsewhere")  # what lies there is not meant
    rest = "variants: {layernorm: {norm: layernorm}}\ndata: {source: stdlib}\ntrain: {tokens: 1, lr: 1e-3}\n"
    bases = {"mine.yaml": 2, "{extends: mine.yaml, dim: 64}": 2, "llama-tiny": 4, "{extends: llama-tiny, n_layers: 3}": 3}
    for base, layers in bases.items():
        path.write_text(f"base: {base}\n{rest}")
        assert {each.spec.n_layers for each in read_experiment(path).candidates} == {layers}


def test_a_base_may_be_a_spec() -> None:
    spec = llamazoo.load_spec("llama-tiny", {"n_layers": 1})
    assert read({"base": spec}).candidates[0].spec == spec


def test_all_wrong_variants_are_named_at_once_before_anything_is_trained() -> None:
    wrong = {"layernrm": {"norm": "layernrm"}, "good": {"norm": "layernorm"}, "odd-heads": {"n_heads": 3}, "x": {"dims": 3}}
    with pytest.raises(llamazoo.SpecError) as caught:
        with_variants(wrong)
    assert len(caught.value.problems) == 3
    told = str(caught.value)
    assert "variants.layernrm: norm: no norm named 'layernrm'; did you mean 'layernorm'" in told
    assert "variants.odd-heads: dim: 128 features do not divide among 3 heads" in told
    assert "variants.x: dims: no such field; did you mean 'dim'?" in told


class Broken(llamazoo.Norm):
    """Reads well, and cannot be built."""

    name = "broken_norm"

    def __init__(self, options: Any, site: llamazoo.Site) -> None:
        raise KeyError("no such\x1b device")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_variant_whose_part_cannot_be_built_is_named_with_the_line() -> None:
    registry = llamazoo.default_registry().extended(Broken)
    told = r"variants\.broken: cannot be built: KeyError: 'no such\\x1b device' \(at .*test_experiment.py:\d+, in __init__\); `llamazoo"
    with pytest.raises(llamazoo.LlamazooError, match=told):
        read_experiment({**EXPERIMENT, "variants": {"broken": {"norm": "broken_norm"}}}, registry)


def test_a_variant_that_cannot_be_matched_is_named_with_both_sizes() -> None:
    with pytest.raises(llamazoo.SpecError, match=r"variants\.big: match: the base has 869,504 parameters, this [0-9,]+ .* `match: none`"):
        with_variants({"big": {"attention": "latent"}})
    found = with_variants({"big": {"attention": "latent"}}, match="none")
    assert found.candidate("big").matched.off > 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sedes": 3}, r"sedes: no such field; did you mean 'seeds'\?"),
        ({"train": {"tokns": 3}}, r"train\.tokns: no such field; did you mean 'tokens'\?"),
        ({"train": {"lr": []}}, r"train\.lr: .*at least 1 item"),
        ({"train": {"lr": [1e-3, 1e-3]}}, r"train\.lr: .*stands here twice"),
        ({"train": {"lr": -1.0}}, r"train\.lr: .*greater than 0"),
        ({"train": {"lr": [1e-3, 5.0]}}, r"^train\.lr\.1: input should be less than or equal to 1, found 5\.0$"),
        ({"train": {"lr": [1e-3, "x"]}}, r"^train\.lr\.1: input should be a valid number, found 'x'$"),
        ({"smallest": {"loss": -1.0}}, r"^smallest\.loss: input should be greater than 0, found -1\.0$"),
        ({"train": {"seq_len": 1000}}, r"train: .*no multiple of seq_len 1000"),
        ({"train": {"seq_len": 1024}}, r"train\.seq_len: 1024 tokens are more than max_seq_len of 'base', 512"),
        ({"seeds": 0}, r"seeds: .*greater than or equal to 1"),
        ({"seeds": "5"}, r"seeds: .*valid integer, found '5'"),
        ({"version": 2}, r"version: .*1, found 2"),
        ({"match": "params"}, r"match: .*'parameters', 'flops' or 'none', found 'params'"),
        ({"base": "lama-tiny"}, r"base: no file and no model of the zoo is named 'lama-tiny'; did you mean 'llama-tiny'\?"),
        ({"base": {"extends": "llama-tiny", "dims": 3}}, r"base: dims: no such field"),
        ({"name": "a/b"}, r"name: 'a/b' cannot name a file"),
        ({"variants": {"a/b": {"norm": "layernorm"}}}, r"variants: 'a/b' cannot name a file on every machine; use letters"),
        ({"variants": {"Base": {"norm": "layernorm"}}}, r"variants\.Base: is what the base itself is called"),
        ({"variants": {"GELU": {"norm": "none"}}}, r"variants\.GELU: some machines cannot tell its files from those of 'gelu'"),
        ({"variants": {"gelu-2": "layernorm"}}, r"variants\.gelu-2: expected a map, found 'layernorm'"),
        ({"variants": {"same": {}}}, r"variants\.same: changes nothing"),
        ({"variants": ["layernorm"]}, r"variants: expected a map from names to maps, found \['layernorm'\]"),
        ({"variants": {"same": {"norm": "rmsnorm"}}}, r"variants\.same: is the base itself"),
        ({"variants": {"same": {"about.licence": "MIT"}}}, r"variants\.same: is the base itself"),
        ({"variants": {"again": {"norm.type": "layernorm"}}}, r"variants\.again: is the same model as 'layernorm'; two variants"),
        ({"variants": {"wide": {"hidden_dim": 512}}}, r"variants\.wide: is the same model as 'base' once .* matched \(hidden_dim 352\)"),
        ({"factors": {"norm": ["rmsnorm", "layernorm"]}}, r"variants: goes without `factors`"),
        ({"fraction": "1/2"}, r"fraction: is one of a grid"),
        ({"data": {"source": 3}}, r"data\.source: no source '3'; known: stdlib, "),
        ({"probes": {"recall": {"vocab_size": 3}}}, r"probes\.recall\.source: is required; known: "),
        ({"probes": {"text": TEXT}}, r"probes\.text\.source: stdlib is text, without answers"),
        ({"probes": {"a": RECALL, "b": dict(RECALL)}}, r"probes\.b: is the same data as 'a'"),
        ({"probe_train": {"tokens": 1}}, r"probe_train: .*of which there are none"),
        ({"outcomes": []}, r"outcomes: .*at least 1 item"),
        ({"outcomes": ["loss", "loss"]}, r"outcomes\.1: stands here twice"),
        ({"outcomes": ["perplexity"]}, r"outcomes\.0: no outcome is called 'perplexity'; .*known here: loss, loss@2x, loss@4x, accuracy"),
        ({"outcomes": ["loss@8x"]}, r"outcomes\.0: loss@8x is not measured: `lengths` has 1, 2, 4; add 8"),
        ({"outcomes": ["loss@1x"]}, r"outcomes\.0: loss@1x is the loss itself"),
        ({"outcomes": ["accuracy"]}, r"outcomes\.0: the source stdlib is text, without answers that are right or wrong"),
        ({"outcomes": ["accuracy:recal"], "probes": {"recall": RECALL}}, r"outcomes\.0: no probe is named 'recal'; did you mean"),
        ({"lengths": [2, 2]}, r"lengths: one of them stands here twice"),
        ({"alpha": 0.0}, r"alpha: .*greater than or equal to 0\.0001"),
        ({"alpha": 0.9}, r"alpha: .*less than or equal to 0\.5"),
        ({"power": 1.0}, r"power: .*less than 1"),
        ({"smallest": {"los": 0.1}}, r"smallest\.los: no such outcome; did you mean 'loss'\?"),
        ({"smallest": -1.0}, r"smallest.*: .*greater than 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_path(change: dict[str, Any], told: str) -> None:
    with pytest.raises(llamazoo.SpecError, match=told):
        read(change)


def test_required_fields_are_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("base: llama-tiny\ntrain: {tokens: 1}\n")
    with pytest.raises(llamazoo.SpecError) as caught:
        read_experiment(path)
    assert str(caught.value).startswith(str(path))
    assert {str(problem) for problem in caught.value.problems} == {"data: is required", "train.lr: is required"}
    with pytest.raises(llamazoo.SpecError, match="at least one is needed to compare the base with"):
        with_variants({})
    with pytest.raises(llamazoo.SpecError, match="there is no such file"):
        read_experiment(tmp_path / "none.yaml")
    path.write_text("- base\n")
    with pytest.raises(llamazoo.SpecError, match="an experiment is a map of fields, found"):
        read_experiment(path)


def test_a_file_whose_own_name_will_not_do_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "my norms.yaml"
    path.write_text("base: llama-tiny\nvariants: {a: {norm: layernorm}}\ndata: {source: stdlib}\ntrain: {tokens: 1, lr: 1e-3}\n")
    with pytest.raises(llamazoo.SpecError, match="name: 'my norms' cannot name a file"):
        read_experiment(path)
    assert read_experiment(path, overrides={"name": "norms"}).name == "norms"


def test_outcomes_have_a_sort_a_direction_and_a_smallest_difference() -> None:
    found = read(
        {"outcomes": ["loss", "loss@4x", "accuracy:recall"], "probes": {"recall": RECALL}, "smallest": {"loss": 0.02, "loss@4x": 0.5}}
    )
    assert [found.smallest_of(outcome) for outcome in found.outcomes] == [0.02, 0.5, 0.02]
    assert [better(outcome) for outcome in found.outcomes] == ["lower", "lower", "higher"]
    assert read({"smallest": 0.3}).smallest_of("accuracy") == 0.3
    assert (sort_of("loss@0x"), sort_of("lossy"), length_of(at_length(4)), probe_of(on_probe("recall"))) == (None, None, 4, "recall")
    assert at_length(1) == "loss"
    assert with_variants(EXPERIMENT["variants"], data=RECALL, outcomes=["accuracy"]).outcomes == ["accuracy"]


class Small:
    """Data of which only the vocabulary matters."""

    vocab_size = 300
    fingerprint = ""
    accuracy = False


def test_a_vocabulary_that_is_too_small_is_told() -> None:
    data: Any = Small()
    with pytest.raises(
        llamazoo.SpecError, match="data: has 300 token ids, more than fit into vocab_size: 'base' has 256, 'layernorm' has 256"
    ):
        check_vocabulary(read(), {None: data})
    check_vocabulary(read({"base": {"extends": "llama-tiny", "vocab_size": 300}}), {None: data, "recall": data})


# Variants


def test_every_variant_is_matched_and_told_in_all_it_differs_in() -> None:
    found = read({"variants": {"seeded": {"init.seed": 3, "dtype": "bfloat16"}, "balanced": {"norm.eps": 1e-3}}})
    assert all(abs(each.matched.off) <= TOLERANCE for each in found.candidates)
    told = {each.name: [(d.where, d.base, d.variant) for d in each.differences] for each in found.candidates}
    assert told["base"] == []
    assert told["layernorm"] == [
        ("final_norm", "rmsnorm {eps: 1e-05, unit_offset: false}", told["layernorm"][0][2]),
        ("norm", "rmsnorm {eps: 1e-05, unit_offset: false}", told["layernorm"][0][2]),
    ]
    assert re.fullmatch(r"layernorm \{.*bias: true.*\}", told["layernorm"][0][2])
    assert told["gelu"] == [
        ("feed_forward", "gated {activation: silu, bias: false}", "mlp {activation: gelu {approximate: none}, bias: false}"),
        ("hidden_dim", "352", "528"),
    ]
    assert told["seeded"] == [("init.seed", "0", "3"), ("dtype", "not there", "bfloat16")]
    assert told["balanced"] == [("final_norm.eps", "1e-05", "0.001"), ("norm.eps", "1e-05", "0.001")]
    base, gelu = found.candidate("base"), found.candidate("gelu")
    assert (gelu.matched.field, gelu.matched.value, gelu.spec.hidden_dim) == ("hidden_dim", 528, 528)
    assert (base.matched.field, base.matched.off, base.costs.parameters) == (None, 0.0, llamazoo.describe(base.spec).parameters)


def test_losses_and_kernels_are_told_where_training_depends_on_them() -> None:
    base = llamazoo.load_spec("llama-tiny", {"feed_forward": {"type": "experts", "n_experts": 2, "top_k": 1}})
    other = llamazoo.load_spec(base, {"feed_forward.balance": 0.1, "init.std": 0.01})
    assert differences(base, other) == []
    assert [each.path for each in differences(base, other, training=True)] == ["init.std", "feed_forward.balance"]


def test_costs_are_counted_at_the_trained_length() -> None:
    costs = read().candidates[0].costs
    spec = llamazoo.load_spec("llama-tiny", {"max_seq_len": 256})
    found = llamazoo.describe(spec)
    assert (costs.flops_per_token, costs.cache_bytes) == (found.flops_per_token, found.cache_bytes)


# Grids


def test_a_grid_has_every_combination_and_the_base_in_its_place() -> None:
    found = with_factors({"norm": ["rmsnorm", "layernorm"], "position": ["rope", "alibi", {"type": "rope", "theta": 500}]})
    assert [each.name for each in found.candidates] == ["base", "rmsnorm_alibi", "rmsnorm_type-rope-theta-500", *(
        f"layernorm_{name}" for name in ("rope", "alibi", "type-rope-theta-500")
    )]  # fmt: skip
    assert found.candidate("base").levels == {"norm": "rmsnorm", "position": "rope"}
    assert found.candidates[-1].levels == {"norm": "layernorm", "position": '{"type": "rope", "theta": 500}'}
    assert found.candidates[-1].spec.norm.type == "layernorm"
    apart = with_factors({"norm": ["layernorm", "none"], "position": ["alibi", "none"]})
    assert (len(apart.candidates), apart.candidates[0].levels) == (5, {})


def test_the_same_mistake_in_many_combinations_is_told_once() -> None:
    with pytest.raises(llamazoo.SpecError) as caught:
        with_factors({"norm": ["rmsnorm", "layernrm"], "position": ["rope", "alibi"], "n_layers": [4, 5]})
    (problem,) = caught.value.problems
    told = r"norm=layernrm, position=rope, n_layers=4: norm: no norm named 'layernrm'.*\(and in 3 more combinations\)"
    assert re.search(told, str(problem), re.DOTALL)


def test_combinations_that_matching_makes_equal_are_refused() -> None:
    with pytest.raises(llamazoo.SpecError, match=r"hidden_dim=384, norm=rmsnorm: is the same model as 'base' once its size is matched"):
        with_factors({"hidden_dim": [352, 384], "norm": ["rmsnorm", "layernorm"]})


@pytest.mark.parametrize(
    ("factors", "more", "told"),
    [
        ({"norm": ["rmsnorm"]}, {}, r"factors\.norm: a factor is a list of at least two choices, found 1"),
        ({"norm": ["rmsnorm", "rmsnorm"]}, {}, r"factors\.norm: the choice rmsnorm stands here twice"),
        ({"norm": ["rmsnorm", {"type": "rmsnorm"}, "layernorm"]}, {}, r"factors\.norm: the choice rmsnorm stands here twice"),
        ({"norm": ["rmsnorm", {"type": "rmsnorm", "eps": 1e-5}, "none"]}, {}, r"eps.*: is the base itself, and so is another"),
        ({"n_layers": list(range(1, 300))}, {}, r"factors: 299 combinations are more than 256"),
        ({"norm": ["rmsnorm", "layernorm"]}, {"fraction": "1/2"}, r"fraction: 1/2 of 1 factors cannot tell .*at least 3"),
        ({"norm": ["rmsnorm", "layernorm", "none"]}, {"fraction": "1/2"}, r"fraction: only of factors with two choices each .*\(found 3\)"),
        ({"norm": ["rmsnorm", "layernorm"]}, {"fraction": "1/3"}, r"fraction: .*'1/2' or '1/4', found '1/3'"),
        ({"norm": "layernorm"}, {}, r"factors\.norm: .*valid list, found 'layernorm'"),
    ],
)  # fmt: skip
def test_a_grid_that_says_nothing_is_refused(factors: dict[str, Any], more: dict[str, Any], told: str) -> None:
    with pytest.raises(llamazoo.SpecError, match=told):
        with_factors(factors, **more)


# How many factors: of half of the combinations, and of a quarter, the length of the shortest product that is constant (Box, Hunter &
# Hunter 1978, table 12.15).
RESOLUTIONS = [("1/2", 3, 3), ("1/2", 4, 4), ("1/2", 5, 5), ("1/4", 5, 3), ("1/4", 6, 4), ("1/4", 7, 4), ("1/4", 8, 5)]


@pytest.mark.parametrize(("fraction", "factors", "resolution"), RESOLUTIONS)
def test_a_fraction_confuses_as_little_as_one_can(fraction: Any, factors: int, resolution: int) -> None:
    found = combinations_of({f"f{i}": [f"a{i}", f"b{i}"] for i in range(factors)}, fraction)
    signs = torch.tensor([[1 if level.startswith("a") else -1 for level in cell.levels.values()] for cell in found])
    assert len(found) == 2**factors // {"1/2": 2, "1/4": 4}[fraction] == len({cell.name for cell in found})
    assert signs[0].tolist() == [1] * factors  # the base's place
    products = {some: signs[:, some].prod(1) for n in range(1, factors + 1) for some in combinations(range(factors), n)}
    assert min(len(some) for some, signed in products.items() if len(signed.unique()) == 1) == resolution


def test_combinations_that_would_be_called_alike_are_numbered() -> None:
    found = combinations_of({"a": ["x/y", "x-y"], "b": ["?", "z" * 80]})
    assert len({cell.name for cell in found}) == 4
    assert all(len(cell.name) <= 60 for cell in found)


def test_no_combination_is_called_as_the_base_or_another_one() -> None:
    for factors in ({"norm": ["rmsnorm", "base"]}, {"x": [-1, 1, 1.1]}, {"x": ["a.1", "a", "A", "a.2"], "y": [1, "1 "]}):
        names = [cell.name.lower() for cell in combinations_of(factors)]
        assert len({*names, "base"}) == 1 + len(names)


# The plan


def everywhere(lr: float, seeds: int = 5) -> dict[int, float]:
    """One learning rate for each seed."""
    return dict.fromkeys(range(seeds), lr)


def test_of_a_probe_no_longer_text_is_measured_and_none_can_be_asked_for() -> None:
    """Its tasks have one length, and a longer text has more of them in a row, with positions that begin anew."""
    given = {**EXPERIMENT, "data": RECALL}
    made = plan(read_experiment(given))
    assert {tuple(job.lengths) for job in made.all_jobs()} == {(), (1,)}
    assert made.experiment.lengths == [1]
    assert read_experiment({**given, "lengths": []}).lengths == []
    with pytest.raises(llamazoo.SpecError, match=r"outcomes\.0: loss@4x is not measured: the tasks of associative_recall have one length"):
        read_experiment({**given, "outcomes": ["loss@4x"]})
    with pytest.raises(llamazoo.SpecError, match=r"lengths: 2: the tasks of associative_recall have one length, .*; leave `lengths` out"):
        read_experiment({**given, "lengths": [1, 2]})


def test_the_plan_has_every_run_once() -> None:
    experiment = read({"probes": {"recall": RECALL}, "outcomes": ["loss", "accuracy:recall"], "seeds": 3})
    made = plan(experiment)
    rates = {"base": {0: 1e-3, 1: 3e-3, 2: 1e-3}, "layernorm": everywhere(3e-3, 3), "gelu": everywhere(1e-3, 3)}
    tuning, final = made.tuning_jobs(), made.final_jobs(rates)
    assert len(tuning) == 3 * 3 * 2
    assert {role: sum(job.role == role for job in final) for role in ("evaluation", "noise", "probe")} == {
        "evaluation": 3 * 3, "noise": 3 + 3, "probe": 3 * 3,
    }  # fmt: skip
    assert len({job.key for job in tuning + final}) == len(tuning + final)
    assert {job.recipe.lr for job in final if job.variant == "layernorm"} == {3e-3}
    assert all(job.recipe.lr == rates["base"][job.seed] for job in final if job.variant == "base")
    assert {tuple(job.lengths) for job in final if job.role == "evaluation"} == {(1, 2, 4)}
    assert {tuple(job.lengths) for job in tuning} == {()}
    assert all(job.data == (TEXT if job.probe is None else RECALL) for job in tuning + final)
    assert plan(read({"train": {"lr": 1e-3}, "noise": False})).tuning_jobs() == []


def test_runs_of_one_seed_are_paired_and_tuning_shares_none() -> None:
    made = plan(read())
    tuning, final = made.tuning_jobs(), made.final_jobs(dict.fromkeys(("base", "layernorm", "gelu"), everywhere(1e-3)))
    for seed in range(5):
        assert len({(job.data_seed, job.spec["init"]["seed"]) for job in tuning if job.seed == seed}) == 1
        same = [job for job in final if job.seed == seed]
        assert {job.data_seed for job in same} == {seed}
        assert {job.spec["init"]["seed"] for job in same if job.role == "evaluation"} == {seed}
    of_noise = {job.spec["init"]["seed"] for job in final if job.role == "noise"}
    evaluated = {job.spec["init"]["seed"] for job in final if job.role == "evaluation"}
    tuned = {job.spec["init"]["seed"] for job in tuning}
    assert len(of_noise) == 5
    assert of_noise.isdisjoint(evaluated | tuned)
    assert tuned.isdisjoint(evaluated)
    assert not {job.data_seed for job in tuning} & {job.data_seed for job in final}


def test_fresh_seeds_share_no_run_and_no_trial() -> None:
    keys = [{job.key for job in plan(read({"first_seed": first, "seeds": 5})).all_jobs()} for first in (0, 5, 8000)]
    assert len(set.union(*keys)) == sum(map(len, keys))


def test_a_variant_with_another_seed_is_the_base_from_other_values() -> None:
    made = plan(with_variants({"again": {"init.seed": 1}}))
    base, again = (
        next(j for j in made.final_jobs({"base": everywhere(1e-3), "again": everywhere(1e-3)}) if j.variant == name)
        for name in ("base", "again")
    )
    assert base.data_seed == again.data_seed
    assert base.key != again.key
    assert {**base.spec, "init": again.spec["init"]} == again.spec


def test_a_job_is_plain_data_and_its_key_follows_from_what_it_does() -> None:
    job = plan(read()).tuning_jobs()[0]
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Job.model_validate(json.loads(json.dumps(job.model_dump(mode="json")))).key == job.key
    assert re.fullmatch(r"[0-9a-f]{16}", job.key)
    assert job.model_copy(update={"variant": "renamed"}).key == job.key
    spec = {**job.spec, "init": {**job.spec["init"], "seed": 7}}
    changes = ({"spec": spec}, {"data": RECALL}, {"data_seed": 7}, {"lengths": [1]}, {"recipe": Recipe(tokens=40_000)})
    assert len({job.key, *(job.model_copy(update=change).key for change in changes)}) == 1 + len(changes)
    assert llamazoo.load_spec(job.spec).init.seed == job.spec["init"]["seed"]
    assert job.tokens == 157 * 256


def test_equal_parameters_of_a_matched_variant_start_equal() -> None:
    final = plan(read()).final_jobs(dict.fromkeys(("base", "layernorm", "gelu"), everywhere(1e-3)))
    models = {job.variant: llamazoo.build_model(job.spec) for job in final if job.seed == 2 and job.role == "evaluation"}
    base, gelu = (dict(models[name].named_parameters()) for name in ("base", "gelu"))
    alike = {name for name in base.keys() & gelu.keys() if base[name].shape == gelu[name].shape}
    assert {name for name in base if "feed_forward" not in name or "norm" in name} <= alike
    assert all(torch.equal(base[name], gelu[name]) for name in alike)
    assert {name.split(".")[-2] for name in base.keys() - alike} == {"gate", "up", "down"}
    other = llamazoo.build_model(next(job.spec for job in final if job.role == "noise" and job.seed == 2))
    assert not torch.equal(other.embedding.weight, base["embedding.weight"])


# Learning rates


def tuned(variant: str, lr: float, loss: float | None, seed: int = 0) -> Run:
    diverged = None if loss is not None else "the loss was not finite"
    return Run(variant=variant, role="tuning", seed=seed, lr=lr, tokens=1, outcomes={"loss": loss}, curve=[], diverged=diverged)


def chosen(rates: list[float], losses: dict[str, list[list[float | None]]]) -> dict[str, Choice]:
    """What is chosen where the trials of each variant ended in these losses, a line for each rate."""
    seeds = len(next(iter(losses.values()))[0])
    variants = {name: {"norm.eps": 0.1 + i} for i, name in enumerate(losses) if name != "base"}
    experiment = with_variants(variants, train=EXPERIMENT["train"] | {"lr": rates}, seeds=seeds)
    runs = [
        tuned(name, lr, loss, seed)
        for name, curve in losses.items()
        for lr, row in zip(rates, curve, strict=True)
        for seed, loss in enumerate(row)
    ]
    found = choose(experiment, reversed(runs))
    assert [[point.losses for point in choice.curve] for choice in found.values()] == list(losses.values())
    for choice in found.values():
        assert [point.chosen for point in choice.curve] == [list(choice.by_seed.values()).count(lr) for lr in rates]
    return found


def test_each_seed_takes_the_rate_that_was_best_in_its_own_trial() -> None:
    found = chosen([1e-3, 2e-3, 4e-3], {"base": [[3.0, 3.0], [2.0, 3.0], [1.0, 4.1]], "a": [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]})
    assert found["base"].by_seed == {0: 4e-3, 1: 1e-3}  # of equal ones the lower
    assert found["a"].by_seed == {0: 1e-3, 1: 1e-3}


def test_the_rate_with_the_lowest_mean_loss_is_told_and_whether_it_is_an_end() -> None:
    rates = [1e-3, 2e-3, 4e-3]
    found = chosen(rates, {"base": [[3.0, 3.0], [2.0, 3.0], [1.0, 4.1]], "a": [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]})
    assert {name: (choice.lr, choice.at_edge) for name, choice in found.items()} == {"base": (2e-3, False), "a": (1e-3, True)}
    found = chosen(rates, {"base": [[2.0], [2.0], [3.0]], "a": [[3.0], [3.0], [2.0]]})
    assert {name: (choice.lr, choice.at_edge) for name, choice in found.items()} == {"base": (1e-3, True), "a": (4e-3, True)}


def test_a_rate_that_diverged_loses_and_a_variant_that_always_did_gets_the_lowest() -> None:
    rates = [1e-3, 2e-3]
    found = chosen(rates, {"base": [[9.0, 9.0], [1.0, None]], "a": [[None, None], [None, None]], "b": [[None, None], [1.0, None]]})
    assert {name: choice.by_seed for name, choice in found.items()} == {
        "base": {0: 2e-3, 1: 1e-3},
        "a": {0: 1e-3, 1: 1e-3},
        "b": {0: 2e-3, 1: 1e-3},
    }
    assert {name: choice.lr for name, choice in found.items()} == {"base": 1e-3, "a": 1e-3, "b": 2e-3}
    with pytest.raises(TrainingError, match=r"the base diverged at every learning rate \(0\.001, 0\.002\)"):
        chosen(rates, {"base": [[None], [None]], "a": [[1.0], [1.0]]})


def test_one_rate_is_chosen_without_a_run_and_missing_runs_are_told() -> None:
    found = choose(read({"train": {"lr": 1e-3}}), [])
    assert {name: (choice.lr, choice.at_edge, choice.curve[0].losses) for name, choice in found.items()}["gelu"] == (1e-3, False, [])
    assert found["gelu"].by_seed == everywhere(1e-3)
    with pytest.raises(TrainingError, match=r"9 of 10 tuning runs of 'base' are missing, the first: lr 0\.001, seed 1"):
        choose(read(), [tuned("base", 1e-3, 1.0)])


# What it will take


def test_the_preview_counts_what_the_plan_holds() -> None:
    made = plan(read({"probes": {"recall": RECALL}, "probe_train": {"tokens": 8192, "seq_len": 128}, "train": {"tokens": 51200}}))
    found = preview(made)
    final = made.final_jobs(dict.fromkeys(("base", "layernorm", "gelu"), everywhere(1e-3)))
    assert Preview.model_validate_json(found.model_dump_json()) == found
    assert {(stage.role, stage.probe): (stage.jobs, stage.tokens) for stage in found.stages} == {
        ("tuning", None): (30, 30 * 51200),
        ("evaluation", None): (15, 15 * 51200),
        ("noise", None): (5, 5 * 51200),
        ("probe", "recall"): (15, 15 * 8192),
    }
    assert (found.jobs, found.tokens) == (30 + len(final), 30 * 51200 + sum(job.tokens for job in final))
    flops = {each.name: each.costs.flops_per_token for each in found.variants}
    assert found.stages[2].flops == 3 * flops["base"] * 5 * 51200
    assert [each.matched.value for each in found.variants] == [None, None, 528]
    assert found.warnings == []


def test_an_override_empties_a_map_of_the_file_or_takes_one_out() -> None:
    probe = {"source": "induction", "vocab_size": 24, "length": 8, "span": 3, "spans": 2}
    both = {"norms": {"norm": "layernorm"}, "none": {"position": "none", "final_norm": {"type": "layernorm"}}}
    given = {
        **EXPERIMENT,
        "variants": both,
        "probes": {"one": probe, "two": {**probe, "spans": 1}},
        "probe_train": {**EXPERIMENT["train"], "lr": 1e-3},
    }
    fewer = read_experiment(given, overrides={"probes.one": None, "variants.norms": None})
    assert list(fewer.probes) == ["two"]
    assert list(fewer.variants) == ["none"]
    assert read_experiment(given, overrides={"probes": {}, "probe_train": None}).probes == {}
    assert read_experiment(given, overrides={"probes": None, "probe_train": None}).probes == {}
    kept = read_experiment(given, overrides={"variants.none.final_norm": None, "base.norm": {}})
    assert kept.variants["none"] == {"position": "none", "final_norm": None}


def test_the_preview_warns_of_what_the_results_cannot_say() -> None:
    found = preview(plan(read({"seeds": 2, "noise": False, "match": "none", "train": {"lr": 1e-3}}))).warnings
    assert [warning.split(" ")[0] for warning in found] == ["with", "one", "without", "sizes"]
    assert found[3] == "sizes are not matched: gelu -20.7%"


def test_few_documents_that_a_loss_is_measured_on_are_warned_of_and_ten_are_not() -> None:
    made = plan(read())
    assert preview(made, 10).warnings == preview(made).warnings == []
    (few,) = preview(made, 9).warnings
    assert few.startswith("the loss is measured on 9 held-out documents: a difference may be theirs alone; give more data")
    assert "on 1 held-out document: a difference may be its alone;" in preview(made, 1).warnings[0]


@pytest.mark.parametrize(
    ("shares", "groups"),
    [
        ([1.0, 0.2, 0.99, 1.0, 0.21], ([0.2, 0.21], [0.99, 1.0, 1.0])),
        ([0.85, 1.0], ([0.85], [1.0])),
        ([0.95, 1.0], None),
        ([0.3, 0.5, 0.7, 0.9], None),
        ([0.2, 0.5, 0.9], None),
        ([1.0, 1.0], None),
        ([0.4], None),
        ([], None),
    ],
)
def test_accuracies_are_divided_where_a_gap_is_wide_and_wider_than_all_else(shares: list[float], groups: Any) -> None:
    assert divided(shares) == groups


# What it took


def test_speeds_and_memory_are_of_evaluations_on_the_data_and_seconds_of_all_runs() -> None:
    """The base has noise runs, and probes are of another length: medians over all would compare different mixtures."""
    made = plan(read({"probes": {"recall": RECALL}}))
    figures = (
        {"train_tokens_per_second": v, "decode_tokens_per_second": v, "peak_memory_bytes": int(v), "seconds": v} for v in (9.0, 90.0)
    )
    slow, quick = (RunTiming(**each) for each in figures)
    timed = [(job, slow if job.role == "evaluation" else quick) for job in made.all_jobs()]
    found = timings_of(timed, made.candidates).variants
    for name, timing in found.items():
        assert (timing.train_tokens_per_second, timing.decode_tokens_per_second, timing.peak_memory_bytes) == (9.0, 9.0, 9)
        roles = Counter(job.role for job, _ in timed if job.variant == name)
        assert timing.seconds == 9.0 * 5 + 90.0 * (roles.total() - 5)
    assert found["base"].seconds > found["gelu"].seconds


# The page


def test_the_experiments_of_the_page_are_read() -> None:
    page = (Path(__file__).parents[1] / "docs" / "ablation.md").read_text()
    section = page.split("## The experiment file\n", 1)[1].split("\n## ", 1)[0]
    example, again, grid = (read_yaml(block) for block in re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE))
    assert [each.matched.value for each in read_experiment(example).candidates] == [None, None, 328, 528]
    assert len(read_experiment({**example, **again}).candidates) == 2
    assert len(with_factors(grid["factors"], fraction=grid["fraction"]).candidates) == 4
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(Experiment.model_fields)
