"""The atlas' figures show what was planted; the script that draws them runs on small data, and
without any."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from safetensors.torch import save_file
from scipy.cluster.hierarchy import leaves_list

from steerlab import figures
from steerlab.analysis.geometry import classification, cosine_matrices, layout, untangle
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families, language
from steerlab.figures.style import PALETTE, family_style

LANGS = "en de nl es fr it ru uk pl hu tr ja".split()
LAYERS = (0, 1, 2)


def means(
    langs: list[str] = LANGS, *, layers: int = 3, width: int = 20, noise: float = 0.5
) -> np.ndarray:
    """[layer lang width]: family vectors plus noise, far from the origin."""
    random = np.random.default_rng(0)
    names, places = np.unique(families(langs), return_inverse=True)
    family = random.standard_normal((layers, len(names), width))
    return np.asarray(
        family[:, places] + noise * random.standard_normal((layers, len(langs), width)) + 3
    )


def caption(figure: go.Figure) -> str:
    return str(figure.layout.meta["caption"])


# ----------------------------------------------------------------------------------------- matrices


def matrices(**changed: object) -> go.Figure:
    given = means()
    about = {"layers": LAYERS, "layer": 1, "order": [*range(11, -1, -1)]} | changed
    raw, centred = cosine_matrices(given, centre=False), cosine_matrices(given)
    return figures.cosine_layers(raw, centred, LANGS, **about)  # type: ignore[arg-type]


def test_both_matrices_are_in_the_given_order_at_every_layer() -> None:
    figure = matrices()
    given = means()
    for trace, centre in zip(figure.data, (False, True), strict=True):
        np.testing.assert_allclose(trace.z, cosine_matrices(given, centre=centre)[1][::-1, ::-1])
        assert list(trace.x) == list(trace.y) == LANGS[::-1]
        assert trace.text[0][1] == "Japanese – Turkish"
    for layer, frame in enumerate(figure.frames):
        assert frame.name == str(layer)
        np.testing.assert_allclose(frame.data[1].z, cosine_matrices(given)[layer][::-1, ::-1])
    steps = figure.layout.sliders[0].steps
    assert (
        [step.label for step in steps] == [frame.name for frame in figure.frames] == ["0", "1", "2"]
    )
    assert figure.layout.sliders[0].active == 1
    assert "n = 12 languages; layer 1" in caption(figure)


def test_codes_have_the_colour_of_their_family() -> None:
    for text, iso in zip(matrices().layout.xaxis.ticktext, LANGS[::-1], strict=True):
        assert text == f'<span style="color:{family_style(language(iso).family)[0]}">{iso}</span>'


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": 5}, "no layer 5 here; there are layers 0, 1, 2"),
        (
            {"order": [0, 0, *range(2, 12)]},
            "the order names .* 0, 0, 2, .*each of the 12 languages",
        ),
    ],
)
def test_a_layer_or_an_order_that_is_not_there_is_refused(
    changed: dict[str, object], message: str
) -> None:
    with pytest.raises(SteerlabError, match=message):
        matrices(**changed)


# ---------------------------------------------------------------------------------------------- map


def placed(dimensions: int = 2) -> go.Figure:
    points, shares = layout(means(), dimensions=dimensions)
    return figures.language_map(points, shares, LANGS, layers=LAYERS, layer=2)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_language_stands_where_the_layout_put_it(dimensions: int) -> None:
    points, shares = layout(means(), dimensions=dimensions)
    figure = placed(dimensions)
    for traces, here in ((figure.data, points[2]), (figure.frames[0].data, points[0])):
        found = {}
        for trace in traces:
            assert trace.marker.color == family_style(trace.name)[0]
            axes = [trace.x, trace.y, *([trace.z] if dimensions == 3 else [])]
            for iso, *at in zip(trace.text, *axes, strict=True):
                assert language(iso).family == trace.name
                found[iso] = at
        np.testing.assert_allclose([found[iso] for iso in LANGS], here)
    assert f"{shares[2].sum():.0%} of the variance at layer 2" in caption(figure)
    assert "n = 12 languages; layer 2" in caption(figure)


def test_codes_of_close_points_are_on_different_sides() -> None:
    points = np.zeros((1, 12, 2))
    points[0, :, 0] = np.linspace(-1, 1, 12)
    points[0, 1] = points[0, 0] + 0.01  # English and German all but coincide
    figure = figures.language_map(points, np.array([[0.5, 0.5]]), LANGS, layers=[0], layer=0)
    side = {
        iso: where
        for trace in figure.data
        for iso, where in zip(trace.text, trace.textposition, strict=True)
    }
    assert side["en"] != side["de"]
    assert side["ja"] == "top center", "and where there is room, all are above"


def test_a_map_that_cannot_be_drawn_is_refused() -> None:
    points, shares = layout(means(), dimensions=4)
    with pytest.raises(SteerlabError, match="a map has 2 or 3 axes, not 4"):
        figures.language_map(points, shares, LANGS, layers=LAYERS, layer=0)
    with pytest.raises(SteerlabError, match="no layer 7 here; there are layers 0, 1, 2"):
        figures.language_map(points[..., :2], shares[:, :2], LANGS, layers=LAYERS, layer=7)


# -------------------------------------------------------------------------------------------- trees


def tangled(**changed: object) -> tuple[go.Figure, list[int], list[int]]:
    left = figures.linkage_of(means()[0], LANGS)
    same = np.asarray(families(LANGS))[:, None] == np.asarray(families(LANGS))
    right = classification(same.astype(float))
    orders = untangle(left, right, start=leaves_list(left).tolist())
    about = {
        "orders": orders,
        "headings": ("a model", "families"),
        "statistic": "r = 0.5",
        "layer": 0,
    } | changed
    return figures.tanglegram(left, right, LANGS, **about), *orders  # type: ignore[arg-type]


def test_threads_join_each_language_with_itself() -> None:
    figure, left, right = tangled()
    threads = [trace for trace in figure.data if trace.showlegend is not False]
    assert {trace.name for trace in threads} == {
        "Germanic",
        "Romance",
        "Slavic",
        "alone in its family",
    }
    joined = set()
    for trace in threads:
        for start, end in zip(trace.y[::3], trace.y[1::3], strict=True):
            assert left[start] == right[end]
            group = language(LANGS[left[start]]).family
            assert trace.name == (
                group if group in ("Germanic", "Romance", "Slavic") else "alone in its family"
            )
            joined.add(left[start])
    assert joined == set(range(12))
    names = [trace.text for trace in figure.data if trace.mode == "text"]
    assert [list(side) for side in names] == [
        [language(LANGS[k]).name for k in order] for order in (left, right)
    ]
    assert "n = 12 languages; layer 0. r = 0.5." in caption(figure)


def test_branches_of_one_family_have_its_colour() -> None:
    figure, *_ = tangled()
    brackets: dict[str, int] = {}
    for trace in figure.data:
        if trace.mode == "lines" and trace.showlegend is False:
            brackets[trace.line.color] = brackets.get(trace.line.color, 0) + len(trace.x) // 5
    assert sum(brackets.values()) == 2 * 11
    for family in ("Germanic", "Romance", "Slavic"):
        assert brackets[family_style(family)[0]] == 2 * 2


def test_orders_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SteerlabError, match="needs exactly the 12 languages en de"):
        tangled(orders=([0] * 12, list(range(12))))


def planted(langs: list[str] = LANGS) -> Directions:
    given = torch.tensor(means(langs)[:1]).transpose(0, 1).float()
    return Directions(given, given[:, :, None], given, tuple(langs), (4,), "resid_post")


def test_a_dendrogram_says_how_stable_its_branches_are() -> None:
    marks = [f"{k}" for k in range(10)] + [""]
    plain, marked = figures.dendrogram(planted()), figures.dendrogram(planted(), marks=marks)
    said = [note.text for note in marked.layout.annotations]
    assert set(said) <= set(marks)
    assert len(said) >= 8, "a mark is left out only where a branch is shorter than it"
    assert len(plain.layout.annotations) == 0
    heights = {
        f"{k}": row[2] for k, row in enumerate(figures.linkage_of(planted().vectors[:, 0], LANGS))
    }
    for note in marked.layout.annotations:
        assert note.x == pytest.approx(heights[note.text], abs=1e-6)
    with pytest.raises(SteerlabError, match="2 marks for a tree of 11 merges; give one for each"):
        figures.dendrogram(planted(), marks=["a", "b"])


# ------------------------------------------------------------------------------------------- layers


def depths(models: tuple[str, ...] = ("one", "two")) -> pd.DataFrame:
    columns = ("raw", "within", "between", "accuracy", "null", "gap", "gap_ratio", "effective_rank")
    rows = [
        {"model": model, "layer": layer, "n": 12}
        | {name: (k + 1) * 10.0**-place for place, name in enumerate(columns)}
        for k, model in enumerate(models)
        for layer in range(4)
    ]
    return pd.DataFrame(rows)


def test_depth_draws_each_column_of_each_model_once() -> None:
    table = depths()
    figure = figures.depth(table)
    drawn = {(trace.name, trace.y[0]) for trace in figure.data}
    columns = ("raw", "within", "between", "accuracy", "null", "gap", "gap_ratio", "effective_rank")
    expected = {
        (model, part[name].iloc[0]) for model, part in table.groupby("model") for name in columns
    }
    assert drawn == expected
    assert len(figure.data) == len(expected)
    assert [trace.name for trace in figure.data if trace.showlegend] == ["one", "two"]
    assert {trace.line.color for trace in figure.data if trace.name == "two"} == {PALETTE[1]}
    assert "one: n = 12 languages; two: n = 12 languages" in caption(figure)
    with pytest.raises(SteerlabError, match="depth was given a table without 'gap'"):
        figures.depth(table.drop(columns="gap"))


def of_two_panels() -> pd.DataFrame:
    rows = [
        (panel, layer, distance, 0.1 * layer, 0.04 if layer > 1 else 0.06, critical, n)
        for panel, critical, n in (("alone", 0.15, 24), ("beta", np.nan, 20))
        for layer in range(4)
        for distance in ("tree", "syntax")
    ]
    return pd.DataFrame(
        rows, columns=["panel", "layer", "distance", "value", "p_corrected", "critical", "n"]
    )


def test_only_what_is_significant_is_filled() -> None:
    figure = figures.explained(of_two_panels())
    drawn = [trace for trace in figure.data if not trace.showlegend]
    assert len(drawn) == 4
    for trace in drawn:
        assert list(trace.y) == pytest.approx([0, 0.1, 0.2, 0.3])
        assert list(trace.marker.color) == ["#ffffff"] * 2 + [trace.line.color] * 2
    assert [trace.name for trace in figure.data if trace.showlegend] == ["tree", "syntax"]
    bands = [(shape.y0, shape.y1) for shape in figure.layout.shapes]
    assert bands == [(-0.15, 0.15)], "no band where none is given"
    assert "alone, n = 24 languages, 276 pairs; beta, n = 20 languages, 190 pairs" in caption(
        figure
    )
    with pytest.raises(SteerlabError, match="explained was given a table without 'critical'"):
        figures.explained(of_two_panels().drop(columns="critical"))


# -------------------------------------------------------------------------------------------- files


def test_paper_has_the_size_and_no_title_or_slider_and_leaves_the_figure_alone() -> None:
    figure = placed()
    before = figure.to_json()
    printed = figures.paper(figure, width=180, height=90)
    assert (printed.layout.width, printed.layout.height) == (680, 340)  # 96 pixels an inch
    assert (printed.layout.title.text, len(printed.layout.sliders), len(printed.frames)) == (
        None,
        0,
        0,
    )
    assert printed.layout.meta["caption"] == caption(figure)
    assert len(printed.data) == len(figure.data)
    assert figure.to_json() == before


def test_write_puts_page_and_data_side_by_side(tmp_path: Path) -> None:
    table = pd.DataFrame({"language": ["en", "de"], "x": [0.123456789, 2.0]})
    files = figures.write(placed(), tmp_path / "new" / "map", data=table)
    assert [file.name for file in files] == ["map.html", "map.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(files[1]), table.round(6), rtol=1e-5)
    page = files[0].read_text("utf-8")
    assert "plotly.min.js" in page
    assert len(page) < 1e6
    assert (tmp_path / "new" / "plotly.min.js").exists()
    assert "Plotly.animate" not in page, "the page opens at its layer and does not run away"


def test_pictures_are_drawn_or_it_is_said_what_is_missing(tmp_path: Path) -> None:
    browser = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")))
    pictures = {
        tmp_path / "deep" / f"map{k}.{end}": figures.paper(placed())
        for k, end in enumerate(("pdf", "svg"))
    }
    if browser:
        figures.draw(pictures)
        heads = [file.read_bytes()[:4] for file in pictures]
        assert heads == [b"%PDF", b"<svg"]
    else:
        with pytest.raises(
            SteerlabError, match="a Chrome or Chromium, whose path may stand in BROWSER_PATH"
        ):
            figures.draw(pictures)


def test_without_a_browser_the_message_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    with pytest.raises(
        SteerlabError, match=r"could not be drawn .*steerlab\[figures\] and a Chrome or Chromium"
    ):
        figures.draw({tmp_path / "map.pdf": figures.paper(placed())})
    with pytest.raises(
        SteerlabError, match=r"map\.jpg ends in \.jpg, .* ends in \.pdf or \.svg or \.png"
    ):
        figures.draw({tmp_path / "map.jpg": placed()})


# ------------------------------------------------------------------------------------------- script


@pytest.fixture(scope="module")
def atlas() -> ModuleType:
    """experiments/atlas.py."""
    file = Path(__file__).resolve().parents[1] / "experiments" / "atlas.py"
    spec = importlib.util.spec_from_file_location("atlas", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["atlas"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MANY = (
    "en de nl da es fr it pt ru uk pl cs ar mt zh bo tr kk hi ja bn".split()
)  # bn is beyond the benchmark


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Planted means and typology, of the form of the real ones; Maltese, Tibetan and Kazakh have
    no typology."""
    (tmp_path / "directions").mkdir()
    (tmp_path / "typology").mkdir()
    given = torch.tensor(means(MANY, width=24)).transpose(0, 1).half().contiguous()
    header = {"langs": ",".join(MANY), "model": "planted", "site": "resid_post (output of block k)"}
    save_file(
        {"means": given}, tmp_path / "directions" / "aya-expanse-8b.safetensors", metadata=header
    )
    told = [iso for iso in MANY if iso not in ("mt", "bo", "kk")]
    same = (np.asarray(families(told))[:, None] == np.asarray(families(told))).astype(float)
    random = np.random.default_rng(0)
    for name in ("glottolog_tree", "uriel_syntax_knn", "uriel_phonology_knn", "geo_km"):
        noise = random.random((len(told), len(told)))
        table = pd.DataFrame(
            1 - same + noise + noise.T, index=pd.Index(told, name="iso"), columns=told
        )
        table.to_csv(tmp_path / "typology" / f"dist_{name}.tsv", sep="\t")
    shared = pd.DataFrame(same * 2, index=pd.Index(told, name="iso"), columns=told)
    shared.to_csv(tmp_path / "typology" / "shared_glottolog_nodes.tsv", sep="\t")
    return tmp_path


