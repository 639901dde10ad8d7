"""Figures for print: of every figure, at the width of a column and of a page, nothing is cut off;
and what is cut off is seen."""

import functools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from browsers import found
from test_figures import LANGS, planted, tidy
from test_figures_atlas import depths, matrices, of_two_panels, tangled
from test_figures_units import counts, grid, matrix, spectra, stability, thresholds

import steerlab as sl
from steerlab import figures
from steerlab.analysis.lens import Lens, Read
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.figures.printed import WIDTHS, edges, fit, grey, save

browser = pytest.mark.skipif(found() is None, reason="drawing takes Chrome or Chromium")
METHODS = ["diffmean", "lda", "random isotropic", "random covariance", "fewshot", "eigengap"]


def directions() -> Directions:
    vectors = planted(layers=(2, 5)).vectors
    return Directions(
        vectors, vectors[:, :, None] / vectors.norm(dim=-1)[:, :, None, None], vectors,
        tuple(LANGS), (2, 5), "resid_post",
    )  # fmt: skip


def a_lens() -> Lens:
    random = torch.Generator().manual_seed(0)
    reads = tuple(
        Read(
            "x", "en", number, tuple(f" token{n}" for n in range(9)),
            torch.rand(6, 9, 16, generator=random) / 8,
            torch.rand(6, 9, 16, generator=random) / 8,
            (("einmal", "und", "wieder", "noch", "ein", "a", "b", "c", "d"),) * 6,
        )
        for number in range(3)
    )  # fmt: skip
    return Lens(tuple(LANGS), tuple(range(6)), reads)


def curves() -> pd.DataFrame:
    table = grid(by=METHODS, x=[0.5, 1.0, 1.5, 2.0])
    value = table["by"].map(METHODS.index) / 8 + table["x"] / 10
    return table.assign(value=value, low=value - 0.05, high=value + 0.05)


def every() -> dict[str, go.Figure]:
    """One of each figure, as crowded as they get."""
    cells = {(lang, layer): [True, False] for lang in LANGS[1:] for layer in range(8)}
    layers = pd.DataFrame({"layer": range(12)})
    lines = ["centred means", "within Latin script", "permutation null, 95 %", "token unigrams"]
    names = ["agnostic", "specific", "related"]
    kinds = grid(layer=[0, 1, 2, 3], kind=names).assign(share=np.tile([0.6, 0.1, 0.3], 4))
    parts = {"understanding": [0, 1], "shared reasoning": [2], "output": [3]}
    return {
        "heatmap": figures.heatmap(tidy(cells)),
        "cosines": figures.cosines(directions(), layer=5),
        "dendrogram": figures.dendrogram(directions().at(5)),
        "language_map": figures.language_map(directions()),
        "separation_by_layer": figures.separation_by_layer(
            layers.assign(trace_ratio=layers["layer"] / 9, nearest_mean=0.9), chance=1 / 16
        ),
        "dose_curves": figures.dose_curves(curves(), chance=1 / 32),
        "families": figures.families(
            grid(series=lines, layer=list(range(12))).assign(value=0.4)
        ),
        "cosine_layers": matrices(),
        "tanglegram": tangled()[0],
        "depth": figures.depth(depths()),
        "explained": figures.explained(of_two_panels()),
        "threshold_counts": figures.threshold_counts(thresholds()),
        "stability_curve": figures.stability_curve(stability(list("en de fr".split()))),
        "selectivity": figures.selectivity(matrix()),
        "units_by_layer": figures.units_by_layer(counts(), parts=parts),
        "kinds_by_layer": figures.kinds_by_layer(kinds, parts=parts),
        "spectrum": figures.spectrum(spectra()),
        "lens_layers": figures.lens_layers(a_lens()),
        "lens_strip": figures.lens_strip(a_lens()),
    }  # fmt: skip


def test_every_figure_is_among_them() -> None:
    from steerlab.figures import _FIGURES

    assert set(every()) == set(_FIGURES)


@functools.cache
def drawn(width: str) -> dict[str, tuple[go.Figure, np.ndarray]]:
    """Every figure in one width, and how it looks."""
    from steerlab.figures.printed import _pictures

    given = every()
    copies = fit(list(given.values()), width=width)
    return dict(zip(given, zip(copies, _pictures(copies), strict=True), strict=True))


