"""The project's layout: where things are, which modules may import which, and the contents of a wheel."""

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from support.installing import built_wheel, copied_checkout
from support.tally import ROOT

PACKAGES = ("commands", "actors", "http", "importing", "recovery", "store")

# A module may import those below it:
# supervisor → commands → actors → importing → http → recovery → store → config → redis_url.
LEVELS = {
    "__main__": 8,
    "supervisor": 7,
    "commands": 6,
    "actors": 5,
    "importing": 4,
    "http": 3,
    "recovery": 3,
    "store": 2,
    "config": 1,
    "redis_url": 0,
    "events": 0,
    "figures": 0,
    "version": 0,
}


def _sources() -> dict[str, Path]:
    """Our modules by their names within the package: `events`, `store.outbox`."""
    files = [*ROOT.glob("*.py"), *(file for package in PACKAGES for file in (ROOT / package).glob("*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return {
        name.removesuffix(".__init__"): file
        for name, file in zip(names, files, strict=True)
        if name != "__init__"
    }


SOURCES = _sources()


def _imported(module: str) -> Iterator[str]:
    """The full names that a module imports, anywhere in it."""
    package = ["tally", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _ours(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    found = set()
    for name in _imported(module):
        head, *parts = name.split(".")
        if head == "tally":
            within = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
            known = [part for part in within if part in SOURCES]
            assert known or parts[:1] == [] or parts[0] in PACKAGES, f"{module} imports {name}"
            found.update(known[:1])
    return found - {module}


def _run(*command: str | Path, directory: Path, path: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [*map(str, command)], cwd=directory, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository that tests may change."""
    return copied_checkout(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tree, tmp_path_factory.mktemp("wheel"))


def _content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_folder_http_is_no_regular_package() -> None:
    assert (ROOT / "http").is_dir()
    assert not (ROOT / "http" / "__init__.py").exists()


@pytest.mark.parametrize("name", ["http", "http.client", "http.server"])
def test_a_script_in_the_repositorys_root_gets_the_standard_librarys_http(tree: Path, name: str) -> None:
    script = tree / "script.py"
    script.write_text(f"import {name}\nprint({name}.__file__)\n")
    try:
        seen = Path(_run(sys.executable, script, directory=tree))
    finally:
        script.unlink()
    assert seen.is_relative_to(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("directory", [ROOT, Path("/")], ids=["the root", "elsewhere"])
def test_programs_started_anywhere_get_the_standard_librarys_http_and_ours_as_tallys(directory: Path) -> None:
    code = "import http.client, tally.http.customers as c; print(http.__file__); print(c.__file__)"
    standard, ours = map(Path, _run(sys.executable, "-c", code, directory=directory).splitlines())
    assert standard.is_relative_to(sysconfig.get_path("stdlib"))
    assert ours.samefile(ROOT / "http" / "customers.py")


def test_pip_works_in_the_repositorys_root() -> None:
    assert _run(sys.executable, "-m", "pip", "--version", directory=ROOT).startswith("pip ")


def test_every_module_has_its_place_in_the_order_of_layers() -> None:
    assert {module.split(".")[0] for module in SOURCES} == set(LEVELS)


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_from_its_own_folder_and_from_below(module: str) -> None:
    folder = module.split(".")[0]
    upward = [
        other
        for other in _ours(module)
        if other.split(".")[0] != folder and LEVELS[other.split(".")[0]] >= LEVELS[folder]
    ]
    assert upward == []


@pytest.mark.parametrize("module", ["events", "figures", "redis_url", "version"])
def test_what_lies_at_the_bottom_imports_nothing_of_ours(module: str) -> None:
    assert _ours(module) == set()


@pytest.mark.parametrize("module", [module for module in SOURCES if module.startswith("store")])
def test_the_store_knows_nothing_of_http_or_processes(module: str) -> None:
    foreign = {"falcon", "waitress", "multiprocessing", "subprocess", "http", "click"}
    assert {name.split(".")[0] for name in _imported(module)} & foreign == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    order = list(TopologicalSorter({module: _ours(module) for module in SOURCES}).static_order())
    assert set(order) == set(SOURCES)


def test_importing_every_module_starts_no_thread_and_no_process() -> None:
    every = ", ".join(f"tally.{module}" for module in SOURCES)
    code = f"import psutil, threading, {every}; print(threading.active_count(), psutil.Process().children())"
    assert _run(sys.executable, "-c", code, directory=Path("/")) == "1 []"


def test_the_wheel_holds_every_module_and_no_other(wheel: Path) -> None:
    modules = {f"tally/{file.relative_to(ROOT).as_posix()}" for file in SOURCES.values()}
    packed = {name for name in _content(wheel) if name.endswith(".py")}
    assert packed == modules | {"tally/__init__.py"}


def test_the_wheel_holds_the_scripts_the_settings_and_the_mark_of_types(wheel: Path) -> None:
    scripts = {f"tally/store/scripts/{file.name}" for file in (ROOT / "store" / "scripts").iterdir()}
    assert scripts
    assert scripts | {"tally/config.toml", "tally/py.typed"} <= _content(wheel)


def test_the_wheel_holds_the_pages(wheel: Path) -> None:
    files = {
        f"tally/http/{folder}/{file.name}"
        for folder in ("static", "vendor")
        for file in (ROOT / "http" / folder).iterdir()
    }
    assert {"tally/http/static/accounts.html", "tally/http/static/tally.css"} <= files <= _content(wheel)


def test_the_wheel_holds_nothing_that_a_checkout_is_told_by(wheel: Path) -> None:
    assert (ROOT / "pyproject.toml").exists()
    assert "tally/pyproject.toml" not in _content(wheel)


def test_the_wheel_puts_nothing_but_tally_into_site_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in _content(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tally"}
    assert "tally/http/__init__.py" not in _content(wheel)


def test_tally_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import tally.supervisor, tally.config, tally.http.accounts, tally.store.stream\n"
        "print(tally.supervisor.__file__, tally.http.accounts.__file__, tally.config.DEFAULT_FILE)\n"
        "tally.config.load(environment={})\n"
        "tally.store.stream.EventStream(tally.store.stream.connect('redis://'), 's')\n"
        "tally.supervisor.main(['--version'])\n"
    )
    where, version = _run(sys.executable, "-c", code, directory=tmp_path, path=tmp_path / "site").splitlines()
    assert all(Path(file).is_relative_to(tmp_path) for file in where.split())
    assert version.startswith("tally")


def test_prose_is_read_without_moving_the_head() -> None:
    """No line of prose is longer than 120 characters. Code and tables may be longer."""
    found = []
    for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        is_code = False
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            is_code ^= line.lstrip().startswith("```")
            if not is_code and not line.startswith("|") and len(line) > 120:
                found.append(f"{file.relative_to(ROOT)}:{number}")
    assert found == []
