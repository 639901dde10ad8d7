"""A figure takes what one holds: Directions, Moments, a Selection, or rows."""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.io
import pytest
import torch

from steerlab import figures
from steerlab.analysis import geometry
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.analysis.results import curve
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.units.selection import Selection
from steerlab.figures import printed


def drawn(figure: Any) -> list[list[float]]:
    """The heights of what a figure draws, trace by trace."""
    return [np.asarray(trace.y, float).round(6).tolist() for trace in figure.data]


def stack(directions: Directions) -> np.ndarray:
    return directions.vectors.transpose(0, 1).double().numpy()


def test_depth_of_directions_is_depth_of_their_table(directions: Directions) -> None:
    vectors, langs = stack(directions), directions.langs
    table = geometry.by_layer(vectors, langs, layers=directions.layers)
    kin = geometry.family_neighbours(vectors, langs, layers=directions.layers)
    table = table.assign(accuracy=kin.accuracy, null=kin.null, model="polyglot")
    assert drawn(figures.depth(directions)) == drawn(figures.depth(table))


def test_separation_says_of_each_thing_what_it_knows(
    directions: Directions, moments: Moments
) -> None:
    """Moments have a scatter, directions have none, and unseen texts add the second panel."""
    of_moments = figures.separation_by_layer(moments)
    assert drawn(of_moments) == [geometry.separation(moments)["trace_ratio"].round(6).tolist()]
    of_directions = figures.separation_by_layer(directions)
    table = geometry.by_layer(stack(directions), directions.langs)
    assert drawn(of_directions) == [table["gap_ratio"].round(6).tolist()]
    texts = {
        lang: moments.mean[place].float().repeat(2, 1, 1)
        for place, lang in enumerate(moments.langs)
    }
    both = figures.separation_by_layer(moments, texts=texts, chance=0.2)
    assert drawn(both)[1] == [1.0] * len(moments.layers)  # a language's mean is nearest to itself
    assert "Below: share of dev lines" in both.layout.meta["caption"]
    assert "Below" not in of_moments.layout.meta["caption"]


def test_families_and_cosines_by_layer_of_directions(directions: Directions) -> None:
    lines = {trace.name: trace for trace in figures.families(directions).data}
    kin = geometry.family_neighbours(
        stack(directions), directions.langs, within=geometry.scripts(directions.langs)
    )
    assert lines["language vectors"].y == pytest.approx(kin.accuracy)
    middle = directions.layers[len(directions.layers) // 2]
    assert f"layer {middle}" in figures.cosine_layers(directions).layout.meta["caption"]
    with pytest.raises(SteerlabError, match="takes Directions or Moments, or the cosines"):
        figures.cosine_layers(np.eye(3)[None])


def test_trees_of_two_layers_face_each_other(directions: Directions) -> None:
    same = figures.tanglegram(directions.at(4), directions.at(4))
    assert "r = 1.00; entanglement 0.00" in same.layout.meta["caption"]
    assert "shared nodes" not in same.layout.meta["caption"]  # that is Glottolog's tree
    with pytest.raises(SteerlabError, match="draws one: choose it"):
        figures.tanglegram(directions, directions)
    with pytest.raises(SteerlabError, match="linkage matrices with langs"):
        figures.tanglegram(np.zeros((2, 4)), np.zeros((2, 4)))


def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"method": method, "layer": layer, "strength": strength, "sentence": sentence}
            | {"target": "es", "joint": bool(random.random() < 0.5)}
            for method in ("diffmean", "lda")
            for layer in (2, 4)
            for strength in (0.5, 1.0)
            for sentence in range(8)
        ]
    )


def test_dose_curves_take_rows_of_one_layer() -> None:
    both = rows()
    one = both[both["layer"] == 4]
    table = curve(one, x="strength", value="joint", by="method")
    assert drawn(figures.dose_curves(one)) == drawn(figures.dose_curves(table))
    with pytest.raises(SteerlabError, match="rows of layers 2, 4, whose mean is of no setting"):
        figures.dose_curves(both)
    lines = figures.dose_curves(both[both["method"] == "lda"], by="layer").data
    assert len(lines) == 2


def test_a_selection_and_rows_of_effects() -> None:
    chosen = torch.zeros(2, 3, 5, dtype=torch.bool)
    chosen[0, 1, :4] = True
    selection = Selection("planted", ("de", "ru"), (0, 1, 2), "mlp_post", chosen, chosen.float())
    taken, given = figures.units_by_layer(selection), figures.units_by_layer(selection.counts)
    assert taken.to_json() == given.to_json()
    effects = pd.DataFrame(
        [
            {
                "edit": edit,
                "kind": "edit",
                "language": lang,
                "sentence": 0,
                "rise": 2.0 * (edit == lang),
            }
            for edit in ("de", "ru")
            for lang in ("de", "ru")
        ]
    )
    of_rows = figures.selectivity(effects)
    assert of_rows.to_json() == figures.selectivity(effect_matrix(effects)).to_json()


@dataclass(frozen=True)
class Aligned:
    """What `kinds_by_layer` asks of NJU's neurons."""

    table: pd.DataFrame

    def kinds_by_layer(self) -> pd.DataFrame:
        return self.table


def test_kinds_of_aligned_neurons() -> None:
    table = pd.DataFrame({"layer": [0, 0], "kind": ["specific", "other"], "share": [0.1, 0.9]})
    assert drawn(figures.kinds_by_layer(Aligned(table))) == drawn(figures.kinds_by_layer(table))


def test_an_exported_page_is_as_wide_as_a_phone(directions: Directions, tmp_path: Path) -> None:
    """Without the tag a phone draws 980 pixels and shrinks them; title and caption are text."""
    figure = figures.depth(directions)
    page, _ = figures.write(figure, tmp_path / "depth", data=pd.DataFrame({"a": [1]}))
    text = page.read_text("utf-8")
    assert '<meta name="viewport" content="width=device-width' in text
    assert f"<p>{html.escape(figure.layout.meta['caption'])}</p>" in text
    assert '"responsive": true' in text
    assert figure.layout.title.text == "Languages by depth"  # the caller's keeps its own


def test_a_column_has_codes_and_headings_in_lines(directions: Directions) -> None:
    """What stands side by side on a page would lie on one another at 85 mm."""
    trees = figures.tanglegram(directions.at(2), directions.at(5))
    names = [
        {text for trace in printed._prepared(trees, width, None).data for text in trace.text or ()}
        for width in (180.0, 85.0)
    ]
    assert "German" in names[0]
    assert "German" not in names[1]
    assert "de" in names[1]
    depth = figures.depth(directions)
    page, column = (printed._prepared(depth, width, None) for width in (180.0, 85.0))
    assert not any("<br>" in note.text for note in page.layout.annotations)
    assert "<b>a</b>  cosine of<br>the means,<br>raw" in [n.text for n in column.layout.annotations]
    assert column.layout.margin.t > page.layout.margin.t + 20
    bars = [
        trace.colorbar
        for trace in printed._prepared(figures.cosine_layers(directions), 85.0, None).data
    ]
    assert [bar.orientation for bar in bars] == ["h", "h"]


def test_a_figure_that_was_read_from_json_is_printed_too(directions: Directions) -> None:
    """As those in a run's folder are; its arrays are text until they are unpacked."""
    whole = figures.language_map(directions)
    read = plotly.io.from_json(whole.to_json())
    assert isinstance(read.data[0].x, dict)
    made = [printed._prepared(each, 85.0, None) for each in (whole, read)]
    assert made[0].to_json() == made[1].to_json()
