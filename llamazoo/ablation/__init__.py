"""From a question about architectures to an answer with its uncertainty: variants, fair runs, statistics, a report.

The names are resolved on first use: they need the extra `ablation`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from llamazoo.errors import UnsupportedError

if TYPE_CHECKING:
    from llamazoo.ablation.conduct import Heard, run
    from llamazoo.ablation.experiment import Experiment, read_experiment
    from llamazoo.ablation.findings import Paired
    from llamazoo.ablation.match import match
    from llamazoo.ablation.report.write import write_report
    from llamazoo.ablation.results import Results, Timings
    from llamazoo.ablation.statistics import compare

__all__ = ["Experiment", "Heard", "Paired", "Results", "Timings", "compare", "match", "read_experiment", "run", "write_report"]

_HOMES = {
    "Experiment": "experiment",
    "Heard": "conduct",
    "Paired": "findings",
    "Results": "results",
    "Timings": "results",
    "compare": "statistics",
    "match": "match",
    "read_experiment": "experiment",
    "run": "conduct",
    "write_report": "report.write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"llamazoo.ablation has no {name!r}")
    try:
        value = getattr(importlib.import_module(f"llamazoo.ablation.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("llamazoo"):
            raise
        raise UnsupportedError(f"this needs {error.name}: pip install 'llamazoo[ablation]'") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
