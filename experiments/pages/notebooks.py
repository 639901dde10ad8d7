"""Notebooks as pages of the documentation: a hook of mkdocs.

Each `notebooks/*.ipynb` becomes `guides/<name>.md`. Its outputs are those of the executed copy in
`build/notebooks`, which `make notebooks` writes; a notebook without one is shown without outputs.
Figures are drawn by plotly's own script, which is copied from the installed package, so that the
site needs no network.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SOURCES, EXECUTED = ROOT / "notebooks", ROOT / "build" / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
SCRIPT = "assets/plotly.min.js"
_TOP = 40  # pixels above a figure without its title


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and the script that draws their figures."""
    for source in sorted(SOURCES.glob("*.ipynb")):
        executed = EXECUTED / source.name
        notebook = json.loads((executed if executed.exists() else source).read_text("utf-8"))
        page = f"guides/{source.stem}.md"
        files.append(File.generated(config, page, content=as_markdown(notebook)))
    files.append(File.generated(config, SCRIPT, content=_plotly()))
    return files


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown with HTML for its outputs; a script draws each plotly figure."""
    parts, figures = [], 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(_links(source))
        elif cell["cell_type"] == "code" and source:
            parts.append(f"```python\n{source}\n```")
            shown = [_output(output) for output in cell.get("outputs", [])]
            figures += sum("data-plotly" in each for each in shown)
            parts += [each for each in shown if each]
    if figures:
        parts.insert(1, f'<script src="../{SCRIPT}"></script>')
        parts.append(_DRAW)
    return "\n\n".join(parts) + "\n"


# Dark pages have light letters; the figure itself stays as it was drawn, on its own ground.
_DRAW = """<script>
for (const place of document.querySelectorAll("[data-plotly]")) {
  const figure = JSON.parse(place.querySelector("script").textContent);
  Plotly.newPlot(place, {...figure, config: {responsive: true}});
}
</script>"""


def _output(output: dict[str, Any]) -> str:
    """One output of a cell; the richest form of it that a page can show."""
    if output["output_type"] == "error":
        raise ValueError(f"a notebook that failed is no page: {output['evalue']}")
    if output["output_type"] == "stream":
        return "" if output["name"] == "stderr" else _text("".join(output["text"]))
    data = output["data"]
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""  # a bar of progress or a slider: nothing without a kernel
    if PLOTLY in data:
        return _figure(data[PLOTLY])
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            return f'<div class="output">{_one_block("".join(data[kind]))}</div>'
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    return _text("".join(data.get("text/plain", "")))


def _figure(figure: dict[str, Any]) -> str:
    """A figure for the script to draw; its title and caption are text, which a phone breaks."""
    layout = dict(figure["layout"])
    given = layout.get("meta")
    meta: dict[str, Any] = given if isinstance(given, dict) else {}
    words = ""
    if "caption" in meta:
        words = f"<p><b>{escape(str(meta['title']))}.</b> {escape(str(meta['caption']))}</p>"
        margin = dict(layout.get("margin") or {})
        headroom = max(0, int(margin.get("t", _TOP)) - _TOP)
        layout |= {"margin": margin | {"t": _TOP}, "height": layout.get("height", 450) - headroom}
        layout.pop("title", None)
    # "</" would end the script that holds the figure.
    drawn = json.dumps({"data": figure["data"], "layout": layout} | _frames(figure))
    drawn = drawn.replace("</", "<\\/")
    return f'{words}<div data-plotly><script type="application/json">{drawn}</script></div>'


def _frames(figure: dict[str, Any]) -> dict[str, Any]:
    return {"frames": figure["frames"]} if figure.get("frames") else {}


def _links(text: str) -> str:
    """Links as they lead from a page of the site: to other pages, and to other notebooks' pages."""
    return text.replace("](../docs/", "](../").replace(".ipynb)", ".md)")


def _text(text: str) -> str:
    return f'<pre class="output">{_one_block(escape(text.rstrip()))}</pre>' if text.strip() else ""


def _one_block(html: str) -> str:
    """HTML without empty lines, at which Markdown would take it for finished."""
    lines = [line if line.strip() else "&#8203;" for line in html.split("\n")]
    return "\n".join(lines)


def _plotly() -> str:
    import plotly.offline

    return str(plotly.offline.get_plotlyjs())
