"""A figure as files: a page for the screen, PDF and SVG for paper, and the data beside it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from steerlab.core.errors import SteerlabError
from steerlab.core.files import csv_of, explained, need_ending, replacing, write_text
from steerlab.core.targets import mark, marked_page

PIXELS = 96 / 25.4  # of a millimetre; plotly writes 0.75 pt for a pixel
_FONT = '"Liberation Sans", Arial, Helvetica, sans-serif'
_TOP = 40  # pixels above a figure without its title
_HEAD = (
    '<meta name="viewport" content="width=device-width, initial-scale=1"><style>body{margin:12px;'
    "font:14px/1.45 system-ui,sans-serif;color:#1f2933;background:#fff}h1{font-size:17px;"
    "margin:0 0 4px}p{margin:0;color:#6b7785;max-width:60em}</style>"
)
_FORMATS = (".pdf", ".svg", ".png")


def paper(figure: go.Figure, *, width: float = 180, height: float = 110) -> go.Figure:
    """A copy of a figure for print, in letters of 7.5 pt and without title, caption and slider.

    The page around it has those; the caption stays in `layout.meta["caption"]`.

    Args:
        figure: the figure.
        width: of the copy, in mm.
        height: of the copy, in mm.
    """
    # Without the frames of a slider, and without what works on a screen only.
    copy = go.Figure(data=figure.data, layout=figure.layout)
    copy.layout.sliders = ()
    copy.layout.updatemenus = ()
    copy.layout.title = None
    copy.update_layout(
        width=round(width * PIXELS),
        height=round(height * PIXELS),
        font={"family": _FONT, "size": 10, "color": "#000000"},
        # A side that the figure gave more room, for the names of families, keeps it.
        margin={
            "t": 8 + 14 * _has_headings(figure),
            "l": 6,
            "r": figure.layout.margin.r or 8,
            "b": figure.layout.margin.b or 6,
        },
        legend_font_size=10,
    )
    copy.update_xaxes(title_font_size=10, tickfont_size=_small(figure, "xaxis"))
    copy.update_yaxes(title_font_size=10, tickfont_size=_small(figure, "yaxis"))
    return copy


def write(
    figure: go.Figure,
    stem: str | Path,
    *,
    data: pd.DataFrame | None = None,
    force: bool = False,
) -> list[Path]:
    """Write `<stem>.html`, and `<stem>.csv` with the data that it shows; each is whole or not
    there.

    The pages of one folder share one plotly.min.js, so they open from disk. Files that steerlab did
    not write are replaced with `force` only.

    Args:
        figure: the figure.
        stem: where it is written, without an ending.
        data: the table behind it; None for none.
        force: replace regular files, whoever wrote them.
    """
    stem = need_ending(stem, made=".html and .csv, which are put to the name")
    page, script = Path(f"{stem}.html"), stem.parent / "plotly.min.js"
    files = [page]
    with explained(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
        if not script.exists():
            # plotly's own `write_html` would leave half of it behind on a full disk, for good.
            write_text(script, get_plotlyjs())
        if data is not None:
            files.append(Path(f"{stem}.csv"))
        # A table has no place for a mark: its page has the checksum.
        with replacing(*files, force=force) as fresh:
            text = _page(figure)
            table = None
            if data is not None:
                table = csv_of(data, digits="%.6g")
                fresh[1].write_bytes(table)
            fresh[0].write_text(marked_page(text, table), "utf-8")
    return files


def _page(figure: go.Figure) -> str:
    """A page of a figure that a phone shows in its own width, with title and caption as text that
    breaks where the window ends."""
    copy = go.Figure(figure)
    meta = copy.layout.meta if isinstance(copy.layout.meta, Mapping) else {}
    told = ""
    if "caption" in meta:
        # What the title and the caption took of the figure is not needed any more.
        headroom = max(0, (copy.layout.margin.t or _TOP) - _TOP)
        copy.update_layout(title=None, margin_t=_TOP, height=(copy.layout.height or 450) - headroom)
        told = f"<h1>{escape(str(meta['title']))}</h1><p>{escape(str(meta['caption']))}</p>"
    text = copy.to_html(include_plotlyjs="directory", auto_play=False, config={"responsive": True})
    # In this order: the head has no mark yet, which goes behind its beginning.
    text = text.replace("</head>", f"{_HEAD}</head>", 1)
    return str(text.replace("<body>", f"<body>{told}", 1))


def draw(pictures: Mapping[Path, go.Figure], *, force: bool = False) -> None:
    """Draw figures as the files' endings say (pdf, svg or png), all in one run of the browser.

    Raises `SteerlabError` for another ending, and where there is no kaleido or no Chrome or
    Chromium. Files that steerlab did not write are replaced with `force` only.
    """
    for file in pictures:
        need_ending(file, *_FORMATS)
    if not pictures:
        return  # a browser takes seconds to start
    for file in pictures:
        file.parent.mkdir(parents=True, exist_ok=True)
    import plotly.io

    figures = list(pictures.values())
    with need_browser(), replacing(*pictures, force=force) as fresh:
        plotly.io.write_images(
            figures,
            [str(file) for file in fresh],
            format=[file.suffix[1:] for file in pictures],
            # Three times as many pixels, since a PNG cannot be enlarged.
            scale=[3 if file.suffix == ".png" else 1 for file in pictures],
            width=[figure.layout.width or 700 for figure in figures],
            height=[figure.layout.height or 500 for figure in figures],
        )
        for drawn, file in zip(fresh, pictures, strict=True):
            mark(drawn, file.suffix)


@contextmanager
def need_browser() -> Iterator[None]:
    """Say what drawing takes, where it does not work."""
    try:
        yield
    except SteerlabError:
        raise  # of a file that must not be replaced
    except Exception as error:  # kaleido's and its browser's errors have no class in common
        message = (str(error).strip() or repr(error)).splitlines()[0]
        raise SteerlabError(
            f"PDF, SVG and PNG could not be drawn ({message}); that takes steerlab[figures] and a "
            "Chrome or Chromium, whose path may stand in BROWSER_PATH"
        ) from error


def _has_headings(figure: go.Figure) -> bool:
    """Whether something stands over the panels, as `panels.heading` puts it there."""
    return any(note.yref and "domain" in str(note.yref) for note in figure.layout.annotations)


def _small(figure: go.Figure, axis: str) -> float:
    """The size of an axis' letters: a dense axis keeps its own smaller ones."""
    return min(float(figure.layout[axis].tickfont.size or 10), 10)
