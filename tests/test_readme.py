"""README.md and the guides: their Python runs, every command, option and link is there.

The notebooks, which are the guides, are executed by `make notebooks`; here their commands are
looked at, and that their outputs are not kept in the repository.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from steerlab.cli import main

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", ROOT / "docs" / "start.md"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def text_of(page: Path) -> str:
    """The text of a page; of a notebook, that of its Markdown cells."""
    text = page.read_text("utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in a language."""
    text = text_of(page)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def lines(language: str) -> list[str]:
    """All lines of code in a language, of all guides."""
    found = [block for page in [*GUIDES, *NOTEBOOKS] for block in blocks(page, language)]
    return [line for block in found for line in block.splitlines()]


def steerlab(*words: str) -> str:
    script = Path(sys.executable).with_name("steerlab")
    return subprocess.run([script, *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_python_runs(page, tmp_path, monkeypatch, capsys):
    """The blocks of a page run one after another, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    program = "\n".join(blocks(page, "python"))
    shown = re.sub(r"\.show\(\)", lambda match: f'.write_html("{match.start()}.html")', program)
    exec(compile(shown, page.name, "exec"), {"__name__": "guide"})
    figures = list(tmp_path.glob("*.html"))
    assert len(figures) == program.count(".show()")
    assert all("plotly" in figure.read_text("utf-8") for figure in figures)
    assert program.count("print(") == 0 or capsys.readouterr().out.strip()


def test_readme_has_the_ten_lines():
    (program,) = blocks(ROOT / "README.md", "python")
    statements = [line for line in program.splitlines() if line.strip()]
    assert 10 <= len(statements) <= 14


def test_commands_exist():
    named = [match for line in lines("sh") for match in re.findall(r"^steerlab (\w+)(.*)", line)]
    assert {"run", "sweep"} <= {verb for verb, _ in named}
    for verb, rest in named:
        allowed = set(re.findall(r"--[a-z-]+", steerlab(verb, "--help")))
        assert set(re.findall(r"--[a-z-]+", rest.split("#")[0])) <= allowed, verb


def test_steps_on_files_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = [line for line in lines("sh") if re.match(r"steerlab (fit|steer|show)", line)]
    assert len(steps) == 3
    for step in steps:
        assert main(shlex.split(step)[1:]) == 0, step
        assert capsys.readouterr().out.strip(), step


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    quoted = [
        words for page in PAGES for words in re.findall(r"`make ([a-z ]+)", page.read_text("utf-8"))
    ]
    typed = re.findall(r"^make ([a-z]+)", "\n".join(lines("sh")), re.MULTILINE)
    named = {word for words in [*quoted, *typed] for word in words.split()}
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", text_of(page))
    local = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    # Pages under guides/ are made of the notebooks.
    made = {f"guides/{notebook.stem}.md" for notebook in NOTEBOOKS}
    missing = [link for link in local if not (page.parent / link).exists()]
    assert [link for link in missing if link.removeprefix("docs/") not in made] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda page: page.name)
def test_a_notebook_is_kept_without_outputs(notebook):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def test_start_names_the_extras():
    """Every extra that is not for those who change the code, and no other."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = set(extras["optional-dependencies"]) - {"dev", "docs"}
    text = (ROOT / "docs" / "start.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == wanted
