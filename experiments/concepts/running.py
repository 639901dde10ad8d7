"""The rows of an experiment: outputs under an edit, counted; and what the edit costs on other text."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cases import Case
from fits import Fits

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.scores.counted import word_counts
from steerlab.scores.text import first_line
from steerlab.sweeps.decoding import Decoding, decode_rows

CHUNK = 480  # rows that are decoded and kept together
NEUTRAL = 20  # parallel sentences of a language, whose bits per byte are the cost


@dataclass(frozen=True)
class Point:
    """One setting: a method in a language, towards one concept."""

    method: str
    lang: str
    goal: str
    layer: int
    strength: float


def edit_of(case: Case, fit: Directions | None, point: Point) -> Any:
    """The edit of a point beside the one that is always on; no fit is no edit."""
    if fit is None:
        return sl.Edit(())
    [start] = [name for name in case.concepts if name != point.goal]
    return sl.add(fit.at(point.layer).between(start, point.goal), strength=point.strength)


def possible(fits: Fits, point: Point) -> bool:
    """Whether the method has a direction there: there may be no shared feature at a layer."""
    return all(
        point.layer in one.where(one.langs[1], one.langs[0])
        for one in fits[point.method][point.lang]
    )


def run(
    case: Case,
    fits: Fits,
    points: Sequence[Point],
    split: str,
    limit: int | None,
    folder: Path,
) -> pd.DataFrame:
    """A row for each point and line of the split."""
    numbers = case.numbers(split, limit)
    todo = [(point, index) for point in points for index in range(len(numbers))]
    tables = []
    for start in range(0, len(todo), CHUNK):
        part = todo[start : start + CHUNK]
        tables.append(
            _kept(
                folder, case, part, numbers, lambda part=part: _decoded(case, fits, part, numbers)
            )
        )
    return pd.concat(tables, ignore_index=True)


def _kept(
    folder: Path, case: Case, part: Sequence[tuple[Point, int]], numbers: Sequence[int], make: Any
) -> pd.DataFrame:
    """What a file of the folder holds, or what is made, and then kept there."""
    decisive: list[Any] = [case.name, case.model.fingerprint, [asdict(point) for point, _ in part]]
    decisive += [
        [numbers[index] for _, index in part],
        case.layers,
        case.new_tokens,
        case.corpus.hash,
    ]
    name = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]
    file = folder / f"{name}.parquet"
    if file.exists():
        return pd.read_parquet(file)
    folder.mkdir(parents=True, exist_ok=True)
    table: pd.DataFrame = make()
    table.to_parquet(file)
    print(f"{case.name}: {len(table)} rows", flush=True)
    return table


def _decoded(
    case: Case, fits: Fits, part: Sequence[tuple[Point, int]], numbers: Sequence[int]
) -> pd.DataFrame:
    edits: dict[Any, Any] = {}
    prompts, chosen = [], []
    for point, index in part:
        seeds = fits.get(point.method, {}).get(point.lang, [None])
        seed = index % len(seeds)
        if (point, seed) not in edits:
            edits[point, seed] = case.base(point.lang) | edit_of(case, seeds[seed], point)
        chosen.append(edits[point, seed])
        hint = ""
        if point.method == "prompt" and case.hints:
            hint = case.hints[case.concepts.index(point.goal)]
        prompts += case.prompts(point.lang, [numbers[index]], hint)
    made = decode_rows(
        case.model,
        prompts,
        chosen,
        [0] * len(prompts),
        Decoding(new_tokens=case.new_tokens, one_line=True, temperature=0.0, rows=128),
    )
    outputs = [first_line(text) for text in made["output"]]
    rows = pd.DataFrame([asdict(point) for point, _ in part])
    rows["sentence"] = [numbers[index] for _, index in part]
    rows["output"] = outputs
    rows["dose"] = made["dose"]
    counts = [
        word_counts(text, point.lang, case.kind)
        for text, (point, _) in zip(outputs, part, strict=True)
    ]
    first = np.array([count[0] for count in counts])
    second = np.array([count[1] for count in counts])
    to_second = rows["goal"].to_numpy() == case.concepts[1]
    rows["goal_words"] = np.where(to_second, second, first)
    rows["other_words"] = np.where(to_second, first, second)
    # A beginning of a sentence is named together with what follows it.
    texts = outputs if case.name == "register" else [
        f"{begins} {text}" for begins, text in zip(prompts, outputs, strict=True)
    ]  # fmt: skip
    named = sl.scores.identifier().identify(texts)
    rows["in_language"] = [lang == point.lang for lang, (point, _) in zip(named, part, strict=True)]
    rows["reached"] = rows["in_language"] & (rows["goal_words"] > rows["other_words"])
    rows["repetition"] = [sl.scores.repetition(text) for text in outputs]
    return rows


def costs(case: Case, fits: Fits, points: Iterable[Point], split: str) -> pd.DataFrame:
    """Bits per byte of other sentences under each point's edit, over those without it, a row a
    sentence."""
    by_lang: dict[str, list[Point]] = {}
    for point in points:
        if point.method in fits:
            by_lang.setdefault(point.lang, []).append(point)
    rows = []
    for lang, some in by_lang.items():
        corpus = sl.corpus(langs=[lang]).split(split).take(NEUTRAL)
        edits = [edit_of(case, fits[point.method][lang][0], point) for point in some]
        nats = sl.cross_entropy(case.model, list(corpus[lang]), [sl.Edit(()), *edits])
        ratios = (nats[1:] / nats[0]).tolist()
        for point, values in zip(some, ratios, strict=True):
            for number, ratio in zip(corpus.numbers, values, strict=True):
                rows.append({**asdict(point), "sentence": number, "cost": ratio})
    return pd.DataFrame(rows)
