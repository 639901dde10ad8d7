"""Figures show what was planted: cell values, leaf order, scipy's cophenetic correlation; bad
tables are refused."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist

from steerlab import figures
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.results import curve, result
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families as families_of
from steerlab.core.languages import language
from steerlab.figures.style import FAMILIES, PALETTE, SYMBOLS, family_order, family_style

LANGS = "en ru es hu de uk fr hi nl bg it sv pt pl tr ja".split()


@dataclass(frozen=True)
class Planted:
    """What `dendrogram` reads of a `Directions`."""

    langs: tuple[str, ...]
    layers: tuple[int, ...]
    vectors: torch.Tensor


def planted(
    langs: list[str] = LANGS, *, layers: tuple[int, ...] = (5,), noise: float = 0.15
) -> Planted:
    """Family vectors plus noise, far from the origin as real means are."""
    random = torch.Generator().manual_seed(0)
    families = list(dict.fromkeys(families_of(langs)))
    centres = torch.randn(len(families), 64, generator=random) + 10
    vectors = torch.stack([centres[families.index(language(iso).family)] for iso in langs])
    vectors = vectors + noise * torch.randn(vectors.shape, generator=random)
    return Planted(tuple(langs), layers, vectors[:, None].expand(-1, len(layers), -1))


def tidy(values: dict[tuple[str, int], list[bool]]) -> pd.DataFrame:
    rows = [
        {
            "target": target,
            "layer": layer,
            "joint": joint,
            "sentence": place,
            "method": "diffmean",
            "split": "test",
        }
        for (target, layer), outputs in values.items()
        for place, joint in enumerate(outputs)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def caption(figure: go.Figure) -> str:
    return figure.layout.meta["caption"]


# ------------------------------------------------------------------------------------------ heatmap


def test_heatmap_cells_are_means_in_family_order() -> None:
    rows = tidy(
        {
            ("es", 2): [True, False, False, False],
            ("es", 10): [True, True, True, False],
            ("de", 2): [False] * 4,
            ("fr", 10): [True] * 4,
        }
    )
    trace = figures.heatmap(rows).data[0]
    assert list(trace.y) == ["German", "Spanish", "French"]
    assert list(trace.x) == ["2", "10"]  # as numbers, not as words
    np.testing.assert_array_equal(trace.z, [[0, np.nan], [0.25, 0.75], [np.nan, 1]])
    n, low, high = np.moveaxis(np.asarray(trace.customdata, float), 2, 0)
    assert n[1, 0] == 4
    assert low[1, 1] < 0.75 < high[1, 1]
    assert (low[2, 1], high[2, 1]) == pytest.approx((0.025 ** (1 / 4), 1)), "exact, not [1, 1]"
    assert [list(line) for line in trace.text] == [[".00", ""], [".25", ".75"], ["", "1.00"]]
    assert (trace.zmin, trace.zmax) == (0, 1)


def test_heatmap_says_n_and_what_is_constant() -> None:
    figure = figures.heatmap(
        tidy({("es", 2): [True] * 3, ("de", 2): [False] * 3}), note="A planted table"
    )
    assert "n = 6 outputs of 3 sentences" in caption(figure)
    assert "method DiffMean" in caption(figure)
    assert "split test" in caption(figure)
    assert caption(figure).endswith("A planted table.")


def test_heatmap_interval_resamples_sentences_not_rows() -> None:
    """Ten copies of each output are no new evidence: the interval stays; counted as sentences,
    they narrow it."""
    once = tidy({("es", 2): [True, False] * 6})
    copies = pd.concat([once] * 10)
    apart = copies.assign(sentence=range(len(copies)))

    def width(rows: pd.DataFrame) -> float:
        _, low, high = np.asarray(figures.heatmap(rows).data[0].customdata, float)[0, 0]
        return high - low

    assert width(copies) == pytest.approx(width(once))
    assert width(apart) < 0.5 * width(once)


def outputs_of(*, parallel: bool, seed: int = 0) -> pd.DataFrame:
    """One setting's rows, an easy and a hard language, whose sentences are the same or their
    own."""
    random, sentences = np.random.default_rng(seed), np.tile(np.arange(24), 2)
    easy = np.repeat([0.9, 0.1], 24)
    rows = pd.DataFrame({"target": np.repeat(["de", "es"], 24), "sentence": sentences})
    rows["sentence"] += 0 if parallel else 100 * (rows["target"] == "es")
    hits = {name: random.random(48) < easy for name in ("joint", "in_language", "relevant")}
    numbers = {name: random.random(48) for name in ("repetition", "bits_per_byte_ratio", "dose")}
    numbers["bits_per_byte_ratio"][::5] = [np.nan, np.inf] * 5
    same: dict[str, Any] = {"method": "lda", "operator": "add", "layer": 2, "strength": 1.0}
    return rows.assign(**hits, **numbers, **same, output="Ja.")


def hover(rows: pd.DataFrame, **columns: str) -> list[float]:
    """The first cell's mean and interval."""
    trace = figures.heatmap(rows, **columns).data[0]
    return [trace.z[0, 0], *np.asarray(trace.customdata, float)[0, 0, 1:]]


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("value", ["joint", "bits_per_byte_ratio"])
def test_heatmap_has_the_interval_of_the_table(value: str, parallel: bool) -> None:
    rows = outputs_of(parallel=parallel)
    assert hover(rows, y="method", value=value) == result(rows)[value]
    german = rows[rows["target"] == "de"]
    assert hover(rows, value=value) == result(german)[value]
    kept = rows[np.isfinite(rows[value])]
    plain = list(by_sentence(kept[value].to_numpy(float), kept["sentence"].to_numpy()))
    assert (hover(rows, y="method", value=value) == plain) == parallel, "strata are told from none"


