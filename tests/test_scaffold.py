"""What `llamazoo plugin new` writes: for every kind a package that is right, clean, and passes its own tests."""

import importlib
import math
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

import llamazoo
from llamazoo.cli.main import app
from llamazoo.scaffold import package
from llamazoo.scaffold.names import Names
from llamazoo.scaffold.package import KINDS, new_package
from llamazoo.testing import BASE, applicable, subject

ROOT = Path(__file__).parents[1]


def name_of(kind: str) -> str:
    return f"third-{kind.replace('_', '-')}"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a package of every kind, all of them importable and found as if pip had installed them."""
    place = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        folder = new_package(name_of(kind), kind, place)
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
        points = project["entry-points"]["llamazoo"]
        (info / "entry_points.txt").write_text("[llamazoo]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    before = list(sys.path)
    sys.path[:0] = map(str, place.iterdir())
    llamazoo.default_registry.cache_clear()
    yield place
    sys.path[:] = before
    llamazoo.default_registry.cache_clear()


def component_of(kind: str) -> type[llamazoo.Component]:
    return importlib.import_module(f"third_{kind}").__dict__["Third" + "".join(word.title() for word in kind.split("_"))]


def test_there_is_a_template_for_every_kind() -> None:
    assert set(KINDS) == {offer.component.kind for offer in llamazoo.Registry.built_in().offers()}


def test_every_package_passes_its_own_tests(packages: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--strict-markers", "-W", "error"]
    paths = os.pathsep.join(str(packages / name_of(kind)) for kind in KINDS)
    settings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--rootdir", packages, *packages.iterdir()], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    promises = sum(len(applicable(subject(component_of(kind)))) for kind in KINDS)
    assert f"{promises} passed" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_may_name_the_component_as_the_readme_says(kind: str, packages: Path) -> None:
    readme = (packages / name_of(kind) / "README.md").read_text()
    spec = llamazoo.load_spec(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)[0]))
    assert spec.plugins == {name_of(kind): "0.1.0"}
    assert any(type(part) is component_of(kind) for part in llamazoo.build_model(spec, device="meta").modules())
    assert "PART_" not in readme
    assert "my_part" not in readme


@pytest.mark.parametrize("kind", KINDS)
def test_the_project_file_declares_a_plugin_with_a_test_extra(kind: str, packages: Path) -> None:
    data = tomllib.loads((packages / name_of(kind) / "pyproject.toml").read_text())
    project = data["project"]
    assert data["build-system"]["build-backend"] == "hatchling.build"
    assert (project["name"], project["dependencies"]) == (name_of(kind), ["llamazoo"])
    assert project["entry-points"] == {"llamazoo": {f"third_{kind}": f"third_{kind}"}}
    assert any(need.startswith("pytest") for need in project["optional-dependencies"]["test"])


def test_every_package_is_clean_by_its_own_rules_and_by_ours_however_long_its_name(packages: Path, tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        new_package(f"{'n' * 38}-{number}", kind, tmp_path)
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    line = [f"--config=line-length={ours['line-length']}"]
    rules = ["--select", ",".join(ours["lint"]["select"]), "--ignore", ",".join(ours["lint"]["ignore"])]
    for arguments in (["check"], ["format", "--check"], ["check", *line, *rules], ["format", "--check", *line]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", packages, tmp_path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_pip_builds_a_wheel_with_the_module_its_types_and_the_entry_point(packages: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run([*command, "-w", tmp_path, packages / "third-norm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "third_norm-0.1.0-py3-none-any.whl") as wheel:
        assert {"third_norm/__init__.py", "third_norm/py.typed"} <= set(wheel.namelist())
        assert wheel.read("third_norm-0.1.0.dist-info/entry_points.txt").decode().split() == ["[llamazoo]", "third_norm", "=", "third_norm"]


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plugin", "new", "my-norm", "--kind", "norm", "--into", str(tmp_path)])
    assert result.exit_code == 0, result.output
    told = result.stdout.split("\n")
    assert told[0] == f"{tmp_path / 'my-norm'}: a plugin with one norm; to try it:"
    assert told[1:5] == [f"  cd {tmp_path / 'my-norm'}", "  pip install -e '.[test]'", "  pytest", "  llamazoo plugin check my-norm"]
    found = {str(path.relative_to(tmp_path / "my-norm")) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {".gitignore", "README.md", "pyproject.toml", "my_norm/__init__.py", "my_norm/py.typed", "tests/test_my_norm.py"}


# Names


@pytest.mark.parametrize(
    ("distribution", "names"),
    [
        ("my-norm", ("my_norm", "my_norm", "MyNorm")),
        ("llamazoo-soft-norm", ("llamazoo_soft_norm", "soft_norm", "SoftNorm")),
        ("Llamazoo.ScaledNorm", ("llamazoo_scalednorm", "scalednorm", "ScaledNorm")),
        ("norm2", ("norm2", "norm2", "Norm2")),
    ],
)
def test_all_names_follow_from_the_distributions(distribution: str, names: tuple[str, str, str]) -> None:
    found = Names.of(distribution)
    assert (found.distribution, found.module, found.component, found.of_class) == (distribution, *names)


def test_a_plugin_named_after_llamazoo_offers_a_part_without_that(tmp_path: Path) -> None:
    folder = new_package("llamazoo-soft-norm", "norm", tmp_path)
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["llamazoo"]
    assert points == {"soft_norm": "llamazoo_soft_norm"}
    module = (folder / "llamazoo_soft_norm" / "__init__.py").read_text()
    assert "class SoftNorm(llamazoo.Norm):" in module
    assert '    name = "soft_norm"\n' in module
    assert "from llamazoo_soft_norm import SoftNorm\n" in (folder / "tests" / "test_soft_norm.py").read_text()


REFUSED = {
    "my norm": "'my norm'; a name has letters",
    "../norm": r"'\.\./norm'; a name has letters",
    "-norm": "'-norm'; a name has letters",
    "norm-": "'norm-'; a name has letters",
    "my--norm": "'my--norm'; a name has letters",
    "2norm": "'2norm'; a name has letters",
    "n\u00f6rm": r"'n\\xf6rm'; a name has letters",
    "": "''; a name has letters",
    "n" * 41: "at most 40 characters",
    "lambda": "lambda is a keyword of Python",
    "true": "its class would be True",
    "exception": "its class would be Exception",
    "llamazoo-2x": "its class would be 2x",
    "json": "json is a module of Python's own",
    "tests": "tests means something else",
    "torch": "the module torch is installed already",
    "PyYAML": "PyYAML .* is installed already",
    "llamazoo": "the module llamazoo is installed already",
    "rmsnorm": "rmsnorm is the norm that llamazoo has built in",
    "llamazoo-swiglu": "swiglu is the feed_forward that llamazoo has built in",
    "tensor": "its module uses Tensor for something else",
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(llamazoo.PluginError, match=rf"a plugin cannot be called .*{REFUSED[name]}"):
        new_package(name, "norm", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(llamazoo.PluginError, match="no kind of part is named 'nrom'; did you mean 'norm'\\? kinds: activation, attention"):
        new_package("my-norm", "nrom", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_is_left_alone(there: str, tmp_path: Path) -> None:
    place = tmp_path / "my-norm"
    {"folder": place.mkdir, "file": place.touch, "link": lambda: place.symlink_to(tmp_path / "nowhere")}[there]()
    with pytest.raises(llamazoo.SaveError, match="my-norm: exists already; nothing is ever overwritten"):
        new_package("my-norm", "norm", tmp_path)
    assert list(tmp_path.iterdir()) == [place]
    assert there != "folder" or list(place.iterdir()) == []


def test_a_package_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = package._files(Names.of("my-norm"), "norm")
    monkeypatch.setattr(package, "_files", lambda names, kind: {**files, "no/such/folder": ""})
    with pytest.raises(llamazoo.SaveError, match="nothing was saved"):
        new_package("my-norm", "norm", tmp_path)
    assert list(tmp_path.iterdir()) == []


# What the components compute: each against its equation, written out


def part_of(kind: str, **options: Any) -> Any:
    """The component in the tiny model, with random values."""
    of = subject(component_of(kind), options)
    model, generator = of.model(), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    found = next(iter(of.instances(model).values()))
    return found.requires_grad_(False)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def step_of(batch: int, tokens: int) -> llamazoo.Step:
    return llamazoo.Step.even(batch, tokens, start=0, horizon=64, device=torch.device("cpu"))


def norm() -> tuple[Tensor, Tensor]:
    part, x = part_of("norm", eps=1e-3), drawn(3, BASE["dim"])
    return part(x), part.gain * x / (x.pow(2).sum(-1, keepdim=True) + 1e-3) ** 0.5


def activation() -> tuple[Tensor, Tensor]:
    part, x = part_of("activation"), drawn(5)
    return part(x), torch.stack([v / (1 + math.exp(-part.beta.item() * v)) for v in x])


def feed_forward() -> tuple[Tensor, Tensor]:
    part, x = part_of("feed_forward", activation="relu", hidden_dim=7), drawn(2, 3, BASE["dim"])
    hidden = part.gain * (x @ part.up.weight.T).clamp(min=0)
    assert hidden.shape[-1] == 7
    return part(x, step_of(2, 3)), hidden @ part.down.weight.T


def position() -> tuple[Tensor, Tensor]:
    part, order = part_of("position"), torch.arange(6).expand(2, 6)
    slope, rate = part.log_slope.exp(), part.log_rate.exp()
    expected = torch.zeros(2, BASE["n_heads"], 6, 6, dtype=torch.float64)
    for h in range(BASE["n_heads"]):
        for i in range(6):
            for j in range(i + 1):
                expected[:, h, i, j] = -slope[h] * math.log(1 + rate[h] * (i - j))
    return part.bias(order, order).tril(), expected


def attention() -> tuple[Tensor, Tensor]:
    part, x = part_of("attention", window=3), drawn(1, 6, BASE["dim"])
    part.place.rotate = lambda q, k, step: (q, k)
    e, groups = BASE["head_dim"], BASE["n_heads"] // BASE["n_kv_heads"]
    y = torch.zeros(6, BASE["n_heads"] * e, dtype=torch.float64)
    q, k, v = (layer(x)[0] for layer in (part.q, part.k, part.v))
    for h in range(BASE["n_heads"]):
        mine, shared = slice(h * e, h * e + e), slice(h // groups * e, h // groups * e + e)
        for i in range(6):
            seen = slice(max(0, i - 2), i + 1)
            y[i, mine] = torch.softmax(k[seen, shared] @ q[i, mine] / e**0.5, 0) @ v[seen, shared]
    return part(x, step_of(1, 6), None)[0], (y * part.gate(x)[0].sigmoid()) @ part.o.weight.T


def kernel() -> tuple[Tensor, Tensor]:
    part, eager = part_of("kernel", chunk=4), llamazoo.default_registry().find("kernel", "eager").component
    q, k, v = drawn(2, 4, 9, 8), drawn(2, 2, 9, 8) * 2, drawn(2, 2, 9, 8) * 3
    visible, bias = llamazoo.Visible(step_of(2, 9), window=5), drawn(2, 4, 9, 9)
    of = subject(eager)
    reference = next(iter(of.instances(of.model()).values()))
    rest = {"visible": visible, "bias": bias, "sinks": drawn(4), "softcap": 3.0, "scale": 0.4}
    return part(q, k, v, **rest), reference(q, k, v, **rest)


def block() -> tuple[Tensor, Tensor]:
    part, x = part_of("block"), drawn(2, 5, BASE["dim"])
    part.attention.forward, part.feed_forward.forward = (lambda x, step, state: x.cumsum(1)), (lambda x, step: x**3)
    y = x + part.attention_gain * part.attention_norm(x).cumsum(1)
    return part(x, step_of(2, 5), None), y + part.feed_forward_gain * part.feed_forward_norm(y) ** 3


def embedding() -> tuple[Tensor, Tensor]:
    part, tokens = part_of("embedding"), torch.tensor([[3, 0, 36]])
    return part(tokens), F.layer_norm(part.weight[[3, 0, 36]], (BASE["dim"],), part.norm.weight, part.norm.bias, 1e-5)[None]


def router() -> tuple[Tensor, Tensor]:
    part, x = part_of("router", temperature=0.5), drawn(1, 3, BASE["dim"])
    logits = torch.stack([torch.stack([row @ w / (row.norm() * w.norm()) / 0.5 for w in part.weight]) for row in x[0]])
    best = logits.argsort(-1, descending=True)[:, :2]
    routing = part(x, step_of(1, 3))
    assert torch.equal(routing.experts[0], best)
    chances = logits.exp() / logits.exp().gather(1, best).sum(-1, keepdim=True)
    return torch.cat((routing.logits[0], routing.weights[0]), -1), torch.cat((logits, chances.gather(1, best)), -1)


def head() -> tuple[Tensor, Tensor]:
    part, x = part_of("head"), drawn(3, BASE["dim"])
    cosines = [[(row @ w / (row.norm() * w.norm())).item() for w in part.weight] for row in x]
    return part(x), part.radius * torch.tensor(cosines, dtype=torch.float64)


EQUATIONS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    made.__name__: made for made in (activation, attention, block, embedding, feed_forward, head, kernel, norm, position, router)
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("packages")
def test_each_component_computes_its_equation(kind: str) -> None:
    found, expected = EQUATIONS[kind]()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("packages")
def test_the_head_may_be_tied_to_the_embedding() -> None:
    model = llamazoo.build_model("llama-tiny", overrides={"embedding": "third_embedding", "head": {"type": "third_head", "tied": True}})
    assert model.head.weight is model.embedding.weight
    assert isinstance(model.head.weight, nn.Parameter)


@pytest.mark.usefixtures("packages")
def test_a_feed_forward_without_a_width_and_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(llamazoo.SpecError, match=r"feed_forward\.hidden_dim: a feed-forward needs a width"):
        llamazoo.load_spec({**BASE, "hidden_dim": None, "feed_forward": "third_feed_forward"})
    with pytest.raises(llamazoo.SpecError, match="3 key/value heads"):
        llamazoo.load_spec({**BASE, "n_kv_heads": 3, "attention": "third_attention"})
