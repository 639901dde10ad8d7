"""The page of a sweep or of CLaS-Bench: one file, like that of the main job."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from steerlab.analysis.choices import ranking, whole
from steerlab.core.errors import SteerlabError
from steerlab.core.files import explained, read_json, read_table, write_text
from steerlab.figures import heatmap
from steerlab.studies.html import environment
from steerlab.studies.html.figures import Figure, drawn
from steerlab.studies.html.outputs import NEEDED, packed
from steerlab.studies.report.tables import (
    Table,
    agreement,
    both_ways,
    clas_scores,
    reported,
    scores,
)

FIGURES = 8  # heatmaps of methods: more are read on the map


def write_rows_report(folder: Path) -> Path:
    """Read the rows of a sweep or of CLaS-Bench and write `report.html` beside them."""
    rows = _rows(folder)
    summary = read_json(folder / "summary.json")
    clas = (folder / "scores.csv").is_file()
    about = read_json(folder / ("manifest.json" if clas else "sweep.json"))
    if clas and not summary.get("scores"):
        raise SteerlabError(
            f"{folder / 'summary.json'} has no scores; run `steerlab clas` to its end"
        )
    parts, how = reported(rows)
    model = str(summary.get("model") or _model(about))
    page = (
        environment(__package__)
        .get_template("rows.html.jinja")
        .render(
            title=f"{'CLaS-Bench' if clas else 'A sweep'} on {model}",
            clas=clas,
            byline=_byline(rows),
            targets=sorted(rows["target"].unique()),
            how=how,
            results=clas_scores(summary) if clas else scores(parts, kind="scores"),
            effects=_beside(parts, rows),
            agreement=agreement(parts),
            asymmetry=both_ways(parts),
            figures=_figures(rows, parts, clas=clas),
            outputs=packed(rows),
            about=_flat(about),
            # Safe unescaped: a script of the installed plotly, with nothing of the run in it.
            plotly=Markup(get_plotlyjs()),
        )
    )
    file = folder / "report.html"
    with explained(file):
        write_text(file, page)
    return file


def _rows(folder: Path) -> pd.DataFrame:
    file = folder / "rows.parquet"
    try:
        rows = read_table(file)
    except FileNotFoundError as error:
        raise SteerlabError(
            f"there is no {file}; a report needs finished rows: run the same command to its end"
        ) from error
    if missing := [name for name in NEEDED if name not in rows.columns]:
        raise SteerlabError(
            f"{file} lacks the columns {', '.join(missing)}; something else wrote it: run again"
        )
    if rows.empty:
        raise SteerlabError(f"{file} has no rows; there is nothing to report")
    return rows


def _model(about: Mapping[str, Any]) -> str:
    """The name of the model in what a folder says of itself."""
    for key in ("model", "grid", "settings"):
        found = about.get(key)
        if isinstance(found, str):
            return found
        if isinstance(found, Mapping) and (name := found.get("name") or found.get("model")):
            return str(name)
    return "a model"


def _byline(rows: pd.DataFrame) -> str:
    counts = {
        "output": len(rows),
        "method": rows["method"].nunique(),
        "sentence": rows["sentence"].nunique(),
        "pair of languages": len(rows[["source", "target"]].drop_duplicates()),
    }
    plural = {"pair of languages": "pairs of languages"}
    return " · ".join(
        f"{count:,} {name if count == 1 else plural.get(name, name + 's')}"
        for name, count in counts.items()
    )


def _beside(parts: Mapping[str, pd.DataFrame], rows: pd.DataFrame) -> Table:
    """What became of the outputs and what the edit cost, the unsteered model first where it was
    run."""
    unsteered = {name: part for name, part in parts.items() if name == "unsteered"}
    others = {name: part for name, part in parts.items() if name != "unsteered"}
    return scores({**unsteered, **others}, kind="outputs")


def _figures(rows: pd.DataFrame, parts: Mapping[str, pd.DataFrame], *, clas: bool) -> list[Figure]:
    """A heatmap for each method: by layer and language at its best strength, or by the two
    languages of a pair."""
    found = []
    several = rows["source"].nunique() > 1
    names = [name for name in dict.fromkeys(rows["method"]) if name != "unsteered"]
    for number, method in enumerate(names[:FIGURES]):
        own = rows[rows["method"] == method]
        if clas or several:
            if method not in parts:
                continue
            figure = heatmap(parts[method], x="target", y="source", note=str(method))
        else:
            own = own[
                own["split"] == ("dev" if "dev" in set(own["split"]) else own["split"].iloc[0])
            ]
            _, strength = ranking(whole(own))[0]
            figure = heatmap(own[own["strength"] == strength], note=f"strength {strength:g}")
        found.append(drawn(f"heatmap-{number}", json.loads(str(figure.to_json()))))
    return found


def _flat(about: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """What a folder says of itself as lines of key and value."""
    lines = []
    for key, value in about.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key} · ")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append((f"{prefix}{key}", text if len(text) <= 300 else f"{text[:300]} …"))
    return lines