def test_heatmap_of_a_controls_seeds_has_the_interval_of_the_table() -> None:
    """Half of the seeds succeed always, half never: other seeds could do either."""
    rows = outputs_of(parallel=True)
    seeds = rows["sentence"] % 4
    rows = rows.assign(seed=seeds, joint=seeds < 2)
    assert hover(rows, y="method") == result(rows)["joint"]
    _, low, high = hover(rows, y="method")
    _, least, most = hover(rows.drop(columns="seed"), y="method")
    assert high - low > 1.5 * (most - least), "sentences alone are the narrower interval"


@pytest.mark.parametrize("parallel", [True, False])
def test_a_dose_curve_has_the_interval_of_the_table(parallel: bool) -> None:
    rows = outputs_of(parallel=parallel)
    drawn = curve(rows, x="strength", value="joint", by="method").iloc[0]
    assert [drawn["value"], drawn["low"], drawn["high"]] == result(rows)["joint"]


def test_heatmap_of_nothing_finite_or_one_sentence_has_no_interval() -> None:
    rows = outputs_of(parallel=True)
    assert np.isnan(hover(rows.assign(repetition=np.nan), value="repetition")).all()
    one = hover(rows[rows["sentence"] == 3], value="repetition")
    assert np.isfinite(one[0])
    assert np.isnan(one[1:]).all()
    without = rows.drop(columns="sentence").assign(joint=True)
    assert hover(without) == pytest.approx([1, 0.025 ** (1 / 24), 1]), "each row is its own"


def test_heatmap_of_other_columns_keeps_their_order() -> None:
    rows = pd.DataFrame({"method": ["probe", "lda"], "strength": [1.5, 0.5], "chrf": [30.0, 50.0]})
    trace = figures.heatmap(rows, x="strength", y="method", value="chrf").data[0]
    assert list(trace.x) == ["0.5", "1.5"]
    assert list(trace.y) == ["Probe", "LDA"]
    assert (trace.zmin, trace.zmax) == (30, 50)