WORDS = "--formats --permutations 49 --resamples 5".split()


def quickly(atlas: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted means in the place of polyglot's, which take a while to collect."""
    subject = atlas.Subject("polyglot", "polyglot", three(), tuple(range(len(LANGS))))
    monkeypatch.setattr(atlas, "polyglot", lambda: subject)


def three() -> Directions:
    given = torch.tensor(means()).transpose(0, 1).float()
    return Directions(given, given[:, :, None], given, tuple(LANGS), LAYERS, "resid_post")


def test_the_script_draws_everything_from_planted_data(
    atlas: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quickly(atlas, monkeypatch)
    page = folder / "page.md"
    page.write_text(f"# Head\n{atlas.START}\nold\n{atlas.END}\ntail\n", "utf-8")
    atlas.main([str(folder), "--out", str(folder / "out"), "--docs", str(page), *WORDS])
    kinds = ("cosines", "tree", "map2d", "map3d", "tangle", "explained")
    names = {f"{kind}-{model}" for kind in kinds for model in ("aya-expanse-8b", "polyglot")}
    for name in names | {"depth-8b", "depth-polyglot"}:
        assert (folder / "out" / f"{name}.html").exists(), name
        assert len(pd.read_csv(folder / "out" / f"{name}.csv")), name
    assert "Where the data can be had" not in capsys.readouterr().out
    captions = (folder / "out" / "captions.md").read_text("utf-8")
    assert captions.count("n = ") >= len(names)
    assert "n = 21 languages" in captions, "all are drawn"
    table = pd.read_csv(folder / "out" / "explained-aya-expanse-8b.csv")
    sizes = table.groupby("panel")["n"].first()
    assert sizes["Mantel r, family and script alone"] == 20, "less bn"
    assert sizes["Mantel r, each distance alone"] == 17, "less those without typology"
    text = page.read_text("utf-8")
    assert (text.startswith("# Head\n"), text.endswith("tail\n"), "old" in text) == (
        True,
        True,
        False,
    )
    assert not (folder / "images").exists(), "no picture was asked for"
    assert re.search(r"\| Aya-Expanse-8B \| 0 \| [\d.]+ \| [\d.]+ \| -[\d.]+ \| \d+/12 \|", text)


def test_the_script_finds_the_planted_families(
    atlas: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = atlas.released(folder)[0]
    settings = atlas.Settings(folder, (), 199, 5)
    table = atlas.by_layer(subject, settings)
    assert (table["within"] - table["between"]).min() > 0.5
    assert table["p"].iloc[0] == 1 / 200
    found = atlas.explain(subject, folder, 199)
    for panel, distance, count in (
        ("partial r, each given the other", "family", 20),
        ("Mantel r, each distance alone", "Glottolog tree", 17),
    ):
        rows = found[(found["panel"] == panel) & (found["distance"] == distance)]
        assert rows["layer"].tolist() == [0, 1, 2]
        assert (rows["p_corrected"] <= 0.05).all()
        assert (rows["n"] == count).all()


def test_without_data_the_script_draws_polyglot_and_says_where_to_get_the_rest(
    atlas: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quickly(atlas, monkeypatch)
    atlas.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), *WORDS])
    said = capsys.readouterr().out
    assert "Where the data can be had" in said
    assert "d-gurgurov/CLaS-Bench" in said
    assert str(tmp_path / "nowhere") in said
    there = {file.stem for file in (tmp_path / "out").glob("*.html")}
    assert {"depth-polyglot", "explained-polyglot", "map2d-polyglot"} <= there
    assert not [name for name in there if "aya" in name or "tangle" in name]
    rows = json.loads(
        pd.read_csv(tmp_path / "out" / "explained-polyglot.csv").to_json(orient="records")
    )
    assert {row["distance"] for row in rows} == {"family", "script"}
