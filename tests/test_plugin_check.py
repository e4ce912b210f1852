"""`llamazoo plugin check`: every check of all that a package offers, as a table, as JSON, and as an exit status."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from wheels import install, wheel

import llamazoo
from llamazoo.cli.main import app
from llamazoo.testing import CHECKS, offered
from llamazoo.testing.two_processes import processes

QUICK = ("meta_build", "causality", "splits", "options")  # enough to see what is told of each

GOOD = '''
"""A plugin that is right."""

from pathlib import Path

import llamazoo
import torch
import typer


class Times(llamazoo.Activation):
    """x times a number that is learned."""

    name = "times"
    aliases = {"twice": {"start": 2.0}}

    class Options(llamazoo.ComponentOptions):
        start: float = 1.5
        """Where the number starts."""

    def __init__(self, options, site):
        super().__init__(options, site)
        self.by = llamazoo.parameter(1)

    def reset(self, draw):
        draw.constant(self.by, self.options.start)

    def forward(self, x):
        return x * self.by


class Third(llamazoo.FeedForward):
    """A square matrix, whose features go together in threes."""

    name = "third"

    def __init__(self, options, site):
        super().__init__(options, site)
        self.up = torch.nn.Linear(site.dim, 3, bias=False)
        self.down = torch.nn.Linear(3, site.dim, bias=False)

    def forward(self, x, step):
        return self.down(self.up(x))

    def splits(self):
        return {"up": llamazoo.Column(3), "down": llamazoo.Row(3)}


class Router(llamazoo.Component):
    """A part of a kind that only this plugin knows."""

    kind = "gate"
    name = "simple"


@llamazoo.hookimpl
def llamazoo_components():
    return [Times, Third, Router]


@llamazoo.hookimpl
def llamazoo_rules(format, spec):
    return [llamazoo.Rename("their.times", "our.times")] if format == "hf" else []


@llamazoo.hookimpl
def llamazoo_zoo():
    return [Path(__file__).parent / "good_zoo"]


def greet(name: str = "you") -> None:
    """Greet somebody."""
    typer.echo(name)
'''

BAD = '''
"""A plugin with a fault of every sort."""

from pathlib import Path

import llamazoo


class Ahead(llamazoo.FeedForward):
    """Looks at the next token."""

    name = "ahead"

    def forward(self, x, step):
        return x.roll(-1, 1)


class Needy(llamazoo.Activation):
    """x times what the user says."""

    name = "needy"

    class Options(llamazoo.ComponentOptions):
        by: float
        """What x is multiplied by."""

    def forward(self, x):
        return x * self.options.by


class Greedy(llamazoo.Format):
    """Takes every folder for its own, and writes none."""

    name = "greedy"
    looks_for = "anything"

    class Options(llamazoo.ComponentOptions):
        level: int = 1

    @classmethod
    def recognises(cls, path):
        return True


class Lax(llamazoo.FileTokenizer):
    """Reads whatever it is given."""

    name = "lax"
    files = ("lax.txt",)


class Strict(llamazoo.FileTokenizer):
    """Fails with an error of its own."""

    name = "strict"
    files = ("strict.json",)

    def __init__(self, path):
        raise KeyError(path.name)


@llamazoo.hookimpl
def llamazoo_components():
    return [Ahead, Needy]


@llamazoo.hookimpl
def llamazoo_formats():
    return [Greedy]


@llamazoo.hookimpl
def llamazoo_tokenizers():
    return [Lax, Strict]


@llamazoo.hookimpl
def llamazoo_rules(format, spec):
    raise RuntimeError("[red]no[/red] rules \\x1b[31m")


@llamazoo.hookimpl
def llamazoo_zoo():
    return [Path(__file__).parent / "bad_zoo"]
'''

ONLY_RULES = """
import llamazoo


@llamazoo.hookimpl
def llamazoo_rules(format, spec):
    return []
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with installed plugins, of which Python and its children know."""
    folder = tmp_path_factory.mktemp("check")
    good = {"good.py": GOOD, "good_zoo/good-tiny.yaml": "extends: llama-tiny\nfeed_forward: third\n"}
    bad = {"bad.py": BAD, "bad_zoo/bad-tiny.yaml": "extends: llama-tiny\nnorm: nrom\n"}
    wheels = [
        wheel(folder, "good-plugin", good, plugins={"good": "good"}, commands={"greet": "good:greet"}),
        wheel(folder, "bad-plugin", bad, plugins={"bad": "bad"}, commands={"shout": "bad:shout", "text": "bad:__doc__"}),
        wheel(folder, "only-rules", {"only_rules.py": ONLY_RULES}, plugins={"rules": "only_rules"}),
        wheel(folder, "broken-plugin", {"out_of_order.py": "raise RuntimeError('out of order')"}, plugins={"broken": "out_of_order"}),
        wheel(folder, "no-plugin", {"no_plugin.py": ""}),
    ]
    install(wheels, folder / "installed")
    before = list(sys.path)
    sys.path.insert(0, str(folder / "installed"))
    llamazoo.default_registry.cache_clear()
    yield folder / "installed"
    sys.path[:] = before
    llamazoo.default_registry.cache_clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some of the checks, and no processes: what is told of one is told of all."""
    monkeypatch.setattr(offered, "CHECKS", {name: CHECKS[name] for name in QUICK})
    monkeypatch.setattr(offered, "processes", replace(processes, tries=lambda of: iter(())))