def test_family_order_keeps_families_together() -> None:
    order = [language(iso).family for iso in family_order(LANGS)]
    assert order == sorted(order, key=FAMILIES.index)
    assert sorted(family_order(LANGS)) == sorted(LANGS)


def test_families_never_share_colour_and_marker() -> None:
    assert len({family_style(family) for family in FAMILIES}) == len(FAMILIES)
    assert {color for color, _ in map(family_style, FAMILIES)} <= set(PALETTE)
    assert {symbol for _, symbol in map(family_style, FAMILIES)} <= set(SYMBOLS)


# -------------------------------------------------------------------------------------------- trees


def test_vectors_without_structure_have_a_cophenetic_correlation_too() -> None:
    mean, most = figures.cophenetic_null(16, 256)
    assert mean == pytest.approx(0.574, abs=0.01)
    assert mean < most < 0.75
    assert figures.cophenetic(planted().vectors[:, 0]) > most, "planted families are a structure"
    random = np.random.default_rng(7)
    drawn = [figures.cophenetic(random.standard_normal((16, 256))) for _ in range(100)]
    assert 0.01 <= np.mean(np.array(drawn) > most) <= 0.12
    few, _ = figures.cophenetic_null(4, 8)
    assert few > mean, "few languages fit any tree"


def test_cophenetic_and_linkage_equal_scipys() -> None:
    directions = planted(noise=1.0)
    vectors = directions.vectors[:, 0].double().numpy()
    distances = pdist(vectors - vectors.mean(0), "cosine")
    expected = cophenet(linkage(distances, "average"), distances)[0]
    assert figures.cophenetic(directions.vectors[:, 0]) == pytest.approx(expected, abs=1e-9)
    ours = figures.linkage_of(vectors, LANGS)
    np.testing.assert_allclose(ours[:, 2], linkage(distances, "average")[:, 2], atol=1e-9)


def test_similarity_ignores_where_the_origin_is() -> None:
    vectors = planted().vectors[:, 0].double()
    assert figures.cophenetic(vectors + 100) == pytest.approx(figures.cophenetic(vectors), abs=1e-6)


def test_dendrogram_puts_families_side_by_side() -> None:
    figure = figures.dendrogram(planted())
    leaves = [text.strip() for text in figure.layout.yaxis.ticktext]
    family = {language(iso).name: language(iso).family for iso in LANGS}
    runs = [
        place
        for place, name in enumerate(leaves)
        if not place or family[name] != family[leaves[place - 1]]
    ]
    assert sorted(leaves) == sorted(family)
    assert len(runs) == len(set(family.values()))


def test_dendrogram_without_planted_families_scatters_them() -> None:
    """The negative control: noise alone does not group families."""
    figure = figures.dendrogram(planted(noise=30.0))
    family = {language(iso).name: language(iso).family for iso in LANGS}
    leaves = [family[text.strip()] for text in figure.layout.yaxis.ticktext]
    assert sum(a != b for a, b in pairwise(leaves)) >= len(set(leaves))


def test_dendrogram_colours_a_branch_of_one_family_as_its_leaves() -> None:
    figure = figures.dendrogram(planted())
    romance = family_style("Romance")[0]
    branches = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(branches) == len(LANGS) - 1
    inside = [trace for trace in branches if trace.line.color == romance]
    assert len(inside) == 3  # es fr it pt
    assert {name for trace in inside for name in trace.text.split(", ")} == {
        "Spanish",
        "French",
        "Italian",
        "Portuguese",
    }
    leaves = {trace.name: trace.marker.color for trace in figure.data if trace.mode == "markers"}
    assert leaves["Romance"] == romance
    for trace in branches:  # every drawn branch spans the leaves that it names
        places = [
            figure.layout.yaxis.ticktext.index(f"{name}  ") for name in trace.text.split(", ")
        ]
        assert min(places) <= min(trace.y)
        assert max(trace.y) <= max(places)


