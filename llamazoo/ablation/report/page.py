"""report.html: one file that needs no network, and in which nothing runs but plotly and the lines that call it."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from llamazoo.ablation.report import answer, tables
from llamazoo.ablation.report.footnote import footnote, rates_told
from llamazoo.ablation.report.interactive import interactive
from llamazoo.ablation.report.marks import Chart
from llamazoo.ablation.report.reproduce import command, needs
from llamazoo.ablation.report.spelling import safe
from llamazoo.ablation.results import Results, Timings

__all__ = ["page"]

TEMPLATES = Path(__file__).parent / "templates"


def page(results: Results, timings: Timings | None, charts: Sequence[Chart]) -> str:
    """The page's text; equal for equal results and timings."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_seen
    )
    scripts = {"plotly": get_plotlyjs(), "draw": (TEMPLATES / "draw.js").read_text()}
    return environment.get_template("report.html").render(
        results=results,
        base=answer.base_name(results),
        command=command(results),
        needs=needs(results),
        question=answer.question(results),
        answer=answer.answer(results),
        design=answer.design(results),
        warnings=list(answer.warnings(results)),
        summaries=[(table, answer.verdicts(results, outcome)) for outcome, table in tables.summaries(results)],
        footnote=footnote(results),
        rates_told=rates_told(results),
        charts=charts,
        effects=tables.effects(results),
        differing=tables.differing(results),
        sizes=tables.matching(results),
        rates=tables.learning_rates(results),
        costs=tables.costs(results, timings),
        measured=timings is not None,
        seeds=tables.seeds(results),
        experiment=yaml.safe_dump(results.experiment, sort_keys=False, allow_unicode=True, width=100),
        style=Markup((TEMPLATES / "report.css").read_text()),
        figures=Markup(_as_script({chart.key: interactive(chart) for chart in charts})),
        scripts={name: Markup(text) for name, text in scripts.items()},
        hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
    )


def _seen(value: Any) -> Any:
    """What every expression of the template goes through before it is escaped."""
    return safe(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _as_script(data: Any) -> str:
    """JSON in which nothing ends the element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
