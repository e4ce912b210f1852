"""Every example runs as a user would run it, stays short, and uses public names only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short_and_uses_public_names(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llamazoo"):
            assert node.module in ("llamazoo", "llamazoo.testing")


def test_the_quickstart_speaks_with_real_weights(smollm2: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "examples" / "quickstart.py"), str(smollm2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "Paris" in done.stdout, done.stderr