def test_dendrogram_title_has_the_fit_and_caption_the_layer() -> None:
    directions = planted(noise=1.0)
    figure = figures.dendrogram(directions)
    assert f"{figures.cophenetic(directions.vectors[:, 0]):.2f}" in figure.layout.title.text
    mean, most = figures.cophenetic_null(*directions.vectors[:, 0].shape)
    assert f"without structure have {mean:.2f}, 95 % of them less than {most:.2f}" in caption(
        figure
    )
    assert "n = 16 languages; layer 5" in caption(figure)


def test_dendrogram_of_two_languages_has_no_correlation() -> None:
    assert "cophenetic" not in figures.dendrogram(planted(["en", "es"])).layout.title.text
    with pytest.raises(SteerlabError, match="at least three"):
        figures.cophenetic(planted(["en", "es"]).vectors[:, 0])


def test_cosines_are_in_cluster_order() -> None:
    vectors = planted().vectors[:, 0]
    figure = figures.cosines(vectors, LANGS, layer=5)
    trace = figure.data[0]
    isos = list(trace.x)
    assert [language(iso).name for iso in isos] == list(trace.y)
    unit = torch.nn.functional.normalize((vectors - vectors.mean(0)).double(), dim=1).numpy()
    order = [LANGS.index(iso) for iso in isos]
    np.testing.assert_allclose(trace.z, (unit @ unit.T)[np.ix_(order, order)], atol=1e-6)
    assert isos == [LANGS[LANGS.index(iso)] for iso in isos]
    drawn = [text.strip() for text in figures.dendrogram(planted()).layout.yaxis.ticktext]
    assert drawn == list(trace.y)
    assert "layer 5" in caption(figure)


# ------------------------------------------------------------------------------------------- curves


def test_separation_has_two_panels_and_chance() -> None:
    table = pd.DataFrame({"layer": [4, 2], "trace_ratio": [0.8, 0.3], "nearest_mean": [0.9, 0.5]})
    figure = figures.separation_by_layer(table, chance=1 / 16, note="50 dev lines")
    above, below = figure.data
    assert list(above.x) == [2, 4]
    assert list(above.y) == [0.3, 0.8]
    assert list(below.y) == [0.5, 0.9]
    assert above.yaxis != below.yaxis
    assert any("chance 0.0625" in (note.text or "") for note in figure.layout.annotations)
    assert "50 dev lines" in caption(figure)


def test_dose_curves_draw_values_with_intervals() -> None:
    table = pd.DataFrame(
        {
            "by": ["random", "diffmean", "diffmean", "random"],
            "x": [0.5, 1.0, 0.5, 1.0],
            "value": [0.0, 0.3, 0.2, 0.1],
            "low": [0.0, 0.25, 0.1, 0.05],
            "high": [0.05, 0.35, 0.3, 0.15],
        }
    )
    figure = figures.dose_curves(table, chance=1 / 32)
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert list(lines) == ["DiffMean", "Random direction"]  # methods before controls
    np.testing.assert_allclose(lines["DiffMean"].x, [0.5, 1.0], atol=0.01)
    assert (
        np.asarray(lines["DiffMean"].x) < np.asarray(lines["Random direction"].x)
    ).all()  # side by side
    assert list(lines["DiffMean"].y) == [0.2, 0.3]
    np.testing.assert_array_equal(
        lines["DiffMean"].customdata, [[0.1, 0.3, 0.5], [0.25, 0.35, 1.0]]
    )
    np.testing.assert_allclose(lines["DiffMean"].error_y.array, [0.1, 0.05])
    np.testing.assert_allclose(lines["DiffMean"].error_y.arrayminus, [0.1, 0.05])
    assert lines["Random direction"].line.dash != "solid"
    alone = figures.dose_curves(table[table["by"] == "diffmean"])
    assert list(alone.data[0].x) == [0.5, 1.0]
    renamed = table.rename(columns={"by": "method", "x": "dose", "value": "joint"})
    again = figures.dose_curves(renamed, x="dose", value="joint", by="method", x_label="dose")
    assert again.layout.xaxis.title.text == "dose"


