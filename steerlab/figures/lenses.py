"""The logit lens by language: layers against languages, and layers against the tokens of a text."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.figures.grids import BAR
from steerlab.figures.panels import heading, roomy
from steerlab.figures.style import GREY, PALETTE, SEQUENTIAL, family_order, finish, sentence_of

_LONGEST = 9  # letters of a token in a cell
_PALEST = 0.12  # of a cell whose language is heaviest with next to no mass


def lens_layers(lens: Any, *, spoken: str | None = None, note: str = "") -> go.Figure:
    """The mean mass of each language's tokens at each layer; with an edit, the model as it is
    beside it.

    The hover has the 95 % interval over sentences. Raises `SteerlabError` for texts of several
    languages of which none was named.

    Args:
        lens: what `sl.lens` gives.
        spoken: the language of the texts that are drawn, where there are several.
        note: a last sentence of the caption.
    """
    if spoken is None and len(lens.spoken) > 1:
        raise SteerlabError(
            f"lens_layers draws texts of one language, and there are {len(lens.spoken)}: give "
            f"spoken=, one of {' '.join(map(str, lens.spoken))}"
        )
    table = lens.by_layer(spoken)
    down = family_order(list(lens.langs))
    columns = ["mass", "unsteered"] if lens.edited else ["mass"]
    headings = ["under the edit", "as it is"] if lens.edited else [""]
    figure = make_subplots(rows=1, cols=len(columns), shared_yaxes=True, horizontal_spacing=0.04)
    top = max(0.1, float(np.ceil(10 * table[columns].to_numpy(float).max()) / 10))
    for place, column in enumerate(columns):
        grids = {
            name: table.pivot(index="language", columns="layer", values=name).loc[down]
            for name in (column, f"{column}_low", f"{column}_high")
        }
        ends = np.stack([grids[f"{column}_{end}"].to_numpy(float) for end in ("low", "high")], -1)
        figure.add_heatmap(
            z=grids[column].to_numpy(float),
            x=[str(layer) for layer in lens.layers],
            y=[language(lang).name for lang in down],
            customdata=ends,
            hovertemplate="%{y}, layer %{x}<br>mass %{z:.3f} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=top,
            xgap=1,
            ygap=1,
            colorbar=BAR,
            showscale=not place,
            row=1,
            col=place + 1,
        )
        if headings[place]:
            heading(figure, place, headings[place])
    figure.update_xaxes(type="category", title_text="layer", showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    lang = spoken if spoken is not None else lens.spoken[0]
    of = "" if lang is None else f" of text in {language(lang).name}"
    caption = sentence_of(
        "Mean share of the next token's probability on each language's own tokens, the stream "
        f"after each layer read by the final norm and unembedding{of}; the rest is nobody's",
        f"n = {int(table['n'].iloc[0])} texts",
        note,
    )
    title = "Languages through the logit lens"
    figure = finish(figure, title=title, caption=caption, height=190 + 22 * len(down))
    return roomy(figure) if lens.edited else figure


def lens_strip(lens: Any, *, text: int = 0, unsteered: bool = False, note: str = "") -> go.Figure:
    """One text through the lens: at each layer (down) and token (across) the language with the
    most mass, the darker the more, and the likeliest next token.

    Args:
        lens: what `sl.lens` gives.
        text: the number of the text.
        unsteered: whether to draw the model as it is, where an edit was on.
        note: a last sentence of the caption.
    """
    if not 0 <= text < len(lens.reads):
        raise SteerlabError(f"there are texts 0 to {len(lens.reads) - 1}; text {text} is none")
    read = lens.reads[text]
    if unsteered and read.unsteered is None:
        raise SteerlabError("no edit was on, so that there is one reading alone")
    mass = (read.unsteered if unsteered else read.mass).numpy()
    best, share = mass.argmax(-1), mass.max(-1)
    # Numbered, since a text may have a token twice.
    across = [f"{number}·{_short(piece)}" for number, piece in enumerate(read.pieces)]
    winners = [
        index for index in np.bincount(best.ravel()).argsort()[::-1] if (best == index).any()
    ]
    figure = go.Figure()
    top = max(0.05, float(share.max()))
    for rank, index in enumerate(winners):
        color = PALETTE[rank] if rank < len(PALETTE) else GREY
        name = language(lens.langs[index]).name
        here = best == index
        figure.add_heatmap(
            z=np.where(here, share, np.nan),
            x=across,
            y=[str(layer) for layer in lens.layers],
            text=np.where(here & (not unsteered), [list(map(_short, t)) for t in read.top], ""),
            texttemplate="%{text}",
            textfont={"size": 9},
            colorscale=[[0, _mixed(color, _PALEST)], [1, _mixed(color, 0.85)]],
            zmin=0,
            zmax=top,
            xgap=1,
            ygap=1,
            showscale=False,
            hoverongaps=False,
            hovertemplate=f"layer %{{y}}, after %{{x}}<br>{name} %{{z:.3f}}<extra></extra>",
        )
        marker = {"color": color, "symbol": "square", "size": 10}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
    figure.update_xaxes(type="category", showgrid=False, tickangle=-45, tickfont_size=10)
    figure.update_yaxes(type="category", title_text="layer", showgrid=False)
    kind = ", unsteered" if unsteered else ", under the edit" if lens.edited else ""
    caption = sentence_of(
        "The language with the most of the next token's probability at each layer and token, the "
        f"darker the more (up to {top:.2f})"
        + ("" if unsteered else "; in the cells the likeliest next token"),
        f"n = 1 text{kind}",
        note,
    )
    title = "A text through the logit lens"
    return finish(figure, title=title, caption=caption, height=230 + 24 * len(lens.layers))


def _short(piece: str) -> str:
    text = piece.replace("\n", "⏎").strip() or "␣"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _mixed(color: str, share: float) -> str:
    """A colour with white."""
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    red, green, blue = (round(255 + share * (part - 255)) for part in parts)
    return f"rgb({red}, {green}, {blue})"


FIGURES = {"lens_layers": lens_layers, "lens_strip": lens_strip}
