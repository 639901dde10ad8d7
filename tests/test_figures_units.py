"""The figures of features and neurons show what was planted: medians, sums, frames, windows; bad
tables are refused."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from steerlab import figures
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.figures.panels import some
from steerlab.figures.style import SEQUENTIAL

ISOS = "ja en ru de fr hi es".split()
PARTS = {"understanding": [0, 1], "shared reasoning": [2], "output": [3]}


def caption(figure: go.Figure) -> str:
    return str(figure.layout.meta["caption"])


def noted(figure: go.Figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def grid(**columns: list) -> pd.DataFrame:
    """Every combination of the columns' values."""
    return pd.MultiIndex.from_product(list(columns.values()), names=list(columns)).to_frame(
        index=False
    )


# ----------------------------------------------------------------------------- LangFIR's thresholds


def thresholds(isos: list[str] = ISOS, layers: tuple[int, ...] = (0, 3)) -> pd.DataFrame:
    table = grid(
        language=isos, layer=list(layers), consistency=[0.9, 0.95, 0.99], noise=[0.01, 0.05]
    )
    places = table["language"].map(isos.index)
    return table.assign(count=places * 10 + table["layer"] + (100 * table["noise"]).astype(int))


def test_counts_are_medians_over_languages() -> None:
    figure = figures.threshold_counts(thresholds())
    assert len(figure.data) == 2
    first, second = figure.data
    assert (list(first.x), list(first.y)) == (["0.9", "0.95", "0.99"], ["0.01", "0.05"])
    median, least, most = np.moveaxis(np.asarray(second.customdata, float), 2, 0)
    np.testing.assert_array_equal(
        median, [[34] * 3, [38] * 3]
    )  # 30, of the fourth language, and 3, and 1 or 5
    np.testing.assert_array_equal(least[0], [4] * 3)
    np.testing.assert_array_equal(most[0], [64] * 3)
    np.testing.assert_allclose(second.z, np.log10(1 + median))
    assert second.text[0][0] == "34"
    frames = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(frame.x0, frame.x1, frame.y0, frame.y1) for frame in frames] == [
        (0.5, 1.5, 0.5, 1.5)
    ] * 2
    assert [text for text in noted(figure) if "layer" in text] == [
        "<b>a</b>  layer 0",
        "<b>b</b>  layer 3",
    ]
    assert "n = 7 languages" in caption(figure)


def test_thresholds_that_were_not_tried_have_no_frame() -> None:
    assert not figures.threshold_counts(thresholds(), mark=(0.8, 0.05)).layout.shapes
    assert not figures.threshold_counts(thresholds(), mark=None).layout.shapes


def test_of_many_layers_eight_are_drawn() -> None:
    assert some(range(32)) == [0, 4, 9, 13, 18, 22, 27, 31]
    assert some([5, 3, 3]) == [3, 5]
    figure = figures.threshold_counts(thresholds(layers=tuple(range(32))))
    assert len(figure.data) == 8
    assert "8 of 32 layers" in caption(figure)


# ---------------------------------------------------------------------------------------- stability


def stability(isos: list[str]) -> pd.DataFrame:
    table = grid(language=isos, layer=[2, 4], samples=[10, 25, 100])
    jaccard = 0.1 * table["language"].map(isos.index) + table["samples"] / 500
    return table.assign(jaccard=jaccard, low=jaccard - 0.05, high=jaccard + 0.02)


def test_few_languages_have_a_line_with_its_interval() -> None:
    figure = figures.stability_curve(stability(ISOS[:3]))
    assert [trace.name for trace in figure.data] == ["English", "Russian", "Japanese"] * 2
    japanese = figure.data[2]
    assert list(japanese.x) == [10, 25, 100]
    np.testing.assert_allclose(japanese.y, [0.02, 0.05, 0.2])
    np.testing.assert_allclose(japanese.error_y.array, 0.02)
    np.testing.assert_allclose(japanese.error_y.arrayminus, 0.05)
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 3
    assert "Bars: the middle 95 % of the draws" in caption(figure)


