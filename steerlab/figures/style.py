"""What every figure shares: one template, colours that colour-blind readers tell apart, names,
captions, checks."""

import textwrap
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from steerlab.core.columns import score_records
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import labelled
from steerlab.core.languages import LANGUAGES, all_families

INK = "#1f2933"  # of letters and main lines
GREY = "#6b7785"  # of labels and controls
PALE = "#e4e8ec"  # of the grid
FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif'
)
# Okabe and Ito's palette, its yellow and black exchanged for an olive and a slate that carry on
# white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8d0f", "#5b5f97")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "cross", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
# Colour scales: from pale to dark, and from orange over white to blue.
SEQUENTIAL = (
    (0.0, "#f4f8fb"),
    (0.25, "#d0e3f0"),
    (0.5, "#98c3de"),
    (0.75, "#3a88b8"),
    (1.0, "#06395c"),
)
DIVERGING = (
    (0.0, "#b35806"),
    (0.25, "#f1b56b"),
    (0.5, "#f7f7f7"),
    (0.75, "#7fb4d3"),
    (1.0, "#06395c"),
)

_TOP = 62  # pixels of the template's margin above the plot
_WIDTH = 62  # characters of a line of the caption that a phone has room for

YARDSTICKS = ("prompt", "fewshot")  # controls that ask for the language: no nulls
CONTROLS = (
    "unsteered",
    "random",  # of runs whose two kinds of random directions were one row
    "random isotropic",
    "random covariance",
    "shuffled",
    "wrong",
    *YARDSTICKS,
)
_NAMES = {
    "diffmean": "DiffMean",
    "diffmean_rotate": "DiffMean, rotated",
    "lda": "LDA",
    "pca": "PCA",
    "probe": "Probe",
    "eigengap": "Eigengap",
    "unsteered": "Unsteered",
    "random": "Random direction",
    "random isotropic": "Random direction, isotropic",
    "random covariance": "Random direction, spread like activations",
    "shuffled": "Shuffled labels",
    "wrong": "Wrong language",
    "prompt": "Prompt instruction",
    "fewshot": "Prompt with translated examples",
    "strength": "strength (natural gaps)",
}
# The families in the order of the table of languages.
FAMILIES = all_families()


def readable(name: str) -> str:
    """How a method, a control or a column is called in figures and on the page."""
    if name in _NAMES:
        return _NAMES[name]
    return score_records()[name].label if name in score_records() else name.replace("_", " ")


def family_style(family: str) -> tuple[str, str]:
    """The (colour, marker) of a language family, the same in every figure."""
    # A family that a user has added comes behind all that were there.
    index = (*FAMILIES, *all_families()).index(family) if family in all_families() else 0
    # There are more families than colours: each further round of the colours shifts the markers by
    # one, so that no two families share both.
    rounds = index // len(PALETTE)
    return PALETTE[index % len(PALETTE)], SYMBOLS[(index + rounds) % len(SYMBOLS)]


def family_order(isos: Sequence[str]) -> list[str]:
    """The languages sorted by family, in the order of the table of languages; those that it does
    not list come last in their family."""
    family = {name: index for index, name in enumerate(all_families())}
    listed = {lang: index for index, lang in enumerate(LANGUAGES)}
    return sorted(
        isos,
        key=lambda lang: (family[labelled(lang).family], listed.get(lang, len(listed)), lang),
    )


def check(table: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """Raise `SteerlabError` if a table has no rows, or lacks a column.

    Args:
        table: the table.
        columns: the columns that it needs.
        figure: the name of the function, for the message.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise SteerlabError(
            f"{figure} was given a table without {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(str, table.columns)) or 'no columns'}: name one of those, or "
            "add the column"
        )
    if table.empty:
        raise SteerlabError(
            f"{figure} was given a table without rows; it needs at least one: check what was "
            "filtered"
        )


def sentence_of(*parts: str) -> str:
    """The parts that are not empty as sentences in one line, each with a full stop."""
    sentences = []
    for part in parts:
        text = part.strip()
        if text:
            sentences.append(text.rstrip(".") + ".")
    return " ".join(sentences)


def finish(figure: go.Figure, *, title: str, caption: str, height: int) -> go.Figure:
    """Give a figure the template, its title and its caption, in place; return it.

    The caption stands below the title, broken into lines, and whole in `layout.meta["caption"]`.

    Args:
        figure: the figure.
        title: its title.
        caption: its caption.
        height: in pixels, with the margin of the template; a long caption makes it taller.
    """
    lines = textwrap.wrap(caption, _WIDTH)
    top = 72 + 16 * len(lines)  # the title, and the lines of the caption
    figure.update_layout(
        template=TEMPLATE,
        height=height - _TOP + top,
        margin={"t": top},
        title={"text": title, "subtitle": {"text": "<br>".join(lines)}},
        meta={"title": title, "caption": caption},
    )
    return figure


def _template() -> go.layout.Template:
    """What all figures share: letters, colours, axes, and the legend below the plot, where a phone
    has room for it."""
    axis = {
        "automargin": True,
        "gridcolor": PALE,
        "linecolor": "#c3cad2",
        "showline": False,
        "ticks": "",
        "zeroline": False,
        "title": {"standoff": 10, "font": {"size": 13, "color": GREY}},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "title": {
                "x": 0.0,
                "xref": "container",
                "xanchor": "left",
                "yref": "container",
                "y": 1.0,
                "yanchor": "top",
                "pad": {"t": 32, "l": 12},  # below the buttons
                "font": {"size": 16},
                "subtitle": {"font": {"size": 12, "color": GREY}},
            },
            "colorway": list(PALETTE),
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "margin": {"l": 8, "r": 12, "b": 8, "t": _TOP},
            "hoverlabel": {
                "bgcolor": "#ffffff",
                "bordercolor": "#c3cad2",
                "align": "left",
                "font": {"color": INK},
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "font": {"size": 12},
            },
            "xaxis": axis,
            "yaxis": axis,
        }
    )


TEMPLATE = _template()