def test_families_draws_levels_for_what_has_no_layer() -> None:
    table = pd.DataFrame(
        {
            "layer": [1, 2, 1, 2, np.nan, -1],
            "value": [0.5, 0.8, 0.3, 0.35, 0.6, 0.4],
            "series": ["centred means"] * 2
            + ["permutation null, 95 %"] * 2
            + ["token unigrams", "embedding layer"],
        }
    )
    lines = {trace.name: trace for trace in figures.families(table).data}
    assert list(lines["centred means"].y) == [0.5, 0.8]
    assert list(lines["token unigrams"].y) == [0.6, 0.6]
    assert lines["embedding layer"].x[0] < 1 < 2 < lines["embedding layer"].x[1]
    assert lines["permutation null, 95 %"].line.dash == "dot"
    assert len({trace.line.color for trace in lines.values()}) == 4


# ------------------------------------------------------------------------------------------- shared


def every_figure() -> dict[str, go.Figure]:
    curve = pd.DataFrame({"x": [1], "value": [0.3], "low": [0.2], "high": [0.4], "by": ["lda"]})
    return {
        "heatmap": figures.heatmap(tidy({("es", 2): [True, False]})),
        "cosines": figures.cosines(planted().vectors[:, 0], LANGS),
        "dendrogram": figures.dendrogram(planted()),
        "separation": figures.separation_by_layer(
            pd.DataFrame({"layer": [1], "trace_ratio": [0.3], "nearest_mean": [0.5]})
        ),
        "dose_curves": figures.dose_curves(curve),
        "families": figures.families(
            pd.DataFrame({"layer": [1], "value": [0.3], "series": ["means"]})
        ),
    }


@pytest.mark.parametrize("name", every_figure())
def test_every_figure_has_title_caption_and_survives_json(name: str) -> None:
    figure = every_figure()[name]
    assert figure.layout.title.text
    assert caption(figure).endswith(".")
    again = go.Figure(json.loads(figure.to_json()))
    assert again.layout.meta["caption"] == caption(figure)
    assert "http" not in figure.to_json()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: figures.heatmap(pd.DataFrame({"layer": [1], "target": ["es"]})),
            "'joint'; it has layer, target",
        ),
        (lambda: figures.heatmap(tidy({("es", 2): [True]}).iloc[:0]), "without rows"),
        (
            lambda: figures.separation_by_layer(pd.DataFrame({"layer": [1]})),
            "'trace_ratio', 'nearest_mean'",
        ),
        (
            lambda: figures.dose_curves(pd.DataFrame({"x": [1], "by": ["lda"]})),
            "'value', 'low', 'high'",
        ),
        (
            lambda: figures.families(
                pd.DataFrame({"layer": [-1], "value": [0.1], "series": ["a"]})
            ),
            "row with a layer",
        ),
        (
            lambda: figures.dendrogram(planted(layers=(3, 5))),
            r"2 layers \(3, 5\).*directions\.at\(layer\)",
        ),
        (lambda: figures.linkage_of(np.ones((1, 4)), ["en"]), "two or more different languages"),
        (
            lambda: figures.linkage_of(np.eye(3), ["en", "es", "en"]),
            "two or more different languages",
        ),
        (lambda: figures.linkage_of(np.eye(2), ["en", "xx"]), "unknown language code 'xx'"),
        (lambda: figures.linkage_of(np.ones((2, 4)), ["en", "es"]), "points nowhere"),
        (lambda: figures.cosines(np.full((2, 4), np.nan), ["en", "es"]), "NaN"),
    ],
)
def test_bad_input_says_what_to_do(draw, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SteerlabError, match=message):
        draw()
