"""The house: lazy imports, one door, no path of a machine, exact versions, few bytes."""

import re
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = [
    "torch",
    "transformers",
    "transformer_lens",
    "sae_lens",
    "pandas",
    "scipy",
    "sklearn",
    "plotly",
]
HEAVY += ["langcodes", "language_data"]
# Written so that this file does not match itself.
MACHINE = re.compile(
    r"(^|[^A-Za-z0-9_./-])/(w[o]rk|f[a]rm|r[o]ot|h[o]me/[a-z]+|U[s]ers/[a-z]+)/|index-[u]rl|find-[l]inks"
)
BINARY_MEGABYTES = 42  # the model, and at most 17 for its SAEs


def tracked() -> list[Path]:
    """The files that git knows, and those that it would take."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        listed, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """The text of a file; None for a binary one."""
    data = path.read_bytes()
    return None if b"\0" in data else data.decode("utf-8", errors="replace")


def heavy_after(code: str) -> str:
    """Which heavy packages a fresh Python has imported after `code`."""
    report = (
        f"import sys\n{code}\nprint('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", report], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return run.stdout.strip().splitlines()[-1]


def test_import_is_lazy():
    assert heavy_after("import steerlab") == "heavy: []"
    assert "torch" in heavy_after("import torch"), "the check itself must be able to fail"


@pytest.mark.parametrize("words", ["--help", "run --help", "sweep --help", "clas --help"])
def test_help_is_lazy(words):
    """Also where options are made from settings, whose checks know estimators and operators."""
    code = f"""
from steerlab.cli import main
try:
    code = main({words.split()})
except SystemExit as done:
    code = done.code
assert not code, code
"""
    assert heavy_after(code) == "heavy: []"


def test_help_of_all_verbs_makes_no_settings():
    code = """
from steerlab.cli import main
try:
    main(["--help"])
except SystemExit:
    assert "steerlab.studies.main.settings" not in sys.modules
"""
    assert heavy_after(code) == "heavy: []"


def test_the_records_of_scores_need_no_model():
    """The one look-up from below of what lies above: it must not bring the engine along."""
    code = """
from steerlab.core.columns import score_records
assert "in_language" in score_records()
above = ("steerlab.engine", "steerlab.models", "steerlab.sweeps", "steerlab.studies")
print([name for name in sys.modules if name.startswith(above)])
"""
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "[]"
    heavy = heavy_after(code)
    assert "torch" not in heavy
    assert "transformers" not in heavy


def test_console_script():
    script = Path(sys.executable).with_name("steerlab")
    run = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "run" in run.stdout


def test_every_door_opens():
    import steerlab

    for name in steerlab.__all__:
        assert getattr(steerlab, name) is not None
    assert set(steerlab.__all__) <= set(dir(steerlab))


def test_nothing_inside_uses_the_door():
    uses = re.compile(r"^\s*(from steerlab import|import steerlab\b(?!\.))", re.MULTILINE)
    assert uses.search("from steerlab import load")
    assert [
        str(path)
        for path in (ROOT / "steerlab").rglob("*.py")
        if path != ROOT / "steerlab" / "__init__.py" and uses.search(path.read_text("utf-8"))
    ] == []


def test_types_are_checked_while_testing():
    from steerlab.core.sites import hook_name

    with pytest.raises(jaxtyping.TypeCheckError, match="hook_name"):
        hook_name("resid_post", "5")  # type: ignore[arg-type]


def test_no_path_of_a_machine():
    assert MACHINE.search("see " + "/".join(["", "root", "x"]))
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        for number, line in enumerate((text_of(path) or "").splitlines(), start=1)
        if MACHINE.search(line)
    ]
    assert found == []


def test_binaries_stay_small():
    size = sum(path.stat().st_size for path in tracked() if text_of(path) is None)
    assert size < BINARY_MEGABYTES * 1e6


def test_constraints_are_exact():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [
        pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*", pin)
    ] == []
    assert "torch==2.13.0" in pins
