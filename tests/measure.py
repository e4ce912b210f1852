"""Measurements that are too large or too noisy for tests; run by hand, each in a process of its own.

python tests/measure.py composition ORACLES   a spec-built LLaMA against plain_llama.py: paired times, the same weights
python tests/measure.py seven [FOLDER]        llama-7b in bfloat16 on the CPU: builds, generates, saves; peak memory
python tests/measure.py experts               a step with 32 experts against one with 8, 2 of them for a token: paired processor times
python tests/measure.py load FOLDER           loading a model's folder: peak memory over the size of its files
python tests/measure.py same FOLDER [COUNT]   experiments that compare the base with itself, really trained
python tests/measure.py killed FOLDER [LAUNCHER] [KILLS]  an experiment killed at random moments, against one that is not
"""

import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import llamazoo

SHAPES = {  # vocabulary, dim, layers, heads, key/value heads, hidden, context
    "SmolLM2-135M": (49152, 576, 30, 9, 3, 1536, 1024),
    "60M": (16000, 512, 12, 8, 8, 1408, 1024),
    "1 layer of 7B": (32000, 4096, 1, 32, 32, 11008, 1024),
}


def peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def twins(oracles: Path, shape: tuple[int, ...]) -> tuple[llamazoo.Decoder, Any]:
    """A spec-built model and the one written by hand, holding the very same tensors."""
    where = importlib.util.spec_from_file_location("plain_llama", oracles / "plain_llama.py")
    assert where is not None
    assert where.loader is not None
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    vocab, dim, layers, heads, kv, hidden, context = shape
    plain = module.PlainLlama(*shape).eval()
    changes = {"vocab_size": vocab, "dim": dim, "n_layers": layers, "n_heads": heads, "n_kv_heads": kv, "hidden_dim": hidden}
    model = llamazoo.build_model("llama-tiny", overrides={**changes, "max_seq_len": context}).eval()
    plain.embedding.weight, plain.head.weight = model.get_parameter("embedding.weight"), model.get_parameter("head.weight")
    plain.scale = model.get_parameter("final_norm.weight")
    for i, block in enumerate(plain.blocks):
        path = f"blocks.{i}"
        for theirs, ours in {"q": "q", "kk": "k", "v": "v", "o": "o"}.items():
            getattr(block, theirs).weight = model.get_parameter(f"{path}.attention.{ours}.weight")
        for name in ("gate", "up", "down"):
            getattr(block, name).weight = model.get_parameter(f"{path}.feed_forward.{name}.weight")
        block.attention_norm = model.get_parameter(f"{path}.attention_norm.weight")
        block.ffn_norm = model.get_parameter(f"{path}.feed_forward_norm.weight")
    return model, plain


def paired(
    ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float = 20.0, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, int]:
    """The median ratio of two calls' times, each pair taken in turn and in both orders; their median time; how many pairs."""
    for _ in range(3):
        ours(), theirs()
    ratios, times, end = [], [], time.monotonic() + seconds
    while time.monotonic() < end or len(ratios) < 15:
        first, second = (ours, theirs) if len(ratios) % 2 else (theirs, ours)
        marks = [clock()]
        for call in (first, second):
            call()
            marks.append(clock())
        one, two = marks[1] - marks[0], marks[2] - marks[1]
        mine, other = (one, two) if first is ours else (two, one)
        ratios.append(mine / other)
        times.append(mine)
    return statistics.median(ratios), statistics.median(times), len(ratios)


@torch.no_grad()
def composition(oracles: str) -> None:
    for name, shape in SHAPES.items():
        model, plain = twins(Path(oracles), shape)
        layers, kv, width = shape[2], shape[4], shape[1] // shape[3]
        prompt = torch.randint(0, shape[0], (1, 64))
        caches = [(torch.zeros(1, kv, 1024, width), torch.zeros(1, kv, 1024, width)) for _ in range(layers)]
        state = model.new_state(1, 1024)
        plain(prompt, caches, 0)
        model(prompt, state=state)
        token = prompt[:, :1]

        def step(state: llamazoo.DecoderState = state, token: torch.Tensor = token, model: llamazoo.Decoder = model) -> None:
            state.lengths = [64]
            model(token, state=state)

        def plain_step(token: torch.Tensor = token, caches: Any = caches, plain: Any = plain) -> None:
            plain(token, caches, 64)

        for what, ours, theirs in (
            ("forward of 64", lambda m=model, p=prompt: m(p), lambda m=plain, p=prompt: m(p)),
            ("cached step", step, plain_step),
        ):
            ratio, median, pairs = paired(ours, theirs)
            print(f"{name:14} {what:14} ours / by hand {ratio:.3f}   ({median * 1e3:.2f} ms, {pairs} pairs)", flush=True)