def check(*arguments: object, status: int = 0) -> str:
    """What the command prints; on stderr if it is wrongly used."""
    result = CliRunner().invoke(app, ["plugin", "check", *map(str, arguments)], env={"COLUMNS": "120"})
    assert result.exit_code == status, result.output
    return result.stderr if status == 2 else result.stdout


def outcomes(*arguments: object, status: int = 0) -> dict[str, dict[str, Any]]:
    """The outcomes of each thing by check, from JSON."""
    found = json.loads(check(*arguments, "--json", status=status))
    return {f"{each['kind']} {each['name']}": each["checks"] for each in found["offers"]}


@pytest.mark.usefixtures("place")
def test_a_good_part_passes_every_check_and_two_processes_of_their_own() -> None:
    told = check("good-plugin", "--kind", "activation", "--name", "times")
    rows = dict(line.split(maxsplit=1) for line in told.splitlines()[2:] if line.strip())
    assert told.splitlines()[0].split() == ["check", "activation", "times"]
    assert {name: rows[name].strip() for name in ("spec", *CHECKS, "processes")} == dict.fromkeys(("spec", *CHECKS, "processes"), "ok")
    assert told.splitlines()[-1] == f"good-plugin 1.0: all {len(CHECKS) + 2} checks hold"


@pytest.mark.usefixtures("place", "quick")
def test_all_that_a_package_offers_is_checked_under_each_of_its_names() -> None:
    found = outcomes("Good_Plugin")
    assert set(found) == {
        "activation times",
        "activation twice",
        "feed_forward third",
        "gate simple",
        "zoo good-tiny",
        "rules good-plugin",
        "command greet",
    }
    assert {o["status"] for name in ("feed_forward third", "gate simple") for o in found.pop(name).values()} == {"ok", "not applicable"}
    assert {o["status"] for of in found.values() for o in of.values()} == {"ok"}
    assert set(found["zoo good-tiny"]) == {"loads", "describes", "meta_build"}
    assert set(found["activation twice"]) == {"spec", *QUICK, "processes"}


@pytest.mark.usefixtures("place", "quick")
def test_what_cannot_be_divided_by_two_or_has_no_options_is_not_failed_for_that() -> None:
    found = outcomes("good-plugin", "--kind", "feed_forward")["feed_forward third"]
    assert {name: o["status"] for name, o in found.items() if o["status"] != "ok"} == dict.fromkeys(
        ("splits", "options", "processes"), "not applicable"
    )
    assert "blocks.0.feed_forward.up: 1 units of 3 do not divide among 2 processes" in found["processes"]["reason"]
    told = check("good-plugin", "--name", "third")
    assert "feed_forward third: options does not apply: there are no options" in told
    assert "feed_forward third: processes does not apply: blocks.0.feed_forward.up: 1 units of 3" in told


@pytest.mark.usefixtures("place", "quick")
def test_every_failure_is_told_in_full_and_the_exit_status_is_1() -> None:
    told = check("bad-plugin", "--name", "ahead", status=1)
    assert "causality failed" in " ".join(told.split())
    for words in ("feed_forward ahead: causality: changed all tokens after the first 1\n", "    expected: ", "    found: ", "    likely: "):
        assert words in told
    assert told.splitlines()[-1].startswith("bad-plugin 1.0: ")
    assert told.splitlines()[-1].endswith(" checks failed")
    found = outcomes("bad-plugin", "--name", "ahead", status=1)["feed_forward ahead"]
    assert set(found["causality"]["failures"][0]) == {"check", "done", "expected", "deviation", "cause"}


@pytest.mark.usefixtures("place", "quick")
def test_a_part_that_no_plain_spec_can_name_fails_and_its_other_checks_do_not_apply() -> None:
    found = outcomes("bad-plugin", "--name", "needy", status=1)["activation needy"]
    assert "by: " in found["spec"]["failures"][0]["deviation"]
    assert {o["reason"] for name, o in found.items() if name != "spec"} == {"there is no spec to try it in"}


@pytest.mark.usefixtures("place", "quick")
def test_a_part_of_a_kind_of_its_own_is_not_failed_for_that() -> None:
    found = outcomes("good-plugin", "--kind", "gate")["gate simple"]
    assert "does not know where a component of the kind 'gate' stands" in found["spec"]["reason"]
    assert {o["status"] for o in found.values()} == {"not applicable"}


