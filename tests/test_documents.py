"""Whatever name of the code a document says, the code has; and the Python page shows all that is
public."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import steerlab as sl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "steerlab"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TRACKED = ["docs", "experiments", "notebooks", "steerlab", "tests"]

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
DOOR = re.compile(r"(?<![\w.`/])sl\.[A-Za-z_][\w.]*|(?<=`)sl\.[A-Za-z_][\w.]*")
DOTTED = re.compile(rf"(?:steerlab|{'|'.join(FOLDERS)})(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(TRACKED + FOLDERS)})(?:/[\w.-]+)+")
DIRECTIVE = re.compile(r"^::: ([\w.]+)", re.MULTILINE)
FILE = re.compile(r"\.(csv|json|jsonl|md|parquet|safetensors)$")  # a run's file, no module's name


def prose(text: str) -> str:
    """A page without its fenced code, which other tests run."""
    return FENCE.sub("", text)


def resolves(name: str) -> bool:
    """Whether a dotted name that begins with `sl` or `steerlab` is a module or is in one."""
    value: Any = sl
    path = "steerlab"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if hasattr(value, part):
            value = getattr(value, part)
            continue
        try:
            value = importlib.import_module(path)
        except ModuleNotFoundError:
            return False
    return True


def stale_modules(text: str) -> set[str]:
    """The names of modules, and of what is in one, that a page has in backticks or shows."""
    quoted = {DOTTED.match(code) for code in CODE.findall(prose(text))}
    names = {match[0] for match in quoted if match and not FILE.search(match[0])}
    names |= set(DIRECTIVE.findall(text))
    whole = {name if name.startswith("steerlab.") else f"steerlab.{name}" for name in names}
    return {name for name in whole if not resolves(name)}


def stale_paths(text: str) -> set[str]:
    """The files and folders of the repository that a page names; a folder of the package may
    stand without `steerlab/`, and a module without `.py`."""
    names = {name.rstrip(".") for name in PATH.findall(prose(text))}
    tried = {
        name: [base / f"{name}{end}" for base in (ROOT, PACKAGE) for end in ("", ".py")]
        for name in names
    }
    return {name for name, files in tried.items() if not any(file.exists() for file in files)}


def stale_doors(text: str) -> set[str]:
    return {name for name in DOOR.findall(text) if not resolves(name.rstrip("."))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    assert stale_modules(text) == set()
    assert stale_paths(text) == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_names_at_the_door_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    # A recipe's own names are there only while test_contributing runs it.
    assert stale_doors(prose(text) if page.name == "CONTRIBUTING.md" else text) == set()


def test_what_is_gone_would_be_seen() -> None:
    text = "`steerlab.terms`, `models.slab`, `scores.csv`, `models.kv_cache`\n::: steerlab.cards\n"
    assert stale_modules(text) == {"steerlab.terms", "steerlab.models.slab", "steerlab.cards"}
    text = "`tests/by_foot.py`, `core/terms`, `core/errors`, tests/by_hand.py, build/atlas\n"
    assert stale_paths(text) == {"tests/by_foot.py", "core/terms"}
    assert stale_doors("`sl.heatmap`, `sl.figures.heatmap`, sl.units.lapse(x)") == {
        "sl.heatmap",
        "sl.units.lapse",
    }


def public() -> dict[str, Any]:
    """Every function and class at the door and in its groups."""
    names = {f"sl.{name}": getattr(sl, name) for name in sl.__all__}
    groups = {name: value for name, value in names.items() if inspect.ismodule(value)}
    for group, module in groups.items():
        names |= {f"{group}.{name}": getattr(module, name) for name in module.__all__}
    return {name: value for name, value in names.items() if hasattr(value, "__qualname__")}


def undocumented(page: str) -> set[str]:
    shown = set(DIRECTIVE.findall(page))
    return {name for name, value in public().items() if value.__module__ not in shown}


def test_the_python_page_documents_every_public_name() -> None:
    """A package that reads its names from records shows none, so that the modules are named."""
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert undocumented(page) == set()
    assert undocumented(page.replace("::: steerlab.estimate.leace\n", "")) == {"sl.estimate.leace"}


def test_every_group_is_explained() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    groups = [name for name in sl.__all__ if inspect.ismodule(getattr(sl, name))]
    assert len(groups) > 10
    assert [name for name in groups if f"`sl.{name}`" not in page] == []
    assert [name for name in groups if f"`{name}`" not in (sl.__doc__ or "")] == []


def knobs_without_args(source: str) -> list[str]:
    """Public functions with more than two knobs whose docstring has no `Args:`."""
    functions = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.FunctionDef)]
    return [
        each.name
        for each in functions
        if not each.name.startswith("_")
        and len(each.args.kwonlyargs) > 2
        and "Args:" not in (ast.get_docstring(each) or "")
    ]


def test_more_than_two_knobs_are_listed() -> None:
    bare = 'def f(x, *, a, b, c):\n    """Does."""'
    assert knobs_without_args(bare) == ["f"]
    assert knobs_without_args(bare.replace("c", "**c")) == []
    files = sorted((ROOT / "steerlab").rglob("*.py"))
    found = {file.name: knobs_without_args(file.read_text("utf-8")) for file in files}
    assert {name: names for name, names in found.items() if names} == {}
