"""What the tests share: where reference values lie, and small models."""

import os
from pathlib import Path

import pytest
import torch

import llamazoo

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