FAULTS = {
    "format greedy": {"recognises": "takes the folder for its own", "options": "level: no string stands under the field"},
    "tokenizer lax": {"garbage": "it was read"},
    "tokenizer strict": {"garbage": "KeyError: 'strict.json'"},
    "zoo bad-tiny": dict.fromkeys(("loads", "describes", "meta_build"), "no norm named 'nrom'"),
    "rules bad-plugin": {"answers": r"llamazoo_rules() failed: RuntimeError: [red]no[/red] rules \x1b[31m"},
    "command shout": {"loads": "has no attribute 'shout'"},
    "command text": {"loads": "a command is a function for typer"},
}


@pytest.mark.usefixtures("place", "quick")
def test_formats_tokenizers_zoo_rules_and_commands_are_tried_as_far_as_they_can_be() -> None:
    found = outcomes("bad-plugin", status=1)
    for name, faults in FAULTS.items():
        failed = {check: o["failures"][0]["deviation"] for check, o in found[name].items() if o["status"] == "failed"}
        assert failed.keys() == faults.keys(), name
        for check_name, words in faults.items():
            assert words in failed[check_name]
    assert "can be read, not written" in found["format greedy"]["round_trip"]["reason"]


@pytest.mark.usefixtures("place", "quick")
def test_what_a_strangers_error_says_cannot_rewrite_the_screen() -> None:
    told = check("bad-plugin", "--kind", "rules", status=1)
    assert "[red]no[/red] rules" in told
    assert "\x1b" not in told


@pytest.mark.usefixtures("place")
def test_rules_of_a_plugin_without_parts_are_never_asked_for() -> None:
    assert outcomes("only-rules")["rules only-rules"]["answers"]["reason"] == "it offers no part, so the hook is never asked"


USAGE = {
    ("absent-plugin",): "no distribution named 'absent-plugin' is installed; pip install it, or name a file that ends in .py",
    ("[red]",): "no distribution named '[red]' is installed",
    ("broken-plugin",): "broken-plugin cannot be checked: broken-plugin 1.0 (broken = out_of_order): RuntimeError: out of order",
    ("no-plugin",): "no-plugin: offers nothing that could be checked; a plugin has an entry point in the group llamazoo",
    ("only-rules", "--kind", "norm"): "only-rules: offers rules only-rules, and nothing else",
    ("absent.py",): "absent.py: there is no such file",
}


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
@pytest.mark.usefixtures("place")
def test_what_cannot_be_checked_is_told_with_exit_status_2(arguments: tuple[str, ...]) -> None:
    assert check(*arguments, status=2).startswith(f"error: {USAGE[arguments]}")


@pytest.mark.usefixtures("place")
def test_a_plugin_that_the_environment_blocks_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAZOO_BLOCK", "good-plugin")
    assert "good-plugin 1.0 is blocked by LLAMAZOO_BLOCK" in check("good-plugin", status=2)


@pytest.mark.usefixtures("quick")
def test_a_file_is_checked_as_it_is_and_not_on_processes_that_could_not_find_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    found = outcomes(path, "--kind", "activation")
    assert set(found) == {"activation times", "activation twice"}
    assert found["activation times"]["options"]["status"] == "ok"
    assert found["activation times"]["processes"] == {
        "status": "not applicable",
        "reason": "other processes find only what is installed",
        "failures": [],
    }


WRONG_SPLIT = '''
import llamazoo


class Shared(llamazoo.FeedForward):
    """Its gain enters the divided region, and is not marked."""

    name = "shared"

    def __init__(self, options, site):
        super().__init__(options, site)
        self.gain = llamazoo.parameter(1)
        self.up = __import__("torch").nn.Linear(site.dim, site.hidden_dim)
        self.down = __import__("torch").nn.Linear(site.hidden_dim, site.dim)

    def reset(self, draw):
        super().reset(draw)
        draw.ones(self.gain)

    def forward(self, x, step):
        return self.down(self.up(x) * self.gain)

    def splits(self):
        return {"up": llamazoo.Column(), "down": llamazoo.Row()}


@llamazoo.hookimpl
def llamazoo_components():
    return [Shared]
'''


def test_two_processes_find_a_mark_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install([wheel(tmp_path, "wrong-split", {"wrong_split.py": WRONG_SPLIT}, plugins={"wrong": "wrong_split"})], tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setattr(offered, "CHECKS", {"splits": CHECKS["splits"]})
    llamazoo.default_registry.cache_clear()
    found = outcomes("wrong-split", status=1)["feed_forward shared"]
    llamazoo.default_registry.cache_clear()
    for name in ("splits", "processes"):
        assert any("the gradient of blocks.0.feed_forward.gain" in failure["done"] for failure in found[name]["failures"]), name


FAILING = '''
import torch
import llamazoo


class Mine(llamazoo.Norm):
    """Fails within torch."""

    name = "mine"

    def forward(self, x):
        return torch.nn.functional.linear(x, torch.ones(3, 3))
'''


def test_a_fault_is_where_the_parts_file_has_it_however_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["plugin", "check", "mine.py"])
    assert done.exit_code == 1
    assert f"raised at {tmp_path / 'mine.py'}:12, in forward" in done.stdout
