"""What docs/gemma.md takes of the run of `make gemma`: its summary, and outputs drawn at random."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.choices import at
from steerlab.analysis.results import curve
from steerlab.core.files import read_json, read_table

MAIN = "diffmean"
SAMPLES, SEED = 5, 0  # joint outputs, and as many that are not
KEPT = (
    "model",
    "corpus",
    "prompt",
    "prompt_form",
    "source",
    "targets",
    "new_tokens",
    "chance",
    "counts",
    "n_sentences",
    "n_outputs",
    "results",
    "controls",
    "differences",
    "choices",
    "tests",
    "families",
    "seconds",
    "peak_rss_bytes",
    "identifiers",
    "doses",
)


def run(folder: Path, log: Path | None = None) -> dict[str, Any]:
    """The numbers of the folder of a run, with what `/usr/bin/time -v` wrote of it (`log`)."""
    manifest = read_json(folder / "manifest.json")
    summary, rows = read_json(folder / "summary.json"), read_table(folder / "rows.parquet")
    choice = summary["choices"][MAIN]
    main = at(rows[rows["split"] == "test"], MAIN, (choice["layer"], choice["strength"]))
    race = summary.get("race", {})
    return {
        **{key: summary[key] for key in KEPT if key in summary},
        "race": {key: race[key] for key in ("settings", "read whole") if key in race},
        "removal": removal(rows),
        "samples": samples(main),
        "by target": by_target(rows, summary["results"]),
        "run command": command_of(manifest["command"]),
        "dtype": manifest["model"].get("dtype"),
        "weights": manifest["model"].get("gguf"),
        "layers": manifest["layers"],
        "batches": manifest.get("batches"),
        "time": timed(log),
    }


def removal(rows: pd.DataFrame) -> dict[str, Any]:
    """What is left of a language, by how much of its direction is taken out."""
    removed = rows[rows["method"].str.startswith("removal")]
    edited = removed[removed["layer"] >= 0]
    return {
        "layer": int(edited["layer"].iloc[0]),
        "lines": int(removed["sentence"].nunique()),
        "languages": sorted(removed["target"].unique()),
        "removal": curve(removed, x="strength", value="in_language", by="method").to_dict(
            "records"
        ),
    }


def command_of(words: Sequence[str]) -> list[str]:
    """A run's command without its folder, which is the machine's."""
    kept = list(words)
    if "--out" in kept:
        place = kept.index("--out")
        del kept[place : place + 2]
    return kept


def samples(rows: pd.DataFrame) -> dict[str, Any]:
    """Joint outputs and others, drawn by a fixed seed of all that the main method was reported
    on."""
    columns = ["target", "question", "output", "reference", "language", "chrfpp", "faithful"]
    drawn: dict[str, Any] = {}
    for name, part in (("joint", rows[rows["joint"]]), ("not joint", rows[~rows["joint"]])):
        part = part.sort_values(["target", "sentence"])
        some = part.sample(min(SAMPLES, len(part)), random_state=SEED)
        drawn[name] = [
            {str(key): value for key, value in row.items()}
            for row in some[[each for each in columns if each in some]].to_dict("records")
        ]
        drawn[f"{name}, of"] = len(part)
    return drawn


def by_target(rows: pd.DataFrame, results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Joint and chrF++ of each target, of the methods and of what asks for the language."""
    test = rows[rows["split"] == "test"]
    found: dict[str, dict[str, float]] = {}
    for name in (MAIN, "unsteered", "prompt", "fewshot"):
        if name not in results:
            continue
        setting = (results[name]["layer"], results[name]["strength"])
        for target, part in at(test, name, setting).groupby("target"):
            scores = found.setdefault(str(target), {})
            scores[f"{name} joint"] = float(part["joint"].mean())
            scores[f"{name} chrfpp"] = float(np.nanmean(part["chrfpp"].to_numpy(float)))
    return found


def timed(log: Path | None) -> dict[str, float]:
    """Wall and CPU seconds and the most memory, of the report of GNU time; empty without one."""
    if log is None or not log.exists():
        return {}
    text = log.read_text("utf-8", "replace")
    wall = re.search(r"Elapsed \(wall clock\) time.*?: ([\d:.]+)\s*$", text, re.M)
    user = re.search(r"User time \(seconds\): ([\d.]+)", text)
    system = re.search(r"System time \(seconds\): ([\d.]+)", text)
    memory = re.search(r"Maximum resident set size \(kbytes\): (\d+)", text)
    if not (wall and user and system and memory):
        return {}
    seconds = 0.0
    for part in wall[1].split(":"):
        seconds = 60 * seconds + float(part)
    return {
        "wall seconds": seconds,
        "cpu seconds": float(user[1]) + float(system[1]),
        "peak bytes": 1024.0 * float(memory[1]),
    }
