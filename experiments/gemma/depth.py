"""Where in the depth one vector turns copying into translation: DiffMean with `add` at every layer.

Each layer's strength is chosen on dev; every layer is then reported on test, at its own strength.
"""

from dataclasses import replace
from typing import Any

import pandas as pd
from gemma_bed import DEV_LINES, FORM, Bed, bits, pairs, scores, settings

from steerlab.analysis.choices import at, choose, ranking
from steerlab.analysis.results import difference
from steerlab.studies.design import Method
from steerlab.studies.protocol import run_cells

STRENGTHS = (0.5, 0.75, 1.0)
TRIED = 4  # targets of dev
LINES = 12  # of test
NAME = "diffmean"
LATE = 0.5  # of the depth, as claims.LATE


def run(bed: Bed) -> dict[str, Any]:
    layers = range(bed.model.n_layers)
    limits = {"dev": DEV_LINES, "test": LINES}
    runner = replace(bed.runner("depth", {NAME: bed.diffmean}), limits=limits)
    method = Method(name=NAME, operator="add", fits=(NAME,), settings=settings(layers, STRENGTHS))
    cells = method.cells(
        method.settings, pairs(bed.source, bed.few[:TRIED]), split="dev", form=FORM
    )
    dev = run_cells(runner, cells, title="every layer on dev", progress=True, log=print)
    chosen = {layer: ranking(dev[dev["layer"] == layer])[0] for layer in layers}
    cells = method.cells(list(chosen.values()), pairs(bed.source, bed.few), split="test", form=FORM)
    test = run_cells(runner, cells, title="every layer on test", progress=True, log=print)
    return {
        "dev targets": list(bed.few[:TRIED]),
        "targets": list(bed.few),
        "dev lines": int(dev["sentence"].nunique()),
        "dev": by_setting(dev),
        "test lines": int(test["sentence"].nunique()),
        "layers": {layer: of_layer(at(test, NAME, chosen[layer]), bed) for layer in layers},
        "choice": list(choose(dev)[NAME]),
        "halves": halves(dev, test, bed.model.n_layers),
    }


def by_setting(dev: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean scores at each layer and strength."""
    columns = ["joint", "in_language", "relevant", "chrfpp", "dose"]
    means = dev.groupby(["layer", "strength"])[columns].mean().reset_index()
    return [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]


def of_layer(rows: pd.DataFrame, bed: Bed) -> dict[str, Any]:
    """A layer's scores on test, and whether each output was joint, by target."""
    by_target = {target: bits(rows[rows["target"] == target]) for target in bed.few}
    return {**scores(rows), "by target": by_target}


def halves(dev: pd.DataFrame, test: pd.DataFrame, depth: int) -> dict[str, Any]:
    """The best layer of the later half less that of the earlier half, each chosen on dev, on
    test."""
    late = dev["layer"] >= LATE * depth
    best = {name: ranking(dev[part])[0] for name, part in (("late", late), ("early", ~late))}
    rows = {name: at(test, NAME, setting) for name, setting in best.items()}
    return {
        "late layer": best["late"][0],
        "early layer": best["early"][0],
        "late less early": difference(rows["late"], rows["early"])["joint"],
    }
