"""What steering towards a language does to text in every language: the rise of its cross-entropy."""

from typing import Any

import pandas as pd
from gemma_bed import FEW, Bed

import steerlab as sl
from steerlab.analysis.choices import Setting
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.analysis.results import column_mean
from steerlab.core.languages import families

LINES = 8


def run(bed: Bed, setting: Setting) -> dict[str, Any]:
    """Under DiffMean at a layer and strength, beside random edits of the same dose.

    Args:
        bed: the model and its texts.
        setting: what the depth's dev lines chose.
    """
    layer, strength = setting
    texts = bed.corpus.split("test").take(LINES)
    edits = {
        target: sl.add(bed.diffmean.between(bed.source, target).at(layer), strength=strength)
        for target in bed.few
    }
    some = [text for lang in texts.langs for text in texts[lang][:2]]
    controls = {
        target: sl.effects.random_like(bed.model, some, edit, seed=number)
        for number, (target, edit) in enumerate(edits.items())
    }
    rows = sl.effects.language_effects(bed.model, texts, edits, controls=controls)
    matrix = effect_matrix(rows)
    return {
        "layer": layer,
        "strength": strength,
        "lines": LINES,
        "targets": list(bed.few[:FEW]),
        "matrix": {str(lang): dict(row) for lang, row in matrix.iterrows()},
        "groups": groups(rows, bed.source),
        "doses": {kind: float(part["dose"].mean()) for kind, part in rows.groupby("kind")},
    }


def groups(rows: pd.DataFrame, source: str) -> dict[str, list[float]]:
    """The mean rise with its interval for the steered language, its family, the source and the
    rest, and under the controls."""
    edits, controls = rows[rows["kind"] == "edit"], rows[rows["kind"] == "control"]
    langs = list(rows["language"].unique())
    family = dict(zip(langs, families(langs), strict=True))
    own = edits["language"] == edits["edit"]
    start = edits["language"] == source
    kin = edits["language"].map(family) == edits["edit"].map(family)
    parts = {
        "the language itself": edits[own],
        "the source": edits[start & ~own],
        "its family": edits[kin & ~own & ~start],
        "all others": edits[~kin & ~own & ~start],
        "every language, random edits of the same dose": controls,
    }
    return {name: list(column_mean(part, "rise")) for name, part in parts.items() if len(part)}
