"""The scores of decoded rows, made with the rows and from them alone.

Scores that depended on what else was run before (a cache of fluencies that grows) would make a
resumed run differ from one that was never stopped.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import language_of
from steerlab.core.parameters import needed
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.models.model import Model
from steerlab.scores.faithful import Outputs
from steerlab.scores.faithful import columns as meaning
from steerlab.scores.judges import Answer, Judge, score
from steerlab.scores.judges.places import places
from steerlab.scores.langid import Identifier

# Bits per byte of each reference, by split and target.
ReferenceBits = Callable[[str, str], Mapping[str, float]]
# A score of a user's own: from outputs, and their targets where it takes them, to numbers.
Scorer = Callable[..., Any]


BOOLEAN = (
    *("in_language", "relevant", "joint", "joint_all", "faithful", "ceiling"),
    *("echo", "loop", "empty"),
)


def score_rows(
    table: pd.DataFrame,
    *,
    identifier: Identifier,
    judge_of: Callable[[str], Judge],
    texts: Corpus | None,
) -> pd.DataFrame:
    """The table with the columns of `judges.score` and of `faithful.columns`, and `ceiling`, which
    is `in_language` of the reference.

    Args:
        table: rows that are not scored yet.
        identifier: what names the language of a text.
        judge_of: the judge of a split.
        texts: all lines of the corpus, whatever part of them was run; None for outputs that are
            not to say a sentence, which have no columns of `faithful`.
    """
    for split, rows in table.groupby("split"):
        answers = _answers(rows)
        columns = score(answers, identifier=identifier, judge=judge_of(str(split)))
        if texts is not None:
            columns |= _meaning(rows, answers, columns["in_language"], texts)
        columns["ceiling"] = _in_language(rows, identifier)
        for name, values in columns.items():
            table.loc[rows.index, name] = pd.Series(values, index=rows.index)
    return table.astype({name: bool for name in BOOLEAN if name in table})


def _meaning(
    rows: pd.DataFrame, answers: list[Answer], in_language: Any, texts: Corpus
) -> dict[str, Any]:
    """What the outputs of one split say, beside their references."""
    lines = texts.split(str(rows["split"].iloc[0]))
    outputs = Outputs(
        texts=rows["output"].tolist(),
        sources=rows["question"].tolist(),
        references=rows["reference"].tolist(),
        langs=rows["target"].tolist(),
        source_langs=rows["source"].tolist(),
        in_language=in_language.tolist(),
        truncated=rows["truncated"].tolist(),
        index=places(lines, answers),
    )
    return meaning(outputs, lines.lines, corpus=texts.lines)


def _in_language(rows: pd.DataFrame, identifier: Identifier) -> np.ndarray:
    """Whether the reference of each row is in its language by the identifier, `[row]`."""
    references = rows["reference"].drop_duplicates()
    lang_of = dict(zip(references, identifier.identify(references.tolist()), strict=True))
    found: np.ndarray = _named(rows, lang_of).to_numpy()
    return found


def _named(rows: pd.DataFrame, lang_of: Mapping[str, str]) -> pd.Series:
    """Whether the language of each reference is its target's, or none is asked for."""
    asked = rows["target"].map(language_of)
    return (rows["reference"].map(lang_of) == asked) | asked.isna()


def _answers(rows: pd.DataFrame) -> list[Answer]:
    columns = zip(
        rows.output,
        rows.prompt,
        rows.question,
        rows.sentence,
        rows.source,
        rows.target,
        strict=True,
    )
    return [Answer(*values) for values in columns]


def own_scores(table: pd.DataFrame, scorers: Mapping[str, Scorer]) -> pd.DataFrame:
    """The table with a column of each scorer.

    Raises `SteerlabError` for a scorer that fails, or does not give a number for each output.
    """
    outputs, targets = table["output"].tolist(), table["target"].tolist()
    for name, scorer in scorers.items():
        given = (outputs, targets) if _takes_targets(scorer) else (outputs,)
        try:
            values = np.asarray(list(scorer(*given)), dtype=float)
        except Exception as error:
            raise SteerlabError(
                f"the scorer {name!r} failed on {len(outputs)} outputs "
                f"({type(error).__name__}: {error}); it takes a list of strings and gives a number "
                "for each"
            ) from error
        if values.shape != (len(outputs),):
            raise SteerlabError(
                f"the scorer {name!r} gave numbers of shape {values.shape} for {len(outputs)} "
                "outputs; give one for each"
            )
        table[name] = values
    return table


def _takes_targets(scorer: Scorer) -> bool:
    """Whether a second argument may be given to a function by its place, and has no default."""
    return len(needed(scorer) or ()) > 1


def bits_ratio(model: Model, table: pd.DataFrame, reference_bits: ReferenceBits) -> np.ndarray:
    """Bits per byte of each output over its reference's: 1 is as fluent as the reference, more is
    worse.

    The texts of a batch are computed together.
    """
    bits = bits_per_byte(model, table["output"].tolist())
    rows = zip(table["split"], table["target"], table["reference"], strict=True)
    expected = [reference_bits(split, target)[reference] for split, target, reference in rows]
    return bits / np.array(expected)


def as_json(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns as JSON has them: None for NaN."""
    columns = {}
    for name in table.columns:
        values = table[name].tolist()
        if table[name].dtype.kind == "f":
            values = [None if value != value else value for value in values]
        columns[str(name)] = values
    return columns
