"""Outputs that a page carries with it, so that a reader can go from a number to what was said."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.core.languages import code_of, language
from steerlab.figures.style import CONTROLS, readable

BUDGET = (
    700_000  # bytes of a page for outputs: plotly takes most of the six million that it may have
)
_SENTENCES = (None, 96, 48, 24, 12, 6, 3, 1, 0)  # of each cell, until they fit
_CELL = ["method", "split", "layer", "strength", "source", "target"]
_FLAGS = ("in_language", "relevant", "joint", "faithful", "echo", "loop", "truncated")
NEEDED = (*_CELL, "sentence", "output", "language", "joint", "in_language")


def packed(rows: pd.DataFrame, *, first: Sequence[str] = ()) -> dict[str, Any]:
    """The outputs of a run as text that a page's script unpacks, and how many sentences of each
    cell they are.

    Where all do not fit into `BUDGET`, the same sentences of every cell are kept, evenly spread, so
    that two methods can still be laid side by side; the numbers beside them are of all.

    Args:
        rows: one for each output, with the columns `NEEDED`.
        first: methods that come first, in this order.
    """
    for most in _SENTENCES:
        content = _content(rows, most, first)
        text = base64.b64encode(zlib.compress(_json(content), 9)).decode("ascii")
        if len(text) <= BUDGET:
            break
    return {"text": text, "sentences": content["kept"], "of": content["of"]}


def _json(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")  # half of a surrogate pair has no UTF-8


def _content(rows: pd.DataFrame, most: int | None, first: Sequence[str]) -> dict[str, Any]:
    names = [name for name in dict.fromkeys(rows["method"]) if name not in first]
    names = [*(name for name in first if name in set(rows["method"])), *names]
    texts = _Words()
    flags = [name for name in _FLAGS if name in rows.columns]
    splits = rows.groupby("split")
    sentences = {str(split): _kept(part["sentence"], most) for split, part in splits}
    cells = []
    for key, part in rows.groupby(_CELL, sort=False):
        kept = sentences[str(key[1])]
        shown = part[part["sentence"].isin(kept)].sort_values("sentence", kind="stable")
        setting = dict(zip(_CELL, (*map(_plain, key),), strict=True))
        cells.append(
            setting
            | {
                "n": len(part),
                "joint": round(float(part["joint"].mean()), 4),
                "in_language": round(float(part["in_language"].mean()), 4),
                "rows": [_row(row, flags, texts) for row in shown.to_dict("records")],
            }
        )
    langs = dict.fromkeys([*rows["source"], *rows["target"], *rows["language"]])
    return {
        "methods": [
            {"name": name, "label": readable(name), "control": name in CONTROLS} for name in names
        ],
        "langs": {lang: _name(lang) for lang in langs},
        "flags": flags,
        "texts": texts.listed,
        "cells": cells,
        "kept": max(map(len, sentences.values()), default=0),
        "of": int(rows.groupby("split")["sentence"].nunique().max()) if len(rows) else 0,
    }


def _kept(column: pd.Series, most: int | None) -> set[Any]:
    """The sentences that are shown: all, or as many as fit, evenly spread."""
    every = sorted(column.unique().tolist())
    if most is None or len(every) <= most:
        return set(every)
    return {every[int(index)] for index in np.linspace(0, len(every) - 1, most)}


class _Words:
    """Texts by their numbers: a prompt and a reference stand beside many outputs."""

    def __init__(self) -> None:
        self.listed: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: Any) -> int:
        text = text if isinstance(text, str) else ""
        if text not in self._numbers:
            self._numbers[text] = len(self.listed)
            self.listed.append(text)
        return self._numbers[text]


def _row(row: Mapping[Any, Any], flags: Sequence[str], texts: _Words) -> list[Any]:
    """[sentence, prompt, reference, output, language, flags as the bits of a number, rating]."""
    # Examples, which are the same for every row, end in an empty line.
    said = row.get("question") or str(row.get("prompt", "")).strip().rpartition("\n\n")[2]
    bits = sum(1 << index for index, name in enumerate(flags) if row[name] == 1)
    rating = row.get("rating")
    return [
        _plain(row["sentence"]),
        texts.number(said),
        texts.number(row.get("reference")),
        texts.number(row["output"]),
        str(row["language"]),
        bits,
        None if rating is None or rating != rating else round(float(rating), 3),
    ]


def _plain(value: Any) -> Any:
    """A number or a word as JSON has it."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return str(value)


def _name(lang: Any) -> str:
    return language(lang).name if code_of(lang) else "no language"
