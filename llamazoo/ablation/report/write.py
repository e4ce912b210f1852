"""Writes a report: the page, its figures, and the tables for papers."""

import os
from contextlib import suppress
from pathlib import Path

from llamazoo.ablation.report.charts import KEYS, charts
from llamazoo.ablation.report.markdown import markdown
from llamazoo.ablation.report.page import page
from llamazoo.ablation.report.paper import png
from llamazoo.ablation.results import Results, Timings
from llamazoo.errors import SaveError

__all__ = ["write_report"]


def write_report(results: Results, timings: Timings | None, folder: Path) -> list[Path]:
    """Writes report.html, report.md and figures/*.png, each whole or not at all, and returns their paths.

    The page is equal, byte for byte, for equal results and timings. A figure of an earlier report that there is nothing to draw
    for any more is removed. Raises SaveError if the folder cannot be written to.
    """
    drawn = charts(results, timings)
    files = {folder / "report.html": page(results, timings, drawn).encode(), folder / "report.md": markdown(results, drawn).encode()}
    files |= {folder / "figures" / f"{chart.key}.png": png(chart) for chart in drawn}
    for path, content in files.items():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise SaveError(f"{path}: the report could not be written: {error.strerror}; what was there is untouched") from error
    for key in KEYS:
        if (stale := folder / "figures" / f"{key}.png") not in files:
            stale.unlink(missing_ok=True)
    return list(files)
