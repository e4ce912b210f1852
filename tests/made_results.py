"""Results as an ablation would leave them, made up from a seed."""

import random
import statistics
from collections.abc import Sequence
from typing import Any

from llamazoo.ablation.results import (
    Comparison,
    Costs,
    CurvePoint,
    Effect,
    FieldDifference,
    LearningRate,
    Matched,
    Noise,
    Results,
    Run,
    Timing,
    Timings,
    Variant,
)

__all__ = ["made_results", "made_timings"]

TOKENS, SIZE = 2_000_000, 3_014_656
LENGTHS = {"loss": 1.0, "loss@2x": 1.02, "loss@4x": 1.1}
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
EFFECTS = {("norm",): (("layernorm",), -0.012), ("position",): (("alibi",), 0.031), ("norm", "position"): (("layernorm", "alibi"), 0.002)}


def run(name: str, seed: int, level: float, role: str = "evaluation", lost: bool = False, short: bool = False) -> Run:
    final = level + random.Random(f"{name} {seed} {role}").gauss(0, 0.004)
    curve = [CurvePoint(tokens=TOKENS * i // 10, loss=final + (5.5 - final) * 0.001 ** (i / 10)) for i in range(1, 11)]
    curve = [CurvePoint(tokens=p.tokens, loss=p.loss * (1 + i * i / 12)) for i, p in enumerate(curve[:5])] if lost else curve
    outcomes = {o: None if lost or (short and o != "loss") else final * k for o, k in LENGTHS.items()}
    why = "the loss was not finite at step 123" if lost else None
    return Run(variant=name, role=role, seed=seed, lr=1e-3, tokens=curve[-1].tokens, outcomes=outcomes, curve=curve, diverged=why)


def probed(name: str, probe: str, level: float, seeds: int, lost: bool) -> list[Run]:
    rng = random.Random(f"{name} {probe}")
    found = {s: None if lost and s < 2 else min(1.0, max(0.0, level + rng.gauss(0, 0.05))) for s in range(seeds)}
    facts = {"variant": name, "role": "probe", "probe": probe, "lr": 1e-3, "tokens": TOKENS, "curve": []}
    why = {None: "the loss was not finite at step 7"}
    return [Run(seed=s, outcomes={f"accuracy:{probe}": share}, diverged=why.get(share), **facts) for s, share in found.items()]


def compared(outcome: str, runs: Sequence[Run], base: Sequence[Run], noise: float | None) -> Comparison:
    found = [a.outcomes[outcome] - b.outcomes[outcome] for a, b in zip(runs, base, strict=True) if a.outcomes[outcome] is not None]
    facts: dict[str, Any] = dict.fromkeys(("mean", "low", "high", "p", "p_adjusted", "effect", "power", "seeds_needed"))
    verdict = "unstable" if any(run.diverged for run in runs) else "too few seeds"
    mean = statistics.fmean(found)
    facts["mean"] = mean
    if len(found) > 1:
        half = 3.5 * statistics.stdev(found) / len(found) ** 0.5
        facts |= {"low": mean - half, "high": mean + half, "p": 0.004, "p_adjusted": 0.012, "effect": 1.0, "power": 0.9, "seeds_needed": 4}
        shown = "no difference shown" if abs(mean) < half else "better" if mean < 0 else "worse"
        verdict = verdict if verdict == "unstable" else shown
    sentence = f"{verdict}: {mean:+.4f} nats a token over {len(found)} seeds"
    return Comparison(outcome=outcome, better="lower", differences=found, noise=noise, verdict=verdict, sentence=sentence, **facts)


def made_results(
    names: Sequence[str] = ("layernorm", "learned", "gelu"),
    *,
    seeds: int = 5,
    lost: Sequence[str] = (),
    short: Sequence[str] = (),
    probes: Sequence[str] = (),
    noise: bool = True,
    factors: bool = False,
    rates: Sequence[float] = RATES,
    **more: Any,
) -> Results:
    """An experiment with these variants; those of `lost` diverged in two seeds, those of `short` have no loss on longer texts."""
    rng = random.Random(1)
    levels = {"base": 2.1, **{name: 2.1 + rng.gauss(0, 0.03) for name in names}}
    runs = {n: [run(n, s, level, lost=n in lost and s < 2, short=n in short) for s in range(seeds)] for n, level in levels.items()}
    variants = []
    for i, (name, level) in enumerate(levels.items()):
        size = SIZE + 1024 * rng.randrange(-8, 8)
        tried = {lr: level + 0.2 * (j - 1.4) ** 2 for j, lr in enumerate(rates)}
        at_edge = i % 4 == 2 and len(rates) > 1
        outcomes = ["loss"] if name in short else list(LENGTHS)
        changed = [("norm.type", "rmsnorm", name), ("hidden_dim", "512", "768")] if i else []
        solved = {"field": "hidden_dim", "value": 768} if i else {}
        variants.append(
            Variant(
                name=name,
                spec={"dim": 192, "norm": {"type": "rmsnorm"}},
                differences=[FieldDifference(where=where, base=before, variant=after) for where, before, after in changed],
                matched=Matched(what="parameters", target=SIZE, found=size, off=(size - SIZE) / SIZE, **solved),
                costs=Costs(
                    parameters=size,
                    active_parameters=size,
                    flops_per_token=18_000_000 + 10**5 * i,
                    cache_bytes=98_304 * (1 + i % 2),
                    cache_bytes_per_token=384 * (i % 3),
                ),
                learning_rates=[
                    LearningRate(
                        lr=lr, losses=[loss, None if name in lost and lr == rates[-1] else loss + 0.01], chosen=int(lr == rates[-1])
                    )
                    for lr, loss in tried.items()
                ],
                lr=rates[-1] if at_edge else rates[min(1, len(rates) - 1)],
                at_edge=at_edge,
                runs=[*runs[name], *(r for p in probes for r in probed(name, p, 0.9 - 0.05 * i, seeds, name in lost))],
                comparisons=[compared(o, runs[name], runs["base"], 0.006 if noise else None) for o in outcomes] if i else [],
            )
        )
    again = [run("base", s, 2.1, "noise") for s in range(seeds)]
    train = {"seq_len": 256, "lr": list(rates)}
    facts: dict[str, Any] = {
        "name": "norms and positions",
        "experiment": {"version": 1, "base": "llama-tiny", "variants": {n: {"norm": n} for n in names}, "train": train, "seeds": seeds},
        "data": {"source": "stdlib", "tokens": 12_345_678, "sha256": "0f" * 32},
        "environment": {"python": "3.11.7", "torch": "2.13.0"},
        "outcomes": list(LENGTHS),
        "base": "base",
        "variants": variants,
        "noise": Noise(runs=again, differences={"loss": [0.001] * seeds}, floor={"loss": 0.006}) if noise else None,
        "effects": [effect(names, choices, estimate) for names, (choices, estimate) in EFFECTS.items()] if factors else [],
    }
    return Results(**{**facts, **more})


def effect(factors: Sequence[str], choices: Sequence[str], estimate: float) -> Effect:
    p, ends = (0.03 if abs(estimate) > 0.008 else 0.6), {"low": estimate - 0.008, "high": estimate + 0.008}
    aliases = ["kernel"] if len(factors) > 1 else []
    facts = {"factors": list(factors), "choices": list(choices), "against": [f"first {f}" for f in factors], "aliases": aliases}
    return Effect(outcome="loss", estimate=estimate, p=p / 3, p_adjusted=p, **ends, **facts)


def made_timings(results: Results) -> Timings:
    rng = random.Random(2)
    speeds = {variant.name: 9000 + 2000 * rng.random() for variant in results.variants}
    facts = {"decode_tokens_per_second": None, "peak_memory_bytes": 123_456_789, "seconds": 1234.5}
    return Timings(variants={name: Timing(train_tokens_per_second=speed, **facts) for name, speed in speeds.items()})
