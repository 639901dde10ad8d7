"""CONTRIBUTING.md's recipes are executed: a method's one file in a copy of the package, and a sweep
with it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
# A heading, and the code under it: what begins with a path is a file, the others are run.
HEADINGS = ("An estimator", "An operator", "A score", "A figure", "A format of autoencoders")
FILE = re.compile(r"# (steerlab/[a-z_/]+\.py)\n")


def blocks(heading: str) -> list[str]:
    """The fenced Python under a heading, up to the next one."""
    found: list[str] = []
    current = ""
    fenced: list[str] | None = None  # the lines of the block that is open
    for line in TEXT.splitlines():
        if fenced is None and line.startswith("#"):
            current = line.lstrip("# ")
        elif fenced is None and line == "```python":
            fenced = []
        elif fenced is not None and line == "```":
            if current == heading:
                found.append("\n".join(fenced) + "\n")
            fenced = None
        elif fenced is not None:
            fenced.append(line)
    return found


def run(package: Path, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script in a fresh Python that takes steerlab from a folder."""
    file = cwd / "recipe.py"
    file.write_text(script, "utf-8")
    env = {**os.environ, "PYTHONPATH": str(package)}
    return subprocess.run(
        [sys.executable, file], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def test_each_recipe_is_one_file_and_a_sweep_with_it(tmp_path: Path) -> None:
    package = tmp_path / "copy"
    # Links, since the data are large; folders are real, so that a file can be put beside them.
    shutil.copytree(
        ROOT / "steerlab",
        package / "steerlab",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    begin = blocks("Adding a method")
    used = []
    for heading in HEADINGS:
        files = [block for block in blocks(heading) if FILE.match(block)]
        used += [block for block in blocks(heading) if not FILE.match(block)]
        assert len(files) == 1, heading
        path = package / FILE.match(files[0])[1]  # type: ignore[index]
        assert not path.exists()
        assert path.parent.is_dir()
        path.write_text(files[0], "utf-8")
    assert len(begin) == 1
    assert len(used) == len(HEADINGS)
    done = run(package, "\n".join([*begin, *used]), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("heading", "error"),
    [
        ("An estimator", "there is no estimator 'median'"),
        ("An operator", "a sweep steers with .*, not with 'stretch'"),
        ("A format of autoencoders", "layer_5 holds no autoencoder"),
    ],
)
def test_without_its_file_a_recipe_fails(heading: str, error: str, tmp_path: Path) -> None:
    """So that what is found above is found by the file."""
    begin = blocks("Adding a method")[0].split("\n\n\ndef", 1)[0]
    used = [block for block in blocks(heading) if not FILE.match(block)]
    done = run(ROOT, "\n".join([begin, *used]), tmp_path)
    assert done.returncode != 0
    assert re.search(error, done.stderr), done.stderr[-2000:]
