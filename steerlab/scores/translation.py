"""ACC × BLEU: how often an output is in its target, and how near such outputs come to their
references.

As Zhong et al. (arXiv 2510.07213) and, after them, LangFIR (arXiv 2604.03532) score steering
towards a translation.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.scores.langid import Identifier

__all__ = ["acc_bleu", "bleu", "doubled", "tokenizer"]

_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab"}  # else 13a, which these need spaces for:
_SPACELESS = ("th", "bo")
_MECAB = ("MeCab", "ipadic")  # of the extra sacrebleu[ja]
POOLED = "all"


def acc_bleu(
    rows: pd.DataFrame,
    *,
    identifier: Identifier | None = None,
    threshold: float = 0.0,
    by: str = "target",
) -> pd.DataFrame:
    """ACC, BLEU and their product for each value of `by` and over `all`, with 95 % intervals by
    resampling sentences.

    `rows`: `output`, `reference`, `target`, `sentence`, and `language` if no identifier is given.
    `acc` = share of rows in the target language, each row counted once; with an identifier its
    probability has to reach `threshold` (.5 in the papers, with lid.176). `bleu` = mean sentence
    BLEU (0 to 100) of these rows only, NaN where there are none. `product` = acc · bleu, which is
    the mean BLEU with 0 for the other rows, and is resampled as such. `tokenizer` names
    sacrebleu's. Over `all`, rows of all values are pooled, and acc and bleu averaged before they
    are multiplied.

    The notebook that Zhong et al. released counts each success twice, so that its ACC is 2a / (1 +
    a): `doubled`.
    """
    need_columns(rows, "acc_bleu", "output", "reference", "target", "sentence", by)
    right = succeeded(rows, identifier, threshold)
    scored = np.zeros(len(rows))
    for iso, part in rows[right].assign(place=np.flatnonzero(right)).groupby("target"):
        scored[part["place"]] = bleu(part["output"].tolist(), part["reference"].tolist(), str(iso))
    told = pd.DataFrame(
        {
            by: rows[by],
            "target": rows["target"],
            "sentence": rows["sentence"],
            "acc": right,
            "bleu": scored,
        }
    )
    parts = [*told.groupby(by, sort=False), (POOLED, told)]
    return pd.DataFrame([{by: name} | _line(part) for name, part in parts])


def _line(part: pd.DataFrame) -> dict[str, Any]:
    right = part[part["acc"]]
    line: dict[str, Any] = {"n": len(part), "successes": len(right)}
    for name, rows, column in (
        ("acc", part, "acc"),
        ("bleu", right, "bleu"),
        ("product", part, "bleu"),
    ):
        found = (math.nan,) * 3
        if len(rows):
            found = by_sentence(rows[column].to_numpy(float), rows["sentence"].to_numpy())
        line |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
    return line | {
        "tokenizer": " ".join(sorted({tokenizer(iso) for iso in part["target"].unique()}))
    }


def succeeded(
    rows: pd.DataFrame, identifier: Identifier | None, threshold: float
) -> Bool[np.ndarray, " row"]:
    """Whether each row's output is in its target, with a probability of `threshold` or more,
    `[row]`."""
    if not 0 <= threshold <= 1:
        raise SteerlabError(f"the threshold is a probability from 0 to 1, not {threshold}")
    targets = rows["target"].to_numpy()
    if identifier is None:
        if threshold:
            raise SteerlabError(
                f"rows hold no probabilities; give identifier= for the threshold {threshold}, or "
                "leave it"
            )
        need_columns(rows, "acc_bleu without an identifier", "language")
        return np.asarray(rows["language"].to_numpy() == targets, dtype=bool)
    named, chances = identifier.weigh(rows["output"].tolist())
    return (np.array(named, dtype=object) == targets) & (chances >= threshold)


def bleu(
    outputs: Sequence[str], references: Sequence[str], iso: str
) -> Float[np.ndarray, " output"]:
    """Sacrebleu's sentence BLEU of each output, 0 to 100, `[output]`, with the language's
    tokenizer.

    With effective order: a sentence of fewer than four words is scored on the n-grams that it has.
    """
    if len(outputs) != len(references):
        raise SteerlabError(
            f"BLEU needs a reference for each output; {len(outputs)} outputs, {len(references)} "
            "given"
        )
    metric = _metric(tokenizer(iso))
    scores = [metric.sentence_score(a, [b]).score for a, b in zip(outputs, references, strict=True)]
    return np.array(scores, dtype=np.float64)


def tokenizer(iso: str) -> str:
    """Sacrebleu's tokenizer for a language: `zh`, `ja-mecab` (`char` where MeCab is not installed),
    or `13a`.

    Thai and Tibetan, which have no spaces and no tokenizer there, have `char`.
    """
    name = _TOKENIZERS.get(language(iso).iso, "char" if iso in _SPACELESS else "13a")
    return "char" if name == "ja-mecab" and not all(map(find_spec, _MECAB)) else name


@lru_cache(maxsize=4)
def _metric(tokenize: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, tokenize=tokenize)


def doubled(acc: float) -> float:
    """The ACC that a notebook which counts each success twice reports for a share `acc`: 2a / (1
    + a)."""
    if not 0 <= acc <= 1:
        raise SteerlabError(f"a share is from 0 to 1, not {acc}; divide percents by 100")
    return 2 * acc / (1 + acc)
