"""The page's larger parts: figures from their files, sample outputs, the account of what was
run."""

import json
import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.errors import SteerlabError
from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.main.page.values import controls, methods, named, setting

_FIGURES = ("heatmap", "dose_curves", "removal", "separation", "families", "dendrogram", "cosines")
_SEED, _SAMPLES = 0, 5
_HASH_LENGTH = 32
_TOP = 12  # pixels above a plot whose title is text of the page


def figures(folder: Path) -> str:
    """Every plotly figure of a folder: known names in the page's order, then the others by name."""
    files = sorted(folder.glob("*.json"), key=lambda file: (_place(file.stem), file.stem))
    if not files:
        return "<p>This run drew no figures.</p>"
    return f"<div class='plots'>{''.join(map(_figure, files))}</div>"


def samples(summary: Mapping[str, Any], rows: pd.DataFrame) -> str:
    """Five joint outputs and five failures of every method and control, drawn by a fixed seed."""
    blocks: list[str] = []
    for name in [*methods(summary), *controls(summary)]:
        found = _shown(rows[rows["method"] == name], summary["results"][name])
        if len(found):
            blocks.append(_block(name, summary["results"][name], found, first=not blocks))
    note = (
        f"Up to {_SAMPLES} outputs that are joint and {_SAMPLES} that are not, of each method and "
        "control, drawn from "
        f"the test lines by a fixed seed ({_SEED}): none was picked by hand."
    )
    return f"<p class='note'>{note}</p>{''.join(blocks)}"


def account(summary: Mapping[str, Any], manifest: Mapping[str, Any], rows: pd.DataFrame) -> str:
    """Command, model, corpus, time, memory and token counts; then everything that the manifest
    holds."""
    command = manifest.get("command")
    line = (
        shlex.join(map(str, command))
        if isinstance(command, list)
        else str(command or "(the manifest names no command)")
    )
    facts: dict[str, Any] = {
        key: summary.get(key) for key in ("model", "corpus", "prompt", "source", "targets")
    }
    facts |= {
        "test sentences": summary.get("n_sentences"),
        "outputs for each method": summary.get("n_outputs"),
    }
    facts["time"] = _minutes(summary.get("seconds"))
    facts["peak memory"] = _gigabytes(summary.get("peak_rss_bytes"))
    facts["generated tokens"] = f"{int(rows['tokens'].sum()):,} in {len(rows):,} outputs"
    for split, part in rows.groupby("split"):
        facts[f"generated tokens, {split}"] = (
            f"{int(part['tokens'].sum()):,} in {len(part):,} outputs"
        )
    counted = _flat(summary.get("counts") or {})
    facts |= {
        f"count of {key}": value
        for key, value in counted.items()
        if key not in ("outputs", "generated tokens")
    }
    rest = {key: value for key, value in manifest.items() if key != "command"}
    return (
        f"<pre>{escape(line)}</pre>{_facts(facts)}"
        + _folded("What was chosen on dev", summary.get("choices"), by_method=True)
        + _folded("What the race did not read whole", _raced(summary))
        + _folded("The manifest: everything that decides a number", rest)
    )


def _raced(summary: Mapping[str, Any]) -> dict[str, str]:
    """How far each setting went that a race dropped, and its score there."""
    told = {}
    for row in (summary.get("race") or {}).get("not read whole", []):
        known = row["low"] is not None  # one line has no interval
        score = f"joint {row['joint']:.2f}" + (
            f" [{row['low']:.2f}, {row['high']:.2f}]" if known else ""
        )
        name = f"{readable(row['method'])}, layer {row['layer']}, strength {row['strength']:g}"
        told[name] = f"{row['lines']} of {row['of']} dev lines; {score}"
    return told


# ------------------------------------------------------------------------------------------ figures


def _place(stem: str) -> int:
    return next(
        (place for place, known in enumerate(_FIGURES) if stem.startswith(known)), len(_FIGURES)
    )


def _figure(file: Path) -> str:
    """Title and caption as text of the page, so that they wrap; the plot and its data below."""
    try:
        figure = json.loads(file.read_text(encoding="utf-8"))
        data, layout = figure["data"], dict(figure["layout"])
    except (ValueError, KeyError, TypeError) as error:
        raise SteerlabError(
            f"{file} is no plotly figure ({error!r}); delete it, or write it again"
        ) from error
    known, drawn = layout.get("meta"), layout.pop("title", None)
    meta = known if isinstance(known, dict) else {}
    title = (
        meta.get("title")
        or (drawn.get("text", "") if isinstance(drawn, dict) else drawn)
        or readable(file.stem)
    )
    layout.pop("width", None)
    layout |= {"dragmode": False, "margin": {**layout.get("margin", {}), "t": _TOP}}
    layout["height"] = layout.get("height", 450) - _headroom(figure["layout"])
    content = json.dumps({"data": data, "layout": layout}, ensure_ascii=False).replace(
        "<", "\\u003c"
    )
    return (
        f"<figure id='figure-{escape(file.stem)}'><h3>{escape(str(title))}</h3>"
        f"<div class='plot' style='height:{layout['height']:.0f}px' role='img' "
        f"aria-label='{escape(str(title))}'></div>"
        f"<script type='application/json'>{content}</script>"
        f"<figcaption>{escape(str(meta.get('caption', ''))).replace('n = ', 'n&nbsp;=&nbsp;')}</figcaption></figure>"
    )


