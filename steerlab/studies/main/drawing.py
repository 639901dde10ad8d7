"""The figures of the main run, as Plotly has them; the report page draws them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from steerlab.analysis.choices import Setting
from steerlab.analysis.geometry import FamilyNeighbours
from steerlab.analysis.results import curve
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import write_table, write_text
from steerlab.figures import (
    cosines,
    dendrogram,
    dose_curves,
    families,
    heatmap,
    separation_by_layer,
)
from steerlab.figures.style import readable
from steerlab.scores.judges import DISTRACTORS
from steerlab.studies.main.families import MEANS, best_layer, family_table
from steerlab.studies.main.plan import MAIN


def figures_of(
    *,
    dev: pd.DataFrame,
    removal: pd.DataFrame,
    apart: pd.DataFrame,
    directions: Directions,
    neighbours: dict[str, FamilyNeighbours],
    choices: Mapping[str, Setting],
    raced: bool,
) -> dict[str, go.Figure]:
    """Every figure by its name.

    Args:
        dev: the rows that choices were made from.
        removal: the rows of texts that go on while their language is removed.
        apart: how far the languages lie apart at each layer (`geometry.separation`).
        directions: the main method's, at all layers.
        neighbours: family accuracies by name; empty if no two languages are of one family.
        choices: the layer and strength of each method.
        raced: whether dev was a race, in which settings read unlike many lines.
    """
    layer, strength = choices[MAIN]
    own = ", ".join(f"{readable(name)} {choices[name][0]}" for name in choices)
    if neighbours:  # how languages lie to one another is shown where families are clearest
        layer = best_layer(neighbours[MEANS])
    read = "raced dev lines (n differs)" if raced else "dev lines"
    main = dev[(dev["method"] == MAIN) & (dev["strength"] == strength)]
    at_strength = f"{read}, strength {strength:g}"
    added, shared = on_shared_targets(dev[dev["operator"] == "add"])
    added = at_own_layers(added, choices)
    figures = {
        "heatmap": heatmap(main, note=at_strength),
        "heatmap_lfs": heatmap(main, value="in_language", note=at_strength),
        "dose_curves": dose_curves(
            curve(added, x="strength", value="joint", by="method"),
            chance=1 / (DISTRACTORS + 1),
            note=f"{read}, each method at the layer that was chosen for it ({own}), a control that "
            "chose none at that of the main method, targets that all were read on "
            f"({spoken(shared)}); natural gaps",
        ),
        "removal": dose_curves(
            curve(removal, x="strength", value="in_language", by="method"),
            x_label="fraction removed",
            value_label="share still in the prompt's language",
            note="after two dev lines of a language; at 0 nothing is removed",
        ),
        "separation": separation_by_layer(
            apart, chance=1 / len(directions.langs), note=f"n = {apart['n'].iloc[0]} dev lines"
        ),
        "dendrogram": dendrogram(directions.at(layer)),
        "cosines": cosines(directions.at(layer).vectors[:, 0], directions.langs, layer=layer),
    }
    if neighbours:
        figures["families"] = families(family_table(neighbours))
    return figures


def on_shared_targets(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the targets that every method has rows of, and these targets in their order.

    Controls are read on fewer targets of dev than methods are. Some targets are easier than others,
    so that curves of other targets would differ without any difference between the methods. Raises
    `SteerlabError` where the methods share no target.
    """
    methods_of = rows.groupby("target", sort=False)["method"].nunique()
    shared = methods_of.index[methods_of == rows["method"].nunique()].tolist()
    if not shared:
        raise SteerlabError(
            "no target was read with every method, so that their curves cannot be compared; read "
            "one target with all"
        )
    return rows[rows["target"].isin(shared)], shared


def at_own_layers(rows: pd.DataFrame, choices: Mapping[str, Setting]) -> pd.DataFrame:
    """The rows of each method at the layer that was chosen for it, so that its chosen setting is a
    point of its curve; of what chose none, or has no row there, at the main method's layer, or all
    where it has no row there either."""
    kept = []
    for name, part in rows.groupby("method", sort=False):
        layer = choices.get(str(name), choices[MAIN])[0]
        layers = [each for each in (layer, choices[MAIN][0]) if (part["layer"] == each).any()]
        kept.append(part[part["layer"] == layers[0]] if layers else part)
    return pd.concat(kept, ignore_index=True)


def spoken(langs: list[str]) -> str:
    """Languages in a caption: their codes, or how many, where these are more than eight."""
    return ", ".join(langs) if len(langs) <= 8 else f"{len(langs)} languages"


def write_figures(folder: Path, figures: dict[str, go.Figure], apart: pd.DataFrame) -> None:
    """Write the figures as JSON, and the table behind the separation."""
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_text(folder / f"{name}.json", str(figure.to_json()))
    write_table(folder / "separation.csv", apart)
