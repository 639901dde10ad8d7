"""Write docs/faithful.md, what `joint` and `faithful` say of texts whose worth is known:
`python experiments/faithful.py`.

Hard negatives of the packaged corpus' references are scored as outputs are: on `dev` they give the
thresholds of `scores.faithful`, on `test` the table of the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence
from steerlab.core.corpus import Corpus
from steerlab.scores import faithful
from steerlab.scores.chrf_pairs import chrf_pairs
from steerlab.scores.faithful import copied, letters
from steerlab.scores.hard_negatives import KINDS, Sentence, make
from steerlab.scores.judges import Retrieval
from steerlab.scores.langid import identifier
from steerlab.scores.words import order, words
from steerlab.sweeps.scoring import score_rows

PAGE = Path(__file__).parents[1] / "docs" / "faithful.md"
SOURCE = "en"
# The threshold, what it is compared with, the hard negative that it is there for, and on which side
# of it a text passes.
THRESHOLDS = (
    ("OVERLAP", "overlap", "one word of it, then another sentence", "above"),
    ("ORDER", "order", "its words shuffled", "above"),
    ("SHORTEST", "length", "its first half", "above"),
    ("LONGEST", "length", "the source, then the reference", "below"),
    ("COPIED", "copied", "the source, then the reference", "below"),
)
PASSING = 0.05  # of the hard negatives may pass the threshold that is there for them


def negatives(texts: Corpus, split: str, *, seed: int = 0) -> pd.DataFrame:
    """Rows as a sweep has them, whose outputs are the hard negatives of a split's references.

    The unrelated sentences are of another split, so that they are not among the lines that an
    output's own is looked for in: the hardest case.
    """
    rng = np.random.default_rng(seed)
    lines, others = texts.split(split), texts.split("estimate")
    rows = []
    for lang in (lang for lang in texts.langs if lang != SOURCE):
        for index, reference in enumerate(lines[lang]):
            other = others[lang][rng.integers(len(others))]
            sentence = Sentence(reference, lines[SOURCE][index], other, lang)
            made = {kind: make(kind, sentence, rng) for kind in KINDS}
            rows += [
                {
                    "kind": kind,
                    "output": text,
                    "question": sentence.source,
                    "prompt": sentence.source + "\n",
                    "reference": reference,
                    "source": SOURCE,
                    "target": lang,
                    "sentence": lines.numbers[index],
                    "split": split,
                    "truncated": False,
                }
                for kind, text in made.items()
                if text is not None
            ]
    return pd.DataFrame(rows)


def measures(rows: pd.DataFrame) -> pd.DataFrame:
    """What the thresholds are compared with, of each row."""
    pairs = list(zip(rows["output"], rows["reference"], rows["question"], strict=True))
    return pd.DataFrame(
        {
            "kind": rows["kind"],
            "overlap": chrf_pairs(rows["output"].tolist(), rows["reference"].tolist()).overlap,
            "order": [order(words(text), words(reference)) for text, reference, _ in pairs],
            "length": [letters(text) / letters(reference) for text, reference, _ in pairs],
            "copied": [copied(text, reference, source) for text, reference, source in pairs],
        }
    )


def passing(measured: pd.DataFrame) -> pd.DataFrame:
    """For each threshold, the value at which a twentieth of its hard negatives would pass, and the
    share that passes the one in use."""
    table = []
    for name, measure, kind, side in THRESHOLDS:
        values = measured.loc[measured["kind"] == kind, measure].to_numpy()
        used = getattr(faithful, name)
        # Only the order's own value fails: it takes few values, and half is a common one.
        passes = values <= used if side == "below" else values >= used
        if name == "ORDER":
            passes = values > used
        edge = np.quantile(values, PASSING if side == "below" else 1 - PASSING)
        table.append(
            {
                "threshold": name,
                "of": measure,
                "against": kind,
                "n": len(values),
                "edge": float(edge),
                "used": float(used),
                "passing": float(passes.mean()),
            }
        )
    return pd.DataFrame(table)


def scored(rows: pd.DataFrame, texts: Corpus) -> pd.DataFrame:
    """The rows with every column that a sweep would give them."""
    judges = {split: Retrieval(texts.split(split)) for split in rows["split"].unique()}
    return score_rows(
        rows.reset_index(drop=True),
        identifier=identifier(),
        judge_of=judges.__getitem__,
        lines_of=texts.split,
    )


def by_kind(rows: pd.DataFrame, scores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each kind of text, its number and each score's mean with the interval by sentence."""
    found = {}
    for kind, part in rows.groupby("kind", sort=False):
        sentences = part["sentence"].to_numpy()
        found[str(kind)] = {"n": len(part)} | {
            score: by_sentence(
                part[score].to_numpy(float), sentences, share=part[score].dtype == bool
            )
            for score in scores
        }
    return found
