"""How long it takes to begin: import, help, the first token from cold."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from measures import interleaved, spread

FIRST_TOKEN = "import steerlab as sl; sl.generate(sl.load(), ['The weather is nice today.\\n'], max_new_tokens=1)"


def measure(*, quick: bool) -> dict[str, Any]:
    python, script = sys.executable, str(Path(sys.executable).with_name("steerlab"))
    commands = {
        "bare Python": [python, "-c", "pass"],
        "`import steerlab`": [python, "-c", "import steerlab"],
        "`steerlab --help`": [script, "--help"],
        "`import torch, transformers`": [python, "-c", "import torch, transformers"],
        "first token: import, `load()`, `generate` of one token": [python, "-c", FIRST_TOKEN],
    }
    actions = {name: _runner(command) for name, command in commands.items()}
    taken = interleaved(actions, rounds=2 if quick else 5)
    rows = [{"what": name, "seconds": spread(times)} for name, times in taken.items()]
    return {
        "tables": [
            {"title": "Wall seconds of a fresh process, files in the page cache", "rows": rows}
        ],
        "notes": [],
    }


def _runner(command: list[str]) -> Any:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