def _headroom(layout: Mapping[str, Any]) -> int:
    """The height that the title took and that the page does not need."""
    return max(0, int((layout.get("margin") or {}).get("t", _TOP)) - _TOP)


# ------------------------------------------------------------------------------------------ samples


def _shown(rows: pd.DataFrame, result: Mapping[str, Any]) -> pd.DataFrame:
    """The rows on test lines (else on dev lines), at the reported layer and strength where the
    rows have it."""
    found = rows[rows["split"] == "test"]
    found = found if len(found) else rows
    at = (found["layer"] == result.get("layer")) & (found["strength"] == result.get("strength"))
    return found[at] if at.any() else found


def _block(name: str, result: Mapping[str, Any], rows: pd.DataFrame, *, first: bool) -> str:
    kind = "Control: " if name in CONTROLS else ""
    about = (
        f"{setting(result)}{'; ' if setting(result) else ''}{rows['joint'].sum():,} of "
        f"{len(rows):,} outputs joint"
    )
    good = _sampled(rows[rows["joint"].astype(bool)])
    bad = _sampled(rows[~rows["joint"].astype(bool)])
    return (
        f"<details{' open' if first else ''}><summary>{kind}{escape(readable(name))}<span>{about}</span></summary>"
        "<div class='samples'><div class='good'><h4>In the language, and saying its own "
        f"thing</h4>{good}</div>"
        f"<div class='bad'><h4>Failures</h4>{bad}</div></div></details>"
    )


def _sampled(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "<p class='note'>There is none.</p>"
    drawn = rows.sample(min(_SAMPLES, len(rows)), random_state=_SEED)
    return f"<ol>{''.join(_sample(row) for row in drawn.to_dict('records'))}</ol>"


def _sample(row: Mapping[Any, Any]) -> str:
    output = str(row["output"])
    text = (
        f"<p class='output' lang='{escape(str(row['language']))}' dir='auto'>{escape(output)}</p>"
    )
    reference = (
        f"<p class='reference' dir='auto'>{escape(str(row['reference']))}</p>"
        if row.get("reference")
        else ""
    )
    return (
        f"<li><p class='source'>{escape(str(row['prompt']).strip())}</p>"
        f"{text if output.strip() else '<p class=output><i>(nothing)</i></p>'}{reference}"
        f"<p class='judged'>asked for {named(str(row['target']))} · {_judged(row)}</p></li>"
    )


def _judged(row: Mapping[Any, Any]) -> str:
    """The language that the output is in, and which of the two conditions it meets."""
    if row["language"] == "none":
        return "identified as no language"
    said = f"identified as {named(str(row['language']))}"
    if row["joint"]:
        return f"{said} · nearest to its own reference"
    if row["in_language"]:
        return f"{said} · nearer to another sentence"
    return f"{said} · its own thing, in the wrong language" if row.get("relevant") else said


# ------------------------------------------------------------------------------------------ account


def _flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def _facts(mapping: Mapping[str, Any]) -> str:
    """Nested keys and their values, a line each; hashes in a fixed width."""
    lines = []
    for key, value in _flat(mapping).items():
        text = _plain(value)
        digest = ' class="hash"' if len(text) >= _HASH_LENGTH and " " not in text else ""
        lines.append(
            "<tr><th "
            f"scope='row'>{escape(key.replace('_', ' '))}</th><td{digest}>{escape(text)}</td></tr>"
        )
    return f"<div class='scroll'><table class='facts'><tbody>{''.join(lines)}</tbody></table></div>"


def _grid(mapping: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each method, a column for each thing that is said of one."""
    columns = list(dict.fromkeys(key for item in mapping.values() for key in item))
    heads = "".join(
        f"<th scope='col'>{escape(column.replace('_', ' '))}</th>" for column in columns
    )
    lines = [
        f"<tr><th scope='row'>{escape(readable(name))}</th>"
        + "".join(f"<td>{escape(_plain(item.get(column)))}</td>" for column in columns)
        for name, item in mapping.items()
    ]
    return (
        "<div class='scroll' tabindex='0'><table><thead><tr><th "
        f"scope='col'>Method</th>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _folded(title: str, mapping: Any, *, by_method: bool = False) -> str:
    if not isinstance(mapping, Mapping) or not mapping:
        return ""
    regular = by_method and all(isinstance(value, Mapping) for value in mapping.values())
    return f"<details><summary>{escape(title)}</summary>{_grid(mapping) if regular else _facts(mapping)}</details>"


def _minutes(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes ({seconds:.0f} s)"


def _gigabytes(size: Any) -> str | None:
    return f"{size / 1e9:.2f} GB" if isinstance(size, int | float) else None
