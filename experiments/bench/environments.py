"""Environments of their own for the peers whose pins clash with ours: made once, made again when
a pin changes."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
# What each peer's environment holds beside the torch of constraints.txt. The newest releases that
# the registry has on 2026-11-21, with the newest transformers and numpy that each of them takes.
PINS = {
    "steering-vectors": (
        "steering-vectors==0.12.2",
        "transformers==4.57.6",
        "numpy==2.4.6",
        "safetensors==0.8.0",
    ),
    "nnsight": ("nnsight==0.8.1", "transformers==5.23.0", "numpy==2.4.6", "safetensors==0.8.0"),
    "repeng": ("repeng==0.4.0", "transformers==5.23.0", "numpy==1.26.4", "safetensors==0.8.0"),
}
MINUTES = 10  # for the installation of one environment


class NotMeasured(Exception):
    """A peer could not be set up; the message says why, for the report."""


def torch_pin() -> str:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def python_of(
    peer: str, *, pins: Sequence[str] = (), make: bool = True, minutes: int = MINUTES
) -> Path:
    """The Python of a peer's environment; without `make` only an environment that is there
    already will do.

    It holds what `PINS` says and the torch of constraints.txt, or what `pins` says and nothing
    else; `minutes` is for its installation.
    """
    pins = pins or (torch_pin(), *PINS[peer])
    folder = BUILD / f"env-{peer}"
    python, marker = folder / "bin" / "python", folder / "pins.txt"
    wanted = "\n".join([sys.version, *pins])
    if python.exists() and marker.exists() and marker.read_text("utf-8") == wanted:
        return python
    if not make:
        raise NotMeasured("its environment is not made yet; a run without --quick makes it")
    print(f"making an environment for {peer} in {folder.relative_to(ROOT)}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _call([sys.executable, "-m", "venv", str(folder)], peer, minutes)
    # torch is always named, so that no other version of it comes along.
    _call([str(python), "-m", "pip", "install", "--quiet", *pins], peer, minutes)
    marker.write_text(wanted, "utf-8")
    return python


def _call(command: list[str], peer: str, minutes: int) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasured(f"its environment could not be made ({error})") from error
    if done.returncode:
        told = [
            line for line in done.stderr.splitlines() if "ERROR" in line
        ] or done.stderr.splitlines()[-1:]
        raise NotMeasured(f"{peer}'s environment could not be made: {' '.join(told)[:300]}")
