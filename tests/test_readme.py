"""README.md is executed: its Python, and every command, option and link that it names."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from steerlab.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(language: str) -> list[str]:
    """The fenced code blocks of README.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def steerlab(*words: str) -> str:
    script = Path(sys.executable).with_name("steerlab")
    return subprocess.run([script, *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = re.sub(r"\.show\(\)", lambda match: f'.write_html("{match.start()}.html")', block)
    exec(compile(shown, "README.md", "exec"), {"__name__": "readme"})
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) == block.count(".show()")
    assert all("plotly" in page.read_text("utf-8") for page in pages)
    assert block.count("print(") == 0 or capsys.readouterr().out.strip()


def test_readme_has_the_ten_lines():
    program = [line for block in blocks("python") for line in block.splitlines() if line.strip()]
    assert len(program) > 10


def test_commands_exist():
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    verbs = [re.findall(r"^steerlab (\w+)(.*)", line) for line in commands]
    named = [match for found in verbs for match in found]
    assert named
    for verb, rest in named:
        allowed = set(re.findall(r"--[a-z-]+", steerlab(verb, "--help")))
        assert set(re.findall(r"--[a-z-]+", rest.split("#")[0])) <= allowed, verb


def test_steps_on_files_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if re.match(r"steerlab (?!run|sweep|clas)", line)
    ]
    assert len(steps) == 3
    for step in steps:
        assert main(shlex.split(step)[1:]) == 0, step
        assert capsys.readouterr().out.strip(), step


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    quoted = [
        words for page in PAGES for words in re.findall(r"`make ([a-z ]+)", page.read_text("utf-8"))
    ]
    typed = re.findall(r"^make ([a-z]+)", "\n".join(blocks("sh")), re.MULTILINE)
    named = {word for words in [*quoted, *typed] for word in words.split()}
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    local = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []
