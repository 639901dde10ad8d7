"""The figures of docs/gemma.md: joint by method, and by layer and target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from gemma_tables import NAMES, Record

from steerlab import figures
from steerlab.figures.style import CONTROLS, GREY, PALETTE, finish

IMAGES = Path("docs/images")
SHOWN = (
    "unsteered",
    "random isotropic",
    "random covariance",
    "shuffled",
    "wrong",
    "prompt",
    "diffmean",
    "fewshot",
)


def draw(records: Mapping[str, Record]) -> None:
    """Draw what there are records for; it takes a Chrome or Chromium."""
    pictures = {}
    if "run" in records:
        pictures[IMAGES / "gemma-headline.svg"] = figures.paper(
            headline(records["run"]), width=150, height=78
        )
    if "depth" in records:
        pictures[IMAGES / "gemma-depth.svg"] = figures.paper(
            depth(records["depth"]), width=180, height=105
        )
    figures.draw(pictures, force=True)


def headline(run: Record) -> go.Figure:
    """Joint of a few methods and controls with their intervals, the strongest at the top."""
    names = [name for name in SHOWN if name in run["results"]]
    triples = [run["results"][name]["joint"] for name in names]
    figure = go.Figure()
    for name, (value, low, high) in zip(names, triples, strict=True):
        figure.add_scatter(
            x=[value],
            y=[NAMES[name]],
            error_x={"array": [high - value], "arrayminus": [value - low], "thickness": 1.5},
            marker={"size": 9, "color": GREY if name in CONTROLS else PALETTE[0]},
            mode="markers+text",
            text=[f"{value:.2f}"],
            textposition="top center",
            showlegend=False,
        )
    figure.update_xaxes(range=[-0.03, 1.03], title_text="right language, own sentence recognised")
    figure.update_yaxes(range=[-0.5, len(names) - 0.2])  # room for the uppermost number
    caption = f"n = {run['n_outputs']} outputs each, {run['n_sentences']} test sentences"
    return finish(figure, title="Joint by method", caption=caption, height=320)


def depth(record: Record) -> go.Figure:
    """Joint by layer and target on test, each layer at the strength that dev chose for it."""
    return figures.heatmap(depth_rows(record), note="each layer at its own strength")


def depth_rows(record: Record) -> pd.DataFrame:
    """A row for each output of the job `depth` on test: layer, target, sentence, joint."""
    rows: list[dict[str, Any]] = [
        {"layer": int(layer), "target": target, "sentence": sentence, "joint": verdict == "1"}
        for layer, row in record["layers"].items()
        for target, verdicts in row["by target"].items()
        for sentence, verdict in enumerate(verdicts)
    ]
    return pd.DataFrame(rows)