def experts(dtype: str = "float32", seconds: str = "30") -> None:
    spec = {
        "vocab_size": 8192,
        "dim": 512,
        "hidden_dim": 1024,
        "n_layers": 4,
        "n_heads": 8,
        "max_seq_len": 512,
        "norm": "rmsnorm",
        "position": "rope",
        "attention": "multihead",
        "feed_forward": {"type": "experts", "n_experts": 8},
    }
    many, few = (llamazoo.build_model(spec, overrides={"feed_forward.n_experts": n}, dtype=getattr(torch, dtype)) for n in (32, 8))
    tokens = torch.randint(0, 8192, (4, 256))

    def trained(model: llamazoo.Decoder) -> None:
        model.loss(tokens).backward()
        model.zero_grad()

    features = torch.randn(4, 256, 512, dtype=getattr(torch, dtype))
    step = llamazoo.Step.even(4, 256, start=0, horizon=512, device=torch.device("cpu"))

    def mixed(model: Any) -> None:
        part, x = model.blocks[0].feed_forward, features.clone().requires_grad_()
        part(x, step).sum().backward()
        part.zero_grad()

    def report(what: str, call: Callable[[llamazoo.Decoder], None]) -> None:
        ratio, median, pairs = paired(lambda: call(many), lambda: call(few), float(seconds), time.process_time)
        print(f"{what:44} 32 experts / 8 {ratio:.3f}   ({median * 1e3:.2f} ms, {pairs} pairs)", flush=True)

    report("training step, 4 x 256 tokens", trained)
    report("the mixture alone, forward and backward", mixed)
    with torch.no_grad():
        report("forward, 4 x 256 tokens", lambda model: model(tokens))
        for batch in (1, 4):
            prompt = tokens[:1, :64].expand(batch, 64)
            states = {id(model): model.new_state(batch, 512) for model in (many, few)}
            for model in (many, few):
                model(prompt, state=states[id(model)])

            def decoded(model: llamazoo.Decoder, states: Any = states, batch: int = batch) -> None:
                states[id(model)].lengths = [64] * batch
                model(tokens[:, :1][:batch], state=states[id(model)])

            report(f"cached step of one token, {batch} rows", decoded)


def seven(folder: str | None = None) -> None:
    begin = time.monotonic()
    model = llamazoo.build_model("llama-7b.yaml", dtype=torch.bfloat16, device="cpu")
    print(f"built in {time.monotonic() - begin:.0f} s, peak {peak() / 1e9:.2f} GB", flush=True)
    begin = time.monotonic()
    made = llamazoo.generate(model, [1, 2, 3, 4, 5], max_new_tokens=4, stop_ids=())
    print(f"generated {made.tokens[0]} in {time.monotonic() - begin:.0f} s, peak {peak() / 1e9:.2f} GB", flush=True)
    if folder is not None:
        llamazoo.save_model(model, folder)
        print(f"saved, peak {peak() / 1e9:.2f} GB")


def load(folder: str) -> None:
    llamazoo.build_model("llama-tiny")  # everything is imported now
    before, size = peak(), sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    begin = time.monotonic()
    model = llamazoo.load_model(folder, device="cpu")
    above = (peak() - before) / size
    print(f"loaded {size / 1e9:.2f} GB as {model.dtype} in {time.monotonic() - begin:.0f} s; peak {above:.3f} of the files above importing")


SMALL = {
    "base": {"extends": "llama-tiny", "dim": 32, "hidden_dim": 96, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
    "variants": {"again": {"init.seed": 1}},
    "data": {"source": "stdlib", "tokenizer": "bytes", "max_bytes": 4_000_000},
    "train": {"tokens": 65536, "batch_tokens": 2048, "seq_len": 64, "lr": 0.003, "evaluate_tokens": 16384, "evaluate_every": 32768},
    "lengths": [],
}


def same(folder: str, count: str = "10") -> None:
    """Experiments whose variant is the base again, from other first values: what they declare is false."""
    for number in range(int(count)):
        given = {**SMALL, "name": f"same-{number}", "first_seed": 5 * number}
        results = llamazoo.ablation.run(given, Path(folder) / f"{number}", launcher="processes")
        print(results.variant("again").comparisons[0].sentence, flush=True)


def killed(folder: str, launcher: str = "processes", kills: str = "10") -> None:
    """An experiment that is killed at random moments, alone or with its workers, against one that is not."""
    program = str(Path(__file__).parent / "programs" / "ablate.py")
    draw = random.Random(0)
    given = json.dumps({**SMALL, "train": {**SMALL["train"], "tokens": 262_144}})  # so that kills come while something is done
    begun = time.monotonic()
    subprocess.run([sys.executable, program, given, f"{folder}/straight", launcher], check=True)
    took = time.monotonic() - begun
    straight = Path(folder, "straight", "results.json").read_bytes()
    done = begun_anew = 0

    def ended(place: str) -> None:
        if (Path(place) / "results.json").read_bytes() != straight:
            raise SystemExit(f"{place}: results.json is NOT EQUAL to that of {folder}/straight")
        print("through: equal, byte for byte", flush=True)

    while done < int(kills):
        place = f"{folder}/killed-{begun_anew}"
        child = subprocess.Popen([sys.executable, program, given, place, launcher], start_new_session=True)
        try:
            status = child.wait(timeout=draw.uniform(0.1, 0.6) * took)
        except subprocess.TimeoutExpired:
            (os.killpg if done % 2 else os.kill)(child.pid, signal.SIGKILL)
            child.wait()
            done += 1
            print(f"killed, {len(list(Path(place, 'runs').glob('*/result.json')))} runs through", flush=True)
        else:  # it had been killed so often that little was left to do: the next kills are another one's
            assert status == 0
            ended(place)
            begun_anew += 1
    place = f"{folder}/killed-{begun_anew}"
    subprocess.run([sys.executable, program, given, place, launcher], check=True)
    ended(place)


if __name__ == "__main__":
    known = {"composition": composition, "experts": experts, "killed": killed, "load": load, "same": same, "seven": seven}
    known[sys.argv[1]](*sys.argv[2:])
