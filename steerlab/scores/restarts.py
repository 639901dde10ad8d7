"""Answers that begin anew: how often a text says that it went wrong and starts again."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError

# Explicit words of a new attempt at the beginning of a sentence or line. A plain "no" or "but" is
# none: what is counted is an answer that takes itself back.
_AGAIN = (
    r"wait\b(?=[,.! —-])",
    r"(?:oh,? |hm+,? |no,? )?(?:i'm |i am )?sorry,? (?:let me|i (?:got|went|was))",
    r"(?:no,? |actually,? |okay,? |ok,? )?let me (?:try|start|begin|rephrase|correct|redo|answer)",
    r"(?:i )?apologi[sz]e\b",
    r"my apologies\b",
    r"scratch that\b",
    r"(?:that|this) (?:is|was) (?:not right|wrong|off[- ]topic|not what)",
    r"i (?:got|went) (?:off[- ]topic|off[- ]track|side-?tracked|distracted|carried away)",
    r"(?:back to|returning to) (?:the|your) (?:question|topic)",
    r"(?:starting|start|trying|try) (?:over|again)\b",
)
RESTART = re.compile(rf"(?:^|(?<=[.!?…\n])\s*)(?:{'|'.join(_AGAIN)})", re.IGNORECASE)
_SAME = re.compile(r"\b(\w+)(?:\W+\1\b){4,}", re.IGNORECASE)  # a word five times in a row

Judge = Callable[[str], Any]


def attempts(text: str) -> list[str]:
    """The attempts of an answer: split where it says that it begins anew (English only)."""
    cuts = [match.start() for match in RESTART.finditer(text)]
    bounds = [0, *(cut for cut in cuts if text[:cut].strip()), len(text)]
    parts = [text[a:b].strip() for a, b in pairwise(bounds)]
    return [part for part in parts if part] or [text]


def restarts(
    texts: Sequence[str],
    *,
    judge: Judge | None = None,
    score: Callable[[str], float] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """How many answers begin anew, and how many become better by it, with exact intervals.

    Rows: `multi-attempt` (by words), with a judge `confirmed` (of those, what it confirms, over all
    answers), with scores `recovered` (its last attempt scores higher than its first, over all
    answers: the ESR rate) and `improved` (the same over those of several attempts). Columns: count,
    of, rate, low, high, by Clopper and Pearson. Answers that say one word five times in a row are
    left out; `attrs["degenerate"]` counts them. A zero out of n has an upper end too: about 3/n.
    Source: endogenous steering resistance (arXiv 2602.06941), whose judge splits the answers; a
    replication's judge missed what words found, so that words come first here.

    Args:
        texts: the answers.
        judge: from an answer that the words found to whether it does begin anew.
        score: from an attempt to a number, such as how well it keeps to the question.
        level: of the intervals.
    """
    given = need_texts(texts, "what counts restarts")
    kept = [text for text in given if not _SAME.search(text)]
    if not kept:
        raise SteerlabError(f"all {len(given)} answers repeat one word five times: none is left")
    several = [text for text in kept if len(attempts(text)) > 1]
    rows = [("multi-attempt", len(several), len(kept))]
    if judge is not None:
        several = [text for text in several if judge(text)]
        rows.append(("confirmed", len(several), len(kept)))
    if score is not None:
        split = [attempts(text) for text in several]
        better = sum(float(score(each[-1])) > float(score(each[0])) for each in split)
        rows += [("recovered", better, len(kept)), ("improved", better, len(several))]
    table = pd.DataFrame(
        [(name, count, of, *exact(count, of, level=level)) for name, count, of in rows],
        columns=["measure", "count", "of", "rate", "low", "high"],
    )
    table.attrs["degenerate"] = len(given) - len(kept)
    return table


def exact(count: int, of: int, *, level: float = 0.95) -> tuple[float, float, float]:
    """A rate and its exact interval (Clopper and Pearson 1934); of nothing, NaN from 0 to 1."""
    if not of:
        return float("nan"), 0.0, 1.0
    interval = binomtest(count, of).proportion_ci(level, method="exact")
    return count / of, float(interval.low), float(interval.high)
