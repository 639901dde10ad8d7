"""What a run found at each layer and strength: the map that the explorer shows beside a setting."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json, read_table
from steerlab.edits import OPERATORS
from steerlab.estimate import VARIANTS
from steerlab.sweeps.folder import part
from steerlab.sweeps.methods import METHODS

_HASH = re.compile(r"-[0-9a-f]{12}$")  # behind a name: of all that decided the directions
EVERY = ""  # in the place of a target: all of them together
_COLUMNS = ("method", "estimator", "operator", "layer", "strength", "target", "split", "joint")


@dataclass(frozen=True)
class Run:
    """What the explorer takes from a run's folder.

    Args:
        folder: the folder.
        model: the name of its model.
        corpus: the folder of its corpus; None for the sentences in the package.
        options: how the model was loaded, as `load` takes it.
        prompt: the form of its prompts.
        source: the language of its prompts.
        directions: its directions, by estimator.
        files: where they lie.
        scores: of each method: what it is, and the mean of `joint` by layer and strength.
    """

    folder: Path
    model: str
    corpus: str | None
    options: dict[str, str]
    prompt: str
    source: str
    directions: dict[str, Directions]
    files: dict[str, Path]
    scores: list[dict[str, Any]] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read the folder of a run or of a sweep; raises where it holds none, or no directions."""
    file = folder / "manifest.json"
    if not file.is_file():
        raise SteerlabError(
            f"{folder} holds no run: there is no manifest.json; give the folder that `steerlab "
            "run` or `steerlab sweep` wrote, or a model by --model"
        )
    manifest = read_json(file)
    settings = part(file, manifest, "settings")
    model = settings.get("model") or part(file, manifest, "model").get("name")
    if not isinstance(model, str):
        raise SteerlabError(f"{file} does not say which model was run; run again")
    files = _files(folder)
    if not files:
        raise SteerlabError(
            f"{folder} has no directions yet; finish the run, by the same command, and come back"
        )
    keys = ("dtype", "device", "revision")
    return Run(
        folder=folder,
        model=model,
        corpus=settings.get("corpus"),
        options={key: str(settings[key]) for key in keys if settings.get(key)},
        prompt=str(part(file, manifest, "prompt").get("name") or settings.get("prompt") or "line"),
        source=str(settings.get("source") or "en"),
        directions={name: Directions.load(path) for name, path in files.items()},
        files=files,
        scores=_scores(folder, set(files)),
    )


def _files(folder: Path) -> dict[str, Path]:
    """The directions in a folder by the estimator that made them; of several the newest."""
    known = {name.replace(" ", "-"): name for name in (*VARIANTS, *METHODS)}
    found: dict[str, Path] = {}
    files = (folder / "directions").glob("*.safetensors")
    for path in sorted(files, key=lambda path: (path.stat().st_mtime, path.name)):
        stem = _HASH.sub("", path.stem)
        found[known.get(stem, stem)] = path
    return dict(sorted(found.items(), key=lambda item: (item[0] != "diffmean", item[0])))


def _scores(folder: Path, estimators: set[str]) -> list[dict[str, Any]]:
    """The map of each method whose directions are here; none where there are no rows yet."""
    file = folder / "rows.parquet"
    if not file.is_file():
        return []
    rows = read_table(file)
    if any(column not in rows.columns for column in _COLUMNS):
        return []
    kept = rows[rows["estimator"].isin(estimators) & rows["operator"].isin(OPERATORS)]
    if "dev" in set(kept["split"]):  # the grid is of dev; on test there is one cell
        kept = kept[kept["split"] == "dev"]
    maps = []
    for (method, estimator, operator), own in kept.groupby(
        ["method", "estimator", "operator"], sort=False
    ):
        whole = OPERATORS[str(operator)].whole
        cells = {EVERY: _cells(own)} | {
            str(target): _cells(part_of) for target, part_of in own.groupby("target")
        }
        maps.append(
            {
                "method": method,
                "estimator": estimator,
                "operator": operator,
                "whole": whole,
                "split": str(own["split"].iloc[0]),
                "layers": sorted(map(int, own["layer"].unique())),
                "strengths": sorted(map(float, own["strength"].unique())),
                "cells": cells,
            }
        )
    return maps


def _cells(rows: pd.DataFrame) -> list[list[float]]:
    """[layer, strength, mean of joint, number of outputs] of each setting."""
    table = rows.groupby(["layer", "strength"])["joint"].agg(["mean", "size"]).reset_index()
    return [
        [int(layer), float(strength), round(float(mean), 4), int(size)]
        for layer, strength, mean, size in table.to_numpy()
    ]


def best(maps: list[dict[str, Any]], estimator: str, operator: str) -> tuple[int, float] | None:
    """The layer and strength with the highest mean over all targets; None without a map."""
    for each in maps:
        if (each["estimator"], each["operator"]) == (estimator, operator):
            layer, strength, *_ = max(each["cells"][EVERY], key=lambda cell: cell[2])
            return int(layer), float(strength)
    return None
