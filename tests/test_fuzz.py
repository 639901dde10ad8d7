"""The fuzzer does no harm, and its short form finds nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "experiments" / "fuzz.py"
sys.path.insert(0, str(FUZZ.parent))
import fuzz  # noqa: E402 -- a script, whose folder is no package


def test_the_short_form_finds_nothing() -> None:
    run = subprocess.run(
        [sys.executable, str(FUZZ), "--short"], capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.findall(r"fuzz: (\d+) inputs", run.stdout)[0]) >= len(CASES)


CASES = [name for name in vars(fuzz.Bench) if not name.startswith("_") and name != "cases"]


def test_it_refuses_to_run_where_it_could_do_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        with pytest.raises(SystemExit, match="does not run as root"):
            fuzz.need_safe(tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid)
    fuzz.need_safe(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="is no empty folder"):
        fuzz.need_safe(tmp_path)
    with pytest.raises(SystemExit, match="is no empty folder"):
        fuzz.need_safe(Path(__file__).parent)


def test_no_word_leads_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path.parent)
    fuzz.need_inside(["show", "-o", str(tmp_path / "a"), "b/c", "--layer"], tmp_path)
    for word in ("../a", "link/a", f"--out={tmp_path.parent / 'x'}", str(tmp_path.parent)):
        with pytest.raises(SystemExit, match="leads out of"):
            fuzz.need_inside(["show", word], tmp_path)
