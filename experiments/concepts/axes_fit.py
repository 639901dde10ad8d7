"""Whether an axis of words says anything of words that it was not fitted on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from axes_bench import LANGS, METHODS, Bench, Point, nouns, shuffled, subset

import steerlab as sl
from steerlab.core.word_vectors import WordVectors

FOLDS, SHUFFLES, DRAWS = 5, 10, 2000


def correlations(bench: Bench) -> pd.DataFrame:
    """Of each axis, language and layer: the correlation of score and projection over word types
    held out, beside those of shuffled scores, without what the length of a word says, and with
    whole categories held out."""
    rows = []
    for kind in ("frequency", "concreteness"):
        for lang in LANGS:
            words, scores = bench.scored(kind, lang)
            y = np.array([scores[word] for word in words.words])
            folds = np.random.default_rng(0).permutation(len(y)) % FOLDS
            own = held_out(words, scores, folds)
            dealt = [
                _correlations(held_out(words, one, folds), np.array([one[w] for w in words.words]))
                for one in (shuffled(scores, words.words, seed) for seed in range(SHUFFLES))
            ]
            length = np.array([len(word) for word in words.words], float)
            categories = _category_folds(words, lang) if kind == "concreteness" else None
            apart = None if categories is None else held_out(words, scores, categories)
            for place, layer in enumerate(words.layers):
                rows.append(
                    {
                        "kind": kind,
                        "lang": lang,
                        "layer": layer,
                        "words": len(y),
                        **_interval(own[place], y),
                        "shuffled": float(np.mean([each[place] for each in dealt])),
                        "shuffled_low": float(min(each[place] for each in dealt)),
                        "shuffled_high": float(max(each[place] for each in dealt)),
                        "length": float(np.corrcoef(length, y)[0, 1]),
                        "beyond_length": _partial(own[place], y, length),
                        "categories": np.nan
                        if apart is None
                        else float(np.corrcoef(apart[place], y)[0, 1]),
                    }
                )
    return pd.DataFrame(rows)


def held_out(
    words: WordVectors, scores: Mapping[str, float], folds: np.ndarray
) -> np.ndarray:  # [layer word]
    """The projection of each word on the axis that was fitted without its fold, in deviations of
    the others."""
    made = np.zeros((len(words.layers), len(words.words)))
    for fold in np.unique(folds):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fit = sl.estimate.axis(subset(words, others), scores, held_out=0.1)
        for place in range(len(words.layers)):
            along = (words.vectors[:, place].double() @ fit.basis[1, place, 0].double()).numpy()
            made[place, own] = (along[own] - along[others].mean()) / along[others].std()
    return made


def _category_folds(words: WordVectors, lang: str) -> np.ndarray:
    """A concrete and an abstract category together in each of eight folds."""
    table = nouns(lang).set_index("word")
    of = dict.fromkeys(table["category"])
    sides: dict[Any, list[str]] = {1: [], 0: []}
    for category in of:
        concrete = int(table[table["category"] == category]["concrete"].iloc[0])
        sides[concrete].append(category)
    fold = {name: number for side in sides.values() for number, name in enumerate(side)}
    return np.array([fold[str(table.loc[word, "category"])] for word in words.words])


def _correlations(projections: np.ndarray, y: np.ndarray) -> list[float]:
    return [float(np.corrcoef(each, y)[0, 1]) for each in projections]


def _interval(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """r, with a percentile interval of word types drawn with replacement."""
    random, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = random.integers(0, len(y), len(y))
        found.append(np.corrcoef(x[drawn], y[drawn])[0, 1])
    low, high = np.quantile(found, [0.025, 0.975])
    return {"r": float(np.corrcoef(x, y)[0, 1]), "low": float(low), "high": float(high)}


def _partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """The correlation of what a straight line of the third leaves of the other two."""
    a, b = (each - np.polyval(np.polyfit(given, each, 1), given) for each in (x, y))
    return float(np.corrcoef(a, b)[0, 1])


def across(bench: Bench) -> pd.DataFrame:
    """The axis of one language, read on the words of another: r with its interval. On words that
    the fitted language has too, and of the list on the half that was fitted on, nothing is read."""
    rows = []
    for kind in ("frequency", "concreteness"):
        for fitted in LANGS:
            for lang in LANGS:
                if fitted == lang:
                    continue
                words, scores = bench.scored(kind, lang)
                theirs = set(bench.scored(kind, fitted)[0].words)
                held = set(nouns(lang).query("half == 1")["word"])
                kept = [
                    number
                    for number, word in enumerate(words.words)
                    if word not in theirs and (kind == "frequency" or word in held)
                ]
                part = subset(words, kept)
                y = np.array([scores[word] for word in part.words])
                for place, layer in enumerate(part.layers):
                    row: dict[str, Any] = {
                        "kind": kind,
                        "fitted": fitted,
                        "lang": lang,
                        "layer": layer,
                    }
                    for method in METHODS:
                        fit = bench.axis(Point(kind, lang, method, layer, 1.0, fitted), 0)
                        unit = fit.basis[1, place, 0].double()
                        along = (part.vectors[:, place].double() @ unit).numpy()
                        found = _interval(along, y)
                        row |= found if method == "axis" else {method: found["r"]}
                    rows.append({**row, "words": len(y)})
    return pd.DataFrame(rows)