@pytest.mark.parametrize("isos", [ISOS[:3], ISOS])
def test_the_caption_says_that_a_draw_is_held_against_all_texts(isos: list[str]) -> None:
    told = caption(figures.stability_curve(stability(isos)))
    assert (
        "Jaccard index (shared over all) of the features that a draw of so many texts selects and "
        "those of all" in told
    )
    assert "A draw is a part of all texts, so that the index is 1 where all are drawn" in told
    assert "disjoint" not in told


def test_many_languages_have_their_median_and_quartiles() -> None:
    figure = figures.stability_curve(stability(ISOS))
    band, median = figure.data[7:9]
    np.testing.assert_allclose(median.y, [0.32, 0.35, 0.5])
    np.testing.assert_allclose(band.y, [0.47, 0.5, 0.65, 0.35, 0.2, 0.17])
    assert all(trace.error_y.array is None for trace in figure.data)
    assert [trace.name for trace in figure.data if trace.showlegend] == [
        "quartiles",
        "median over languages",
    ]


# -------------------------------------------------------------------------------------- selectivity


def matrix(low: float = 0.0) -> pd.DataFrame:
    values = np.arange(49.0).reshape(7, 7) / 100 + 2 * np.eye(7)
    values[0, 1] = low
    return pd.DataFrame(values, index=ISOS, columns=ISOS).assign(control=0.25)


def test_the_matrix_is_in_family_order_with_its_diagonal_framed() -> None:
    given = matrix()
    figure = figures.selectivity(given)
    cells, beside = figure.data
    order = "en de es fr ru hi ja".split()
    assert list(cells.x) == order
    assert list(cells.y) == list(beside.y) == [LANGUAGES[iso].name for iso in order]
    np.testing.assert_array_equal(cells.z, given.loc[order, order])
    np.testing.assert_array_equal(beside.z, [[0.25]] * 7)
    frames = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(frame.x0, frame.y0) for frame in frames] == [(k - 0.5, k - 0.5) for k in range(7)]
    assert {"Germanic", "Japonic"} <= set(noted(figure))
    assert cells.text[0][0] == "2.08"
    assert "n = 7 languages, 7 edits" in caption(figure)


def test_falls_have_colours_of_their_own() -> None:
    rises, falls = figures.selectivity(matrix()), figures.selectivity(matrix(-1.0))
    assert (rises.layout.coloraxis.cmin, rises.layout.coloraxis.cmax) == (0, pytest.approx(2.48))
    assert (falls.layout.coloraxis.cmin, falls.layout.coloraxis.cmax) == pytest.approx(
        (-2.48, 2.48)
    )
    assert rises.layout.coloraxis.colorscale == SEQUENTIAL != falls.layout.coloraxis.colorscale


def test_a_matrix_without_controls_has_one_panel() -> None:
    assert len(figures.selectivity(matrix().drop(columns="control")).data) == 1
    few = figures.selectivity(matrix()[["de", "ru", "control"]])
    assert list(few.data[0].x) == ["de", "ru"]
    assert sum(shape.type == "rect" for shape in few.layout.shapes) == 2


# -------------------------------------------------------------------------------------------- depth


def counts() -> pd.DataFrame:
    return pd.DataFrame(np.arange(28).reshape(7, 4), index=ISOS, columns=range(4))


def test_units_have_their_sums_beside_them() -> None:
    figure = figures.units_by_layer(counts(), units="neurons", parts=PARTS)
    cells, above, right = figure.data
    order = "en de es fr ru hi ja".split()
    np.testing.assert_array_equal(cells.z, counts().loc[order])
    np.testing.assert_array_equal(above.y, counts().sum())
    np.testing.assert_array_equal(right.x, counts().loc[order].sum(axis=1))
    assert list(right.y) == list(cells.y) == [LANGUAGES[iso].name for iso in order]
    assert "understanding" in noted(figure)
    edges = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert edges == [1.5, 2.5]
    assert figure.layout.title.text == "Neurons by layer and language"


def test_layers_without_numbers_in_between_keep_their_names() -> None:
    wide = counts().set_axis([3, 10, 11, 31], axis=1)
    figure = figures.units_by_layer(wide, parts={"early": [3], "late": [10, 11, 31]})
    assert list(figure.layout.xaxis3.ticktext) == ["3", "10", "11", "31"]
    assert [shape.x0 for shape in figure.layout.shapes if shape.type == "line"] == [0.5]


