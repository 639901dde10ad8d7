"""What taking a language's units away does to every language, beside controls of equal firing
and size."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from beds import IMAGES, OUT, SOURCE, Bed

import steerlab as sl
from steerlab import figures
from steerlab.analysis.effects.dominance import dissociated, dominance
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.analysis.tables import markdown, spelled
from steerlab.edits import Edit, ablate, neuron_zero
from steerlab.estimate.units import Selection, decoded, masked, matched
from steerlab.sweeps.fits import fitted

LAYERS, DEV_LINES, TEST_LINES = (1, 3, 5, 7), 5, 16
FEATURES = ("langfir", "monolinguality", "sae lape", "foxp2")
NEURONS = ("lape", "nju", "culnig")
SHOWN = "monolinguality"


def run(bed: Bed) -> str:
    test = bed.corpus.split("test").take(TEST_LINES)
    made, parts = [], []
    for name, edits, twins, where in everything(bed):
        rows = sl.effects.language_effects(bed.model, test, edits, controls=twins)
        parts.append(rows.assign(method=name))
        made.append({"method": name, "layer": where, "languages": len(edits)} | told(rows))
    pd.concat(parts).to_parquet(OUT / "selectivity.parquet")
    frame = pd.DataFrame(made)
    frame.to_csv(OUT / "selectivity.csv", index=False)
    drawn = next(rows for rows in parts if rows["method"].iloc[0] == SHOWN)
    shown = figures.selectivity(effect_matrix(drawn))
    figures.write(shown, OUT / "selectivity", data=effect_matrix(drawn).reset_index())
    figures.draw(
        {IMAGES / "selectivity.svg": figures.paper(shown, width=160, height=130)}, force=True
    )
    note = (
        f"Rises of cross-entropy in nats per token on {TEST_LINES} test lines of each of "
        f"{len(bed.corpus.langs)} "
        "languages. *Own − others*: the mean rise of an edit's own language less that of all "
        "others, the share of "
        "edits that hurt their own language most and the permutation p of the labels. *Pairs*: "
        "the share of language "
        "pairs that doubly dissociate (each edit hurts its own language more than the other's), "
        "and the share where "
        "both intervals say so. *Control*: as many other units of the same layers, matched in "
        "firing rate and in the "
        "norm of what they write, the rate being that on the language's own text; for DiffMean's "
        "direction a random "
        "one of equal dose. *Doses* are of the edits and of their controls. The layer of features "
        "was "
        f"chosen on {DEV_LINES} dev lines by own − others; neurons are zeroed at all layers."
    )
    return f"{markdown(frame)}\n\n{note}\n\n![Rise of cross-entropy](images/selectivity.svg)\n"


def everything(bed: Bed) -> list[tuple[str, dict[str, Edit], dict[str, Edit], str]]:
    """(method, edits by language, their controls, layer in words) of every method."""
    found = []
    dense = fitted(
        bed.model, bed.corpus.split("estimate"), ["diffmean"], layers=LAYERS, source=SOURCE
    )["diffmean"]
    edits = {
        layer: {iso: ablate(dense[iso].at(layer)) for iso in bed.corpus.langs} for layer in LAYERS
    }
    layer = best(bed, edits)
    texts = [line for iso in bed.corpus.langs for line in bed.corpus.split("dev").take(2)[iso]]
    twins = {
        iso: sl.effects.random_like(bed.model, texts, edit) for iso, edit in edits[layer].items()
    }
    found.append(("diffmean direction", edits[layer], twins, str(layer)))
    for name in (name for name in FEATURES if name in bed.selections):
        selection = bed.selections[name].at(*LAYERS)
        removed = {layer: without(bed, selection, layer) for layer in LAYERS}
        layer = best(bed, {layer: some for layer, some in removed.items() if len(some) > 1})
        others = without(bed, matched(selection, bed.latents, bed.norms[list(LAYERS)]), layer)
        found.append(
            (
                name,
                removed[layer],
                {iso: others[iso] for iso in removed[layer] if iso in others},
                str(layer),
            )
        )
    for name in (name for name in NEURONS if name in bed.selections):
        selection = bed.selections[name]
        mine = silent(bed, selection)
        others = silent(bed, matched(selection, bed.neurons, bed.neuron_norms))
        found.append((name, mine, {iso: others[iso] for iso in mine if iso in others}, "all"))
    return found


def without(bed: Bed, selection: Selection, layer: int) -> dict[str, Edit]:
    """Each language's features at a layer taken away, where it has some."""
    some = decoded(selection.at(layer), bed.latents, bed.readings.saes, source=None)
    there = [iso for iso in selection.langs if selection.of(iso, layer)]
    return {iso: ablate(some[iso]) for iso in there}


def silent(bed: Bed, selection: Selection) -> dict[str, Edit]:
    """Each language's neurons zeroed, at all layers where it has some."""
    some = masked(selection, bed.neurons, source=None)
    where = {
        iso: [layer for layer in selection.layers if selection.of(iso, layer)]
        for iso in selection.langs
    }
    return {iso: neuron_zero(some.at(*layers)[iso]) for iso, layers in where.items() if layers}


def best(bed: Bed, edits: Mapping[int, Mapping[str, Edit]]) -> int:
    """The layer whose edits hurt their own languages most, beyond the others, on dev."""
    dev = bed.corpus.split("dev").take(DEV_LINES)
    found = {}
    for layer, some in edits.items():  # a language without units at a layer is not hurt there
        seen = dominance(sl.effects.language_effects(bed.model, dev, some)).difference
        found[layer] = seen * len(some) / len(bed.corpus.langs)
    return max(found, key=lambda layer: found[layer])


def told(rows: pd.DataFrame) -> dict[str, str]:
    """The columns of a method: its own and its control's dominance and dissociation."""
    row: dict[str, str] = {}
    for kind, name in (("edit", ""), ("control", "control's ")):
        found = dominance(rows, kind=kind)
        pairs = dissociated(rows, kind=kind)
        row[f"{name}own − others"] = spelled((found.difference, found.low, found.high))
        row[f"{name}own most"] = f"{found.share:.2f} (p {found.p:.2g})"
        row[f"{name}pairs"] = f"{pairs.share:.2f} ({pairs.certain:.2f})"
    matrix = effect_matrix(rows)
    own = [
        float(matrix[iso].to_numpy()[list(matrix.index).index(iso)])
        for iso in matrix.columns
        if iso in matrix.index
    ]
    doses = [rows.loc[rows["kind"] == kind, "dose"].mean() for kind in ("edit", "control")]
    row["doses"] = " / ".join(f"{dose:.2f}" for dose in doses)
    row["own rise"] = f"{np.median(own):.2f} ({min(own):.2f}-{max(own):.2f})"
    return row
