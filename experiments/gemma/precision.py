"""bfloat16 beside float32: the same outputs, and the same directions?"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from gemma_bed import DEV_LINES, FORM, MODEL, Bed, pairs, scores

import steerlab as sl
from steerlab.analysis.choices import Setting
from steerlab.analysis.results import difference
from steerlab.core.directions import Directions
from steerlab.studies.design import Method
from steerlab.studies.protocol import run_cells

NAME, LINES = "diffmean", 25  # of test, for each of the bed's few targets: 200 outputs
DTYPES = ("bfloat16", "float32")


def run(bed: Bed, setting: Setting) -> dict[str, Any]:
    """200 outputs of each dtype under the same vectors, and each dtype's own vectors.

    Args:
        bed: the model, in the dtype of the other jobs, and its texts.
        setting: DiffMean's layer and strength.
    """
    exact = Bed(bed.source, bed.corpus)
    exact.__dict__["model"] = sl.load(MODEL, dtype="float32")
    here = bed.model.metadata["dtype"]
    beds = {here: bed, "float32": exact}
    rows = {name: outputs(each, bed.diffmean, setting) for name, each in beds.items()}
    return {
        "dtypes": list(beds),
        "layer": setting[0],
        "strength": setting[1],
        "targets": list(bed.few),
        "lines": LINES,
        "results": {name: scores(table) for name, table in rows.items()},
        "difference": difference(rows[here], rows["float32"])["joint"],
        **agreement(rows[here], rows["float32"]),
        "cosines": cosines(bed.diffmean, exact.diffmean, bed.source),
    }


def outputs(bed: Bed, vectors: Directions, setting: Setting) -> pd.DataFrame:
    """The same lines under the same vectors, in the model's own dtype."""
    runner = replace(
        bed.runner("precision", {NAME: vectors}), limits={"dev": DEV_LINES, "test": LINES}
    )
    method = Method(name=NAME, operator="add", fits=(NAME,), settings=(setting,))
    cells = method.cells([setting], pairs(bed.source, bed.few), split="test", form=FORM)
    return run_cells(runner, cells, title=str(bed.model.dtype), progress=True, log=print)


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """How many outputs are the same to the letter, and how many have the same verdict."""
    key = ["target", "sentence"]
    both = one.merge(other, on=key, suffixes=("", "_other"), validate="one_to_one")
    return {
        "outputs": len(both),
        "equal": int((both["output"] == both["output_other"]).sum()),
        "same verdict": int((both["joint"] == both["joint_other"]).sum()),
    }


def cosines(one: Directions, other: Directions, source: str) -> Mapping[str, list[float]]:
    """The cosine of each target's direction in one dtype with that in the other, by layer: the
    least and the mean over targets."""
    found = []
    for target in one.langs:
        if target != source:
            a, b = (fit.between(source, target).unit.double() for fit in (one, other))
            found.append(torch.nn.functional.cosine_similarity(a, b, dim=-1).numpy())
    table = np.stack(found)
    return {"least": table.min(0).tolist(), "mean": table.mean(0).tolist()}
