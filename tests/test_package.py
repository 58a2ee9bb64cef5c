"""What is built holds every module, from a tree without symbolic links and from the sdist."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import metaloom

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("learners", "search_spaces", "workers", "dashboards", "orchestrator")
TOP = ("src", "tests", "docs", "examples", "benchmarks", *FOLDERS)
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "Makefile", "constraints.txt", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command as a user would: without this process's PYTHONPATH."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(tree: Path, out: Path) -> Path:
    """Build a wheel from ``tree`` as pip does, with the running environment's setuptools."""
    out.mkdir()
    run(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})", cwd=tree)
    (wheel,) = out.glob("metaloom-*.whl")
    return wheel


def content(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("metaloom/")}


def tree_content() -> set[str]:
    """Return what a wheel must hold: modules, presets, the files of pages and reports, and the mark of types."""
    inner = [path for folder in FOLDERS for kind in ("*.py", "*.yaml") for path in (ROOT / folder).rglob(kind)]
    pages = ROOT / "dashboards" / "pages"
    inner += [path for folder in ("templates", "static") for path in (pages / folder).rglob("*") if path.is_file()]
    report = ROOT / "dashboards" / "report_page"
    inner += [path for kind in ("*.html", "*.css") for path in report.glob(kind)]
    source = ROOT / "src" / "metaloom"
    top = [path.relative_to(source) for folder in (source, source / "testing") for path in folder.glob("*.py")]
    return {f"metaloom/{one}" for one in [*(path.relative_to(ROOT) for path in inner), *top, "py.typed"]}


@pytest.fixture(scope="module")
def unlinked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree in which each link is a text file, as a downloaded zip archive has it."""
    tree = tmp_path_factory.mktemp("unlinked") / "metaloom-main"
    tree.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    for name in TOP:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=LEFT_OUT)
    for folder in FOLDERS:
        link = tree / "src" / "metaloom" / folder
        link.unlink(missing_ok=True)
        link.write_text(f"../../{folder}")
    return tree


@pytest.fixture(scope="module")
def unpacked_sdist(unlinked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    run(sys.executable, "-c", code, cwd=unlinked)
    (archive,) = out.glob("metaloom-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(unlinked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(unlinked, tmp_path_factory.mktemp("wheels") / "unlinked")


def borrow_packages(python: Path) -> None:
    """Let an environment import the packages of the running one, whose metaloom is not among them."""
    folder = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip()
    (Path(folder) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")


def fresh_environment(folder: Path) -> Path:
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def copy_environment(python: Path, folder: Path) -> Path:
    """Copy an environment; its scripts then name the copy's Python."""
    environment = python.parents[1]
    shutil.copytree(environment, folder, symlinks=True)
    script = folder / "bin" / "metaloom"
    script.write_text(script.read_text().replace(str(environment), str(folder)))
    return folder / "bin" / "python"


def install(python: Path, *arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", *arguments, cwd=python.parent)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel, and nothing else."""
    python = fresh_environment(tmp_path_factory.mktemp("installed") / "environment")
    install(python, wheel)
    return python


def test_a_wheel_from_a_tree_without_links_holds_every_module(wheel):
    assert content(wheel) == tree_content()
    assert len(tree_content()) > 250


def test_an_sdist_holds_the_tests_and_builds_the_same_wheel(unpacked_sdist, wheel, tmp_path):
    for folder in ("tests", "docs", "examples", "benchmarks"):
        expected = {
            path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".md", ".yaml")
        }
        found = {path.relative_to(unpacked_sdist) for path in (unpacked_sdist / folder).rglob("*.*")}
        assert {one for one in expected if "build" not in one.parts} <= found, folder
    assert {name for name in FILES if not (unpacked_sdist / name).is_file()} == set()
    assert content(build(unpacked_sdist, tmp_path / "wheel")) == content(wheel)


