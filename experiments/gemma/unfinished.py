"""The results of a run that was stopped after its test: put together from its finished batches as
the run itself does it (`studies.main.summary`), but for the removal, which `removal` runs.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from gemma_bed import FORM, Bed, pairs

import steerlab as sl
from steerlab.analysis.choices import choose
from steerlab.analysis.results import curve
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json
from steerlab.edits import OPERATORS
from steerlab.studies.main.families import families_of, family_summary
from steerlab.studies.main.plan import MAIN, RANDOM, Plan, control_fits
from steerlab.studies.main.summary import results_of
from steerlab.studies.protocol import Report, run_cells
from steerlab.sweeps.cell import RUN, Cell

SEED = 0


def finished_rows(folder: Path) -> pd.DataFrame:
    """All rows of the finished batches of a run's folder."""
    tables = []
    for file in sorted((folder / "cells").glob("*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            rows = json.loads(line).get("rows")
            if rows:
                tables.append(pd.DataFrame(rows))
    if not tables:
        raise SteerlabError(f"{folder} has no finished batch; give the folder of a run")
    return pd.concat(tables, ignore_index=True).drop_duplicates(["cell", "place"])


def batch_seconds(folder: Path) -> float:
    """What the finished batches took together, by the clock."""
    return sum(
        float(json.loads(line)["seconds"])
        for file in (folder / "cells").glob("*.jsonl")
        for line in file.read_text("utf-8").splitlines()
    )


def summary_of(folder: Path, bed: Bed) -> tuple[dict[str, Any], pd.DataFrame]:
    """The summary of a run and its rows, whether or not it came to write them."""
    manifest = read_json(folder / "manifest.json")
    form = manifest["prompt"]
    settings = manifest["settings"]
    plan = Plan(settings["source"], bed.targets, tuple(manifest["layers"]), form["name"])
    rows = finished_rows(folder)
    dev = rows[(rows["split"] == "dev") & ~rows["method"].str.startswith("removal")]
    test = rows[rows["split"] == "test"]
    expected = {cell.method for cell in plan.design.test_cells(choose(dev))}
    if missing := sorted(expected - set(test["method"])):
        raise SteerlabError(f"{folder} has no test rows of {', '.join(missing)}; run it on")
    choices = choose(plan.design.completed(dev))
    tables, shown = plan.design.tables(test, choices)
    report = Report(dev, choices, test, tables, shown, plan.design.variants(test, choices))
    moments = sl.collect(bed.model, bed.estimate, also=[])
    neighbours = families_of(bed.model, moments, bed.estimate, seed=SEED)
    summary = {
        "model": manifest["model"]["name"],
        "corpus": manifest["corpus"]["name"],
        "prompt": form["name"],
        "prompt_form": {key: value for key, value in form.items() if key != "examples"},
        "source": settings["source"],
        "targets": list(bed.targets),
        "new_tokens": settings["new_tokens"],
        "chance": 1 / (manifest["distractors"] + 1),
        "counts": {"outputs": len(rows), "generated tokens": int(rows["tokens"].sum())},
        **results_of(report, plan, seed=SEED, raced=settings["race"]),
        "families": family_summary(neighbours, sl.diffmean(moments), seed=SEED),
        "seconds": batch_seconds(folder),
        "stopped": "after its test, since other work held the cores; its batches took",
    }
    return summary, rows


def removal(bed: Bed, layer: int, targets: int = 4) -> dict[str, Any]:
    """Whether a language goes when its direction is taken out, beside as large a share of random
    directions: the run's own question, on fewer lines and languages.

    Args:
        bed: the model and its texts.
        layer: where it is taken out.
        targets: how many languages.
    """
    fits = {MAIN: bed.diffmean.at(layer)}
    names = control_fits()[RANDOM[0]]
    for seed, name in enumerate(names):
        fits[name] = sl.controls.random(fits[MAIN], seed=seed, source=bed.source)
    runner = bed.runner("removal", fits)
    cells = []
    for lang in bed.few[:targets]:
        same: dict[str, Any] = {"source": lang, "target": lang, "split": "dev", "form": RUN}
        cells.append(Cell.unsteered(method="nothing", **same))
        for fraction in OPERATORS["ablate"].grid:
            edited = {**same, "operator": "ablate", "layer": layer, "strength": fraction}
            cells.append(Cell(method="its own direction", fits=(MAIN,), **edited))
            cells.append(Cell(method="random directions", fits=names, **edited))
    rows = run_cells(runner, cells, title="removing", progress=True, log=print)
    return {
        "layer": layer,
        "lines": int(rows["sentence"].nunique()),
        "languages": [lang for _, lang in pairs(bed.source, bed.few[:targets])],
        "form": FORM,
        "removal": curve(rows, x="strength", value="in_language", by="method").to_dict("records"),
    }
