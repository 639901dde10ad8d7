"""The processes of the contenders: started once, idle while it is another's turn."""

import json
import selectors
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from environments import BUILD
from machine import environment, threads

WORKER = Path(__file__).with_name("worker.py")
PATIENCE = 600.0  # seconds for one answer


class Worker:
    """One contender on one model, in a process of its own."""

    def __init__(self, contender: str, python: Path, material: Path) -> None:
        self.log = BUILD / f"worker-{contender}.log"
        self.name = contender
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(python), str(WORKER), contender, str(material)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(threads()),
                text=True,
            )
        self.versions: dict[str, str] = self._answer()["versions"]

    def run(
        self, cells: list[int], *, rows: int = 8, natural: bool = False, bos: bool = False
    ) -> dict[str, Any]:
        """Seconds, and the tokens (steerlab: texts) of each cell's prompts."""
        assert self.process.stdin is not None
        request = {"cells": cells, "rows": rows, "natural": natural, "bos": bos}
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(self._told("ended")) from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            if not waiting.select(PATIENCE):
                self.close()
                raise RuntimeError(self._told(f"gave no answer in {PATIENCE:.0f} s"))
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self._told("ended"))
        return dict(json.loads(line))

    def _told(self, what: str) -> str:
        lines = [
            line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()
        ]
        return (
            f"the worker of {self.name} {what}: {lines[-1][:300] if lines else 'it said nothing'}"
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
