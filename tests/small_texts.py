"""A corpus of short texts, a little longer than what tiny models are trained on."""

import json
from pathlib import Path
from typing import Any


def small_texts(folder: Path) -> dict[str, Any]:
    """The data of an experiment: texts in a file of this folder, of 256 different tokens."""
    lines = [json.dumps({"text": f"{number} times {number} is {number * number}; " * 5}) for number in range(60)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return {"source": "files", "paths": [str(folder / "texts.jsonl")], "tokenizer": "bytes", "validation": 0.2}
