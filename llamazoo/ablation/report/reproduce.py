"""How these results are found again: the command, and what it needs beside the experiment's file."""

import shlex

from llamazoo.ablation.report.spelling import in_one_line
from llamazoo.ablation.results import Results

__all__ = ["command", "needs"]


def command(results: Results) -> str:
    """What is typed, with each file of parts by its own name, wherever it lay."""
    words = ["llamazoo", "ablate", "experiment.yaml"]
    for each in results.parts:
        words += ["--parts", shlex.quote(in_one_line(each.file))]
    device = results.environment.get("device", "cpu")
    return " ".join([*words, *(["--device", shlex.quote(in_one_line(device))] if device != "cpu" else [])])


def needs(results: Results) -> str:
    """Files and distributions that are needed, to stand behind `with the file`; nothing where parts are all llamazoo's own."""
    files = [f"{in_one_line(each.file)} (SHA-256 {each.digest}…)" for each in results.parts]
    plugins = [f"{in_one_line(name)} {in_one_line(version)}" for name, version in results.plugins.items()]
    parts = f" and the file{'s' * (len(files) > 1)} of parts {', '.join(files)}" if files else ""
    return parts + (f", and {', '.join(plugins)} installed" if plugins else "")
