"""How much each edit raises the cross-entropy of each language's text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steerlab.corpora import Corpus
from steerlab.edits import Edit
from steerlab.effects.matching import doses
from steerlab.evaluation import cross_entropy
from steerlab.model import load
from steerlab.scores import need_columns
from steerlab.terms import SteerlabError

EDIT, CONTROL = "edit", "control"


def language_effects(
    model: Any,
    corpus: Corpus,
    edits: Mapping[str, Edit],
    *,
    controls: Mapping[str, Edit] | None = None,
    batch: int | None = None,
) -> pd.DataFrame:
    """How much each edit raises the cross-entropy of each language's sentences: a row for each edit and sentence.

    `edits` and `controls`: by the language that each is meant for; a control is an edit of the same dose that knows no
    language, such as `random_like(model, texts, edits["de"])`. Columns: `edit` (that language), `kind` ("edit" or
    "control"), `language`, `sentence` (its number in the corpus), `unsteered` and `nats`, the mean nats per token
    without and under the edit, `rise` = nats - unsteered, and `dose`, the edit's ‖Δh‖ / ‖h‖ over all texts. Give text
    that the edits were not fitted on.
    """
    model = load(model)
    named = [(EDIT, name, edit) for name, edit in edits.items()]
    if not named:
        raise SteerlabError("effects were asked of no edit; give a mapping from languages to edits")
    named += [(CONTROL, name, edit) for name, edit in (controls or {}).items()]
    given = [edit for _, _, edit in named]
    dose = doses(model, [text for iso in corpus.langs for text in corpus[iso]], given, batch=batch).tolist()
    parts = []
    for iso in corpus.langs:
        plain, *steered = cross_entropy(model, corpus[iso], [Edit(()), *given], batch=batch).double()
        numbers = corpus.numbers if corpus.aligned else [f"{iso} {place}" for place in range(len(plain))]
        for (kind, name, _), nats, size in zip(named, steered, dose, strict=True):
            told = {"edit": name, "kind": kind, "language": iso, "sentence": list(numbers), "dose": size}
            parts.append(pd.DataFrame({**told, "unsteered": plain, "nats": nats, "rise": nats - plain}))
    return pd.concat(parts, ignore_index=True)


def effect_matrix(rows: pd.DataFrame, *, kind: str = EDIT, value: str = "rise", relative: bool = False) -> pd.DataFrame:
    """The mean of `language_effects`' rows, languages down and edits across, in their order.

    Where there are controls, a last column `control` has the mean over all of them; `kind="control"` shows each. With
    `relative` a language's rises are shares of its mean nats per token without an edit, since a token of one language
    says more than one of another.
    """
    need_columns(rows, "effect_matrix", "edit", "kind", "language", value)
    known = relatively(rows) if relative else rows
    known = known[np.isfinite(known[value].to_numpy(float))]
    chosen = known[known["kind"] == kind]
    if chosen.empty:
        raise SteerlabError(f"there are no rows of the kind {kind!r}; the kinds are {', '.join(rows['kind'].unique())}")
    table = chosen.pivot_table(index="language", columns="edit", values=value, sort=False)
    table = table.reindex(index=rows["language"].unique(), columns=chosen["edit"].unique())
    controls = known[known["kind"] == CONTROL]
    if kind == EDIT and len(controls):
        table[CONTROL] = controls.groupby("language")[value].mean()
    return table


def relatively(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with each `rise` over its language's mean `unsteered` nats, which is taken as known without error."""
    need_columns(rows, "a relative rise", "language", "unsteered", "rise")
    level = rows.groupby("language")["unsteered"].transform("mean")
    return rows.assign(rise=rows["rise"] / level)
