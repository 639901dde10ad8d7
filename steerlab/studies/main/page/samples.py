"""Sample outputs of every method and control, drawn by a fixed seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.html.formats import language_name
from steerlab.studies.main.page.values import controls, methods, setting

SEED, COUNT = 0, 5


@dataclass(frozen=True)
class Sample:
    """One output beside its prompt and its reference, and what was judged of it."""

    prompt: str
    output: str
    language: str
    reference: str
    code: str
    target: str
    judged: str


@dataclass(frozen=True)
class Block:
    """The samples of one method or control: those that are joint (`good`) and those that are
    not."""

    key: str
    name: str
    control: bool
    setting: str
    joint: int
    outputs: int
    good: list[Sample]
    bad: list[Sample]


def draw_samples(summary: Mapping[str, Any], rows: pd.DataFrame) -> list[Block]:
    """Up to `COUNT` joint outputs and `COUNT` failures of every method and control that has
    rows."""
    blocks = []
    for name in [*methods(summary), *controls(summary)]:
        result = summary["results"][name]
        own = _reported(rows[rows["method"] == name], result)
        if own.empty:
            continue
        joint = own["joint"].astype(bool)
        block = Block(
            key=name,
            name=readable(name),
            control=name in CONTROLS,
            setting=setting(result),
            joint=int(own["joint"].sum()),
            outputs=len(own),
            good=_drawn(own[joint]),
            bad=_drawn(own[~joint]),
        )
        blocks.append(block)
    return blocks


def _reported(rows: pd.DataFrame, result: Mapping[str, Any]) -> pd.DataFrame:
    """The rows on test lines (else on dev lines), at the reported layer and strength where the
    rows have it."""
    test = rows[rows["split"] == "test"]
    rows = test if len(test) else rows
    at = (rows["layer"] == result.get("layer")) & (rows["strength"] == result.get("strength"))
    return rows[at] if at.any() else rows


def _drawn(rows: pd.DataFrame) -> list[Sample]:
    if rows.empty:
        return []
    drawn = rows.sample(min(COUNT, len(rows)), random_state=SEED)
    return [_sample(row) for row in drawn.to_dict("records")]


def _sample(row: Mapping[Any, Any]) -> Sample:
    return Sample(
        # Examples, which are the same for every row, end in an empty line.
        prompt=str(row["prompt"]).strip().rpartition("\n\n")[2],
        output=str(row["output"]),
        language=str(row["language"]),
        reference=str(row["reference"]) if row.get("reference") else "",
        code=str(row["target"]),
        target=language_name(str(row["target"])),
        judged=_judged(row),
    )


def _judged(row: Mapping[Any, Any]) -> str:
    """The language that the output is in, and which of the two conditions it meets."""
    if row["language"] == "none":
        return "identified as no language"
    identified = f"identified as {language_name(str(row['language']))}"
    if row["joint"]:
        return f"{identified} · nearest to its own reference"
    if row["in_language"]:
        return f"{identified} · nearer to another sentence"
    if row.get("relevant"):
        return f"{identified} · own sentence recognised, in the wrong language"
    return identified
