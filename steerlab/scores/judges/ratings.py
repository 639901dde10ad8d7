"""Outputs that were rated by reading them, kept with the package, and how far scores agree with
the ratings."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.analysis.intervals import named, statistic_by_sentence
from steerlab.core.errors import SteerlabError
from steerlab.scores.judges.agreement import kappa, spearman

FOLDER = Path(__file__).parents[2] / "data" / "ratings"
COLUMNS = (
    *("id", "model", "form", "source", "target", "sentence", "question", "reference", "output"),
    *("rating", "rater"),
)
# Says nothing of the sentence in the target language, a part of it, the same.
RATINGS = (0, 1, 2)


def ratings(folder: Path = FOLDER) -> pd.DataFrame:
    """The rated outputs of all files `*.jsonl` of a folder, by default those of the package.

    Each has the columns of `COLUMNS`, among them the model, its prompt form, the number of the
    sentence in the packaged corpus, the rating and whose it is; those of the package have `meaning`
    too, the rating in whatever language the output is in. No file, a column that is missing
    and a rating other than 0, 1 and 2 raise `SteerlabError`.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise SteerlabError(
            f"there are no ratings in {folder}; draw outputs with experiments/ratings.py, and rate "
            "them"
        )
    parts = []
    for file in files:
        # At line feeds alone, since an output may hold U+2028 and the like.
        lines = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
        part = pd.DataFrame(lines)
        if missing := [name for name in COLUMNS if name not in part]:
            raise SteerlabError(f"{file} lacks {', '.join(missing)}; keep ratings with ratings.py")
        wrong = part.loc[~part["rating"].isin(RATINGS), "rating"].tolist()
        if wrong:
            raise SteerlabError(f"{file} has a rating of {wrong[0]!r}; the ratings are {RATINGS}")
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def agreement_with_ratings(
    rows: pd.DataFrame, scores: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How far each score agrees with the ratings: a row for each, over the rows that have it.

    - `n`: how many outputs have the score; `sentences`: of how many sentences.
    - `spearman`: the rank correlation with the rating.
    - `auc_part`, `auc_same`: how often a pair of outputs of which one is rated 1 or more, or 2, and
      the other less, has the former's score above the latter's; ties count half.
    - `kappa_part`, `kappa_same`: for a score that is true or false, Cohen's kappa with the same two
      halves of the ratings; NaN for others.
    - `share`: for such a score, how many outputs it passes; `share_part` and `share_same`: how many
      the rater does.

    Each but the shares and counts has its interval of 95 % by resampling sentences, `_low` and
    `_high`.

    Args:
        rows: rated outputs with their scores.
        scores: names of columns.
        resamples: how many times sentences are drawn.
        seed: decides the draws.
    """
    table = []
    for score in scores:
        values = rows[score].to_numpy(dtype=float)
        read = np.isfinite(values)
        values = values[read]
        given = rows["rating"].to_numpy(dtype=float)[read]
        sentences = rows["sentence"].to_numpy()[read]
        binary = set(np.unique(values)) <= {0.0, 1.0}
        line: dict[str, Any] = {
            "score": score,
            "n": len(values),
            "sentences": len(set(sentences.tolist())),
        }
        line |= {"share": values.mean() if binary else np.nan}
        line |= {"share_part": (given >= 1).mean(), "share_same": (given == 2).mean()}
        measures: dict[str, tuple[Callable[..., float], NDArray[Any]]] = {
            "spearman": (spearman, given)
        }
        for name, truth in (("part", given >= 1), ("same", given == 2)):
            measures[f"auc_{name}"] = (auc, truth)
            if binary:
                measures[f"kappa_{name}"] = (kappa, truth.astype(float))
        for name, (statistic, other) in measures.items():
            line |= named(
                name,
                statistic_by_sentence(
                    statistic, (values, other), sentences, resamples=resamples, seed=seed
                ),
            )
        table.append(line)
    return pd.DataFrame(table)


def auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The chance that one of the true has a higher score than one of the false; ties count half.

    It is the area under the ROC curve, by ranks (Mann and Whitney 1947); NaN where all are true or
    none is.
    """
    from scipy.stats import rankdata  # here, as importing it takes long

    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    above = ranks[truth].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))