@pytest.mark.parametrize("column", ["share", "count"])
def test_kinds_are_shares_of_their_layer(column: str) -> None:
    table = grid(layer=[0, 1, 2, 3], kind=["agnostic", "specific", "related"])
    shares = np.tile([0.6, 0.1, 0.3], 4)
    table[column] = shares if column == "share" else 50 * shares * (1 + table["layer"])
    figure = figures.kinds_by_layer(table, parts=PARTS)
    assert [trace.name for trace in figure.data] == ["specific", "related", "agnostic"]
    for trace, share in zip(figure.data, (0.1, 0.3, 0.6), strict=True):
        np.testing.assert_allclose(trace.y, [share] * 4)
    shaded = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert shaded == [(-0.5, 1.5), (1.5, 2.5), (2.5, 3.5)]
    assert "shared reasoning (2)" in caption(figure)
    assert not figures.kinds_by_layer(table).layout.shapes


# ----------------------------------------------------------------------------------------- spectrum


def spectra() -> pd.DataFrame:
    table = grid(
        kind=["pairs", "deranged"], target=["de", "ja"], layer=[0, 1, 2, 3], place=[1, 2, 3]
    )
    deranged = table["kind"] == "deranged"
    value = 10.0 ** (3 - table["place"]) * (1 + table["layer"]) * np.where(deranged, 0.5, 1.0)
    told = {"value": value, "kept": table["place"] <= 2, "in_window": table["layer"].isin([1, 2])}
    return table.assign(**told, mass=0.1 * table["layer"], stability=0.9, pairs=64)


def test_the_spectrum_has_its_window_and_what_is_kept() -> None:
    figure = figures.spectrum(spectra())
    first: list[Any] = [trace for trace in figure.data if trace.xaxis == "x"]
    pale, dark = (
        [trace for trace in first if trace.legendgroup == group] for group in ("out", "in")
    )
    assert (len(pale), len(dark)) == (2, 2)
    np.testing.assert_allclose(dark[1].y, [300, 30, 3])
    colors = list(dark[0].marker.color)
    assert colors[0] == colors[1] == dark[0].line.color != colors[2]
    dotted = next(trace for trace in first if trace.line.dash == "dot")
    np.testing.assert_allclose(
        dotted.y, [125, 12.5, 1.25]
    )  # the median of two layers, at half the size
    mass = next(trace for trace in figure.data if trace.name == "mass")
    np.testing.assert_allclose(mass.y, [0, 0.1, 0.2, 0.3])
    windows = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert windows == [(0.6, 2.4)] * 2
    assert [text for text in noted(figure) if "<b>" in text] == [
        "<b>a</b>  German",
        "<b>b</b>  Japanese",
    ]
    assert "n = 64 pairs" in caption(figure)
    assert (
        len([t for t in figures.spectrum(spectra(), targets=["ja"]).data if t.name == "mass"]) == 1
    )


# ------------------------------------------------------------------------------------------- errors


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(SteerlabError, match="threshold_counts was given a table without 'noise'"):
        figures.threshold_counts(thresholds().drop(columns="noise"))
    with pytest.raises(SteerlabError, match="stability_curve was given a table without rows"):
        figures.stability_curve(stability(ISOS).head(0))
    with pytest.raises(SteerlabError, match="rows 0, 1 and columns a; give effect_matrix' table"):
        figures.selectivity(pd.DataFrame({"a": [1.0, 2.0]}))
    with pytest.raises(SteerlabError, match=r"without languages or layers; give Selection\.counts"):
        figures.units_by_layer(counts().head(0))
    with pytest.raises(SteerlabError, match="kinds_by_layer was given a table without 'count'"):
        figures.kinds_by_layer(pd.DataFrame({"layer": [1], "kind": ["specific"]}))
    with pytest.raises(
        SteerlabError,
        match="no spectrum of the kind 'pairs' of 'fr'; there is pairs of de, pairs of ja",
    ):
        figures.spectrum(spectra(), targets=["fr"])