@browser
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_has_ink_at_an_edge(width: str) -> None:
    for name, (copy, picture) in drawn(width).items():
        assert not edges(picture), name
        assert picture.shape == (copy.layout.height, copy.layout.width), name
        assert copy.layout.width == round(WIDTHS[width] * 96 / 25.4), name
        assert (picture < 128).mean() > 0.001, f"{name} is empty"


@browser
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_plot_keeps_most_of_the_paper(width: str) -> None:
    """More room at the edges must not come to a plot of nothing but edges."""
    for name, (copy, picture) in drawn(width).items():
        inked = np.argwhere(picture < 250)
        (top, left), (bottom, right) = inked.min(0), inked.max(0)
        assert right - left > 0.85 * copy.layout.width, name
        assert bottom - top > 0.8 * copy.layout.height, name


@browser
@pytest.mark.timeout(600)
def test_what_is_cut_off_is_seen_and_mended(tmp_path: Path) -> None:
    """A word that reaches beyond the right edge: `paper` leaves it, `save` does not."""
    from steerlab.figures.printed import _pictures

    figure = figures.dose_curves(curves())
    figure.add_annotation(
        text="beyond all edges", x=1, y=0.5, xref="paper", yref="paper", xanchor="left",
        showarrow=False,
    )  # fmt: skip
    plain = figures.paper(figure, width=85, height=60)
    assert "right" in edges(_pictures([plain])[0])
    file = sl.save(figure, tmp_path / "a.png", width="column")
    picture = grey(file.read_bytes())
    assert not edges(picture)
    assert picture.shape[1] == 3 * round(85 * 96 / 25.4)
    assert not figure.layout.width, "the figure itself is left alone"


def test_what_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    figure = figures.dose_curves(curves())
    refused: list[tuple[dict[str, Any], str]] = [
        ({"width": "wide"}, "there is no width 'wide'; give column"),
        ({"width": 3}, "too small to print; give 20 mm or more"),
        ({"height": 1}, "too small to print"),
    ]
    for given, message in refused:
        with pytest.raises(SteerlabError, match=message):
            save(figure, tmp_path / "a.pdf", **given)
    with pytest.raises(SteerlabError, match=r"ends in \.jpg"):
        save(figure, tmp_path / "a.jpg")


# -------------------------------------------------------------------------------------- the reading


def png(pixels: np.ndarray, filters: list[int]) -> bytes:
    """A PNG of [row column channel], each line with the filter that is named, by the letter of the
    specification."""
    channels = pixels.shape[2]
    flat = pixels.reshape(len(pixels), -1).astype(int)
    lines = b""
    for row, kind in enumerate(filters):
        line = []
        for place, value in enumerate(flat[row]):
            a = flat[row][place - channels] if place >= channels else 0
            b = flat[row - 1][place] if row else 0
            c = flat[row - 1][place - channels] if row and place >= channels else 0
            guess = a + b - c
            paeth = min((abs(guess - a), 0, a), (abs(guess - b), 1, b), (abs(guess - c), 2, c))[2]
            line.append((value - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        lines += bytes([kind, *line])
    head = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = b""
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        parts += struct.pack(">I", len(body)) + name + body
        parts += struct.pack(">I", zlib.crc32(name + body))
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_are_read_whatever_filter_their_lines_have(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 7, channels))
    if channels == 4:
        pixels[..., 3] = 255
    filters = [0, 1, 2, 3, 4, 4, 3, 2, 1, 4]
    np.testing.assert_array_equal(grey(png(pixels, filters)), pixels[..., :3].min(-1))


def test_what_is_seen_through_is_white() -> None:
    pixels = np.zeros((2, 3, 4), int)
    pixels[0, 0, 3] = 255
    assert grey(png(pixels, [0, 4])).tolist() == [[0, 255, 255], [255] * 3]


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_ink_is_found_at_its_side_alone(side: str) -> None:
    picture = np.full((40, 60), 255, np.uint8)
    assert edges(picture) == []
    places = {"left": (20, 1), "right": (20, 58), "top": (1, 30), "bottom": (38, 30)}
    picture[places[side]] = 100
    assert edges(picture) == [side]
    inside = np.full((40, 60), 255, np.uint8)
    inside[2:-2, 2:-2] = 0
    assert edges(inside) == []
