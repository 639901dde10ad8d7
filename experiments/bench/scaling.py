"""`steerlab sweep` on one grid: alone, killed and continued, by two processes, on Ray; the same
table each time.

Every worker computes with one thread, so that two have twice the cores of one. Seconds hold
everything: start-up, the directions, the table; one run each. A killed run starts anew each time.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from steerlab.core.records import Results

GRID = Path(__file__).with_name("grids.yaml")
SMALL = {"targets": ["es"], "estimators": ["diffmean"], "layers": [2, 5], "limit": 2}
KILLS = 3


def measure(*, quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "grid.yaml"
        given = yaml.safe_load(GRID.read_text("utf-8"))
        grid.write_text(
            yaml.safe_dump(given | SMALL | {"operators": ["add"]} if quick else given), "utf-8"
        )
        run = Runs(Path(folder), grid)
        ways = {
            "one process": run.alone,
            f"killed {KILLS} times and continued": run.killed,
            "two processes": run.both,
            "Ray, one worker": lambda name: run.ray(name, 1),
            "Ray, two workers": lambda name: run.ray(name, 2),
        }
        rows = [run.timed(name, way) for name, way in ways.items()]
    alone = rows[0]
    for row in rows:
        row["times one process"] = row["cells a second"] / alone["cells a second"]
        row["same table"] = "yes" if row.pop("bytes") == alone.get("bytes", run.first) else "**no**"
    failures = [
        f"the table of {row['way']} is another one" for row in rows if row["same table"] != "yes"
    ]
    cells = f"{rows[0].pop('cells')} cells, {rows[0]['rows']} rows"
    for row in rows[1:]:
        row.pop("cells")
    notes = [" ".join((__doc__ or "").split()), "The grid is experiments/bench/grids.yaml."]
    return {"tables": [{"title": cells, "rows": rows}], "notes": notes, "failures": failures}


class Runs:
    """Runs of `steerlab sweep`, each in a folder of its own."""

    def __init__(self, folder: Path, grid: Path) -> None:
        self.folder, self.grid, self.first = folder, grid, b""

    def timed(self, name: str, way: Any) -> dict[str, Any]:
        start = time.perf_counter()
        folder = way(name.replace(" ", "-").replace(",", ""))
        seconds = time.perf_counter() - start
        table = (folder / "rows.parquet").read_bytes()
        self.first = self.first or table
        cells = len(json.loads((folder / "cells.json").read_text("utf-8")))
        rows = len(pd.read_parquet(folder / "rows.parquet"))
        workers = {record["worker"] for record in Results(folder / "rows").read()}
        told = {
            "way": name,
            "seconds": seconds,
            "cells a second": cells / seconds,
            "cells": cells,
            "rows": rows,
        }
        return told | {"workers": len(workers), "bytes": table}

    def start(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        command = [
            sys.executable,
            "-m",
            "steerlab.cli",
            "sweep",
            str(self.grid),
            "--out",
            str(self.folder / name),
        ]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        env = os.environ | threads | {"RAY_USAGE_STATS_ENABLED": "0"}
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*command, *words], stdout=log, stderr=log, env=env)

    def finish(self, process: "subprocess.Popen[bytes]", name: str) -> Path:
        if process.wait():
            raise RuntimeError((self.folder / f"{name}.log").read_text("utf-8")[-2000:])
        return self.folder / name

    def alone(self, name: str) -> Path:
        return self.finish(self.start(name), name)

    def killed(self, name: str) -> Path:
        chance = random.Random(0)
        for _ in range(KILLS):
            before, process = self.lines(name), self.start(name)
            while process.poll() is None and self.lines(name) == before:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 10))
            process.kill()
            process.wait()
        return self.alone(name)

    def lines(self, name: str) -> int:
        return sum(
            file.read_bytes().count(b"\n") for file in (self.folder / name / "rows").glob("*.jsonl")
        )

    def both(self, name: str) -> Path:
        processes = [self.start(name) for _ in range(2)]
        for process in processes:
            self.finish(process, name)
        return self.folder / name

    def ray(self, name: str, workers: int) -> Path:
        return self.finish(self.start(name, "--ray", "local", "--workers", str(workers)), name)