def test_an_installed_wheel_answers_and_is_the_one_version(installed, tmp_path):
    python = copy_environment(installed, tmp_path / "environment")
    borrow_packages(python)
    assert "search" in run(python.parent / "metaloom", "--help", cwd=tmp_path)
    code = (
        "import metaloom.learners, metaloom.orchestrator.api, importlib.metadata as metadata\n"
        "print(metaloom.learners.__file__, metadata.version('metaloom'), metaloom.__version__)"
    )
    file, installed, imported = run(python, "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(tmp_path / "environment")
    assert installed == imported == metaloom.__version__


def test_an_editable_install_without_links_is_one_package(unlinked, tmp_path):
    """Its modules are the tree's files, also in a process started by ``spawn``, as Ray's workers are."""
    python = fresh_environment(tmp_path / "environment")
    borrow_packages(python)  # first: the build needs its setuptools
    install(python, "--no-build-isolation", "-e", unlinked)
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "def where(name):\n"
        "    __import__(name)\n"
        "    return sys.modules[name].__file__\n"
        "if __name__ == '__main__':\n"
        "    name, light = 'metaloom.workers.trial.runner', 'metaloom.workers.records.names'\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(where(name), where(light), pool.apply(where, (light,)))\n"
        "    own = [one for one in sys.modules if one.split('.')[0] in ('learners', 'workers', 'search_spaces')]\n"
        "    assert own == [], own\n"
    )
    for path in ("", f"{unlinked / 'src'}{os.pathsep}{unlinked}"):
        here, light, there = run(python, script, cwd=unlinked, PYTHONPATH=path).split()
        assert here == str(unlinked / "workers" / "trial" / "runner.py")
        assert light == there == str(unlinked / "workers" / "records" / "names.py")
    assert "search" in run(python.parent / "metaloom", "--help", cwd=tmp_path)


def with_dependencies(lines: list[str]) -> dict[str, Distribution]:
    """Return what pip would install for these requirements, each as it is installed here."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(line) for line in lines]
    while waiting:
        asked = waiting.pop()
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        if name in found or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(name)
        assert asked.specifier.contains(found[name].version, prereleases=True), asked
        waiting += [Requirement(line) for line in found[name].requires or ()]
    return found


def borrow_only(python: Path, distributions: dict[str, Distribution]) -> None:
    """Link the files of these distributions, and no others, into an environment."""
    folder = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip()
    for one in distributions.values():
        tops = {path.parts[0] for path in one.files or () if path.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            link = Path(folder) / top
            if not link.exists():
                link.symlink_to(Path(str(one.locate_file(top))))


def test_a_bundle_is_served_by_the_packages_that_it_names(installed, tmp_path):
    """By metaloom alone and what ``requirements.txt`` names.

    The packages are not downloaded: the files of those that pip would choose are linked from the running
    environment. So it is tested that nothing else is imported, and that the versions here are in the ranges.
    """
    outer = {"steps": 2, "validate_every": 2, "validation_episodes": 4, "test_episodes": 4, "strategy": "loop"}
    changes = [f"outer.{name}={value}" for name, value in outer.items()]
    metaloom.train("quick", overrides=changes, name="first", store=tmp_path / "store")
    bundle = metaloom.export("first", tmp_path / "bundle", episodes=4, store=tmp_path / "store")
    lines = (bundle / "requirements.txt").read_text().splitlines()
    assert [re.split("[<>=]", line)[0] for line in lines] == [
        "filelock", "numpy", "pyarrow", "PyYAML", "safetensors", "scipy", "torch",
    ]  # fmt: skip
    python = copy_environment(installed, tmp_path / "environment")
    distributions = with_dependencies(lines)
    absent = {"ray", "optuna", "mlflow", "numba", "matplotlib", "scikit-learn", "pydantic"}
    assert absent.isdisjoint(distributions)
    borrow_only(python, distributions)
    code = (
        "import sys, importlib.util, json, torch, metaloom\n"
        f"assert not [one for one in {sorted(absent - {'scikit-learn'})!r} if importlib.util.find_spec(one)]\n"
        "from metaloom.learners.networks.pooled_convolution import pooled_convolution\n"
        "assert float(pooled_convolution(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3))) == 4.0\n"
        "bundle = metaloom.load_bundle(sys.argv[1])\n"
        "x = torch.linspace(-4, 4, 10).reshape(-1, 1)\n"
        "assert bundle.adapt(x, x[:, 0].sin()).predict(x[:3]).shape == (3,)\n"
        "again = bundle.evaluate(cache=sys.argv[2], episodes=4)\n"
        "print(json.dumps(again.scores) == json.dumps(bundle.manifest['evaluation']['scores']))"
    )
    assert run(python, "-c", code, bundle, tmp_path / "cache", cwd=tmp_path).strip() == "True"
