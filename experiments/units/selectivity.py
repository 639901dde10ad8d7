"""What taking a language's units away does to every language, beside controls of equal firing
and size."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from beds import SOURCE, Bed

import steerlab as sl
from steerlab import figures
from steerlab.analysis.effects.dominance import dissociated, dominance
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.analysis.tables import markdown, spelled
from steerlab.edits import Edit, ablate, neuron_zero
from steerlab.estimate.units import Selection, decoded, masked, matched
from steerlab.sweeps.fits import fitted

FEATURES = ("langfir", "monolinguality", "sae lape", "foxp2")
NEURONS = ("lape", "nju", "culnig")
SHOWN = "monolinguality"


def run(bed: Bed) -> str:
    setup = bed.setup
    test = bed.corpus.split("test").take(setup.selective_lines).select(bed.selective)
    made, parts = [], []
    methods, without_any = everything(bed)
    for name, edits, twins, where in methods:
        rows = sl.effects.language_effects(bed.model, test, edits, controls=twins)
        parts.append(rows.assign(method=name))
        if name == "langfir":
            bed.note(**{"langfir dominance less control": share_less_control(rows)})
        made.append({"method": name, "layer": where, "languages": len(edits)} | told(rows))
    pd.concat(parts).to_parquet(bed.out / "selectivity.parquet")
    frame = pd.DataFrame(made)
    frame.to_csv(bed.out / "selectivity_table.csv", index=False)
    drawn = next((rows for rows in parts if rows["method"].iloc[0] == SHOWN), parts[0])
    shown = figures.selectivity(effect_matrix(drawn))
    bed.record("selectivity", effect_matrix(drawn).reset_index())
    figures.write(shown, bed.out / "selectivity", data=effect_matrix(drawn).reset_index())
    bed.draw(selectivity=figures.paper(shown, width=160, height=130))
    note = (
        f"Rises of cross-entropy in nats per token on {setup.selective_lines} test lines of each "
        f"of {len(bed.selective)} "
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
        "one of equal dose; *less control's*: the difference of the two shares. *Doses* are of the edits and of their controls. The layer of features "
        "was "
        f"chosen on {setup.selective_dev_lines} dev lines by own − others; neurons are zeroed at "
        "all layers."
    )
    if without_any:
        note += f" Without units in two languages at any layer: {', '.join(without_any)}."
    return f"{markdown(frame)}\n\n{note}\n\n{bed.shown('selectivity', 'Rise of cross-entropy')}\n"


Removal = tuple[str, dict[str, Edit], dict[str, Edit], str]


def everything(bed: Bed) -> tuple[list[Removal], list[str]]:
    """(method, edits by language, their controls, layer in words) of every method, and those
    without units in two languages at any layer."""
    found: list[Removal] = []
    without_any = []
    layers = bed.setup.layers
    dense = fitted(
        bed.model, bed.corpus.split("estimate"), ["diffmean"], layers=layers, source=SOURCE
    )["diffmean"]
    edits = {
        layer: {iso: ablate(dense[iso].at(layer)) for iso in bed.selective} for layer in layers
    }
    layer = best(bed, edits)
    texts = [line for iso in bed.selective for line in bed.corpus.split("dev").take(2)[iso]]
    twins = {
        iso: sl.effects.random_like(bed.model, texts, edit) for iso, edit in edits[layer].items()
    }
    found.append(("diffmean direction", edits[layer], twins, str(layer)))
    of_features = bed.sae_layers
    places = [bed.latents.layers.index(layer) for layer in of_features]
    for name in (name for name in FEATURES if name in bed.selections):
        selection = bed.selections[name].at(*of_features)
        removed = {layer: without(bed, selection, layer) for layer in of_features}
        able = {layer: some for layer, some in removed.items() if len(some) > 1}
        if not able:
            without_any.append(name)
            continue
        layer = best(bed, able)
        others = without(bed, matched(selection, bed.latents, bed.norms[places]), layer)
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
        if len(mine) < 2:
            without_any.append(name)
            continue
        others = silent(bed, matched(selection, bed.neurons, bed.neuron_norms))
        found.append((name, mine, {iso: others[iso] for iso in mine if iso in others}, "all"))
    return found, without_any


def without(bed: Bed, selection: Selection, layer: int) -> dict[str, Edit]:
    """Each language's features at a layer taken away, where it has some."""
    some = decoded(selection.at(layer), bed.latents, bed.readings.saes, source=None)
    there = [iso for iso in bed.selective if selection.of(iso, layer)]
    return {iso: ablate(some[iso]) for iso in there}


def silent(bed: Bed, selection: Selection) -> dict[str, Edit]:
    """Each language's neurons zeroed, at all layers where it has some."""
    some = masked(selection, bed.neurons, source=None)
    where = {
        iso: [layer for layer in selection.layers if selection.of(iso, layer)]
        for iso in bed.selective
    }
    return {iso: neuron_zero(some.at(*layers)[iso]) for iso, layers in where.items() if layers}


def best(bed: Bed, edits: Mapping[int, Mapping[str, Edit]]) -> int:
    """The layer whose edits hurt their own languages most, beyond the others, on dev."""
    dev = bed.corpus.split("dev").take(bed.setup.selective_dev_lines).select(bed.selective)
    found = {}
    for layer, some in edits.items():  # a language without units at a layer is not hurt there
        seen = dominance(sl.effects.language_effects(bed.model, dev, some)).difference
        found[layer] = seen * len(some) / len(bed.selective)
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
    row["own most, less control's"] = spelled(share_less_control(rows))
    row["doses"] = " / ".join(f"{dose:.2f}" for dose in doses)
    row["own rise"] = f"{np.median(own):.2f} ({min(own):.2f}-{max(own):.2f})"
    return row


def share_less_control(
    rows: pd.DataFrame, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The share of edits that hurt their own language most, less that of their controls, with the
    95 % interval by resampling sentences, each with all its languages and edits.

    Of the languages that have both an edit and a control.
    """
    kinds = [set(rows.loc[rows["kind"] == kind, "edit"]) for kind in ("edit", "control")]
    langs = sorted(kinds[0] & kinds[1] & set(rows["language"]))
    rises = []
    for kind in ("edit", "control"):
        part = rows[(rows["kind"] == kind) & rows["edit"].isin(langs)]
        table = part.pivot_table(index="sentence", columns=["edit", "language"], values="rise")
        rises.append(
            np.stack([[table[edit, lang] for lang in langs] for edit in langs]).astype(float)
        )
    count = rises[0].shape[-1]

    def difference(weights: np.ndarray) -> float:
        shares = [
            ((rise @ weights).argmax(1) == np.arange(len(langs))).mean()  # rise [edit language]
            for rise in rises
        ]
        return float(shares[0] - shares[1])

    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    low, high = np.quantile([difference(weights) for weights in drawn], [0.025, 0.975])
    return difference(np.ones(count)), float(low), float(high)
