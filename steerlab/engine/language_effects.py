"""How much each edit raises the cross-entropy of each language's text."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from steerlab.analysis.effects.matrix import CONTROL, EDIT
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.random_edits import doses
from steerlab.models.loading import load


def language_effects(
    model: Any,
    corpus: Corpus,
    edits: Mapping[str, Edit],
    *,
    controls: Mapping[str, Edit] | None = None,
    batch: int | None = None,
) -> pd.DataFrame:
    """How much each edit raises the cross-entropy of each language's sentences: a row for each edit
    and sentence.

    Columns: `edit` (the language that it is meant for), `kind` ("edit" or "control"), `language`,
    `sentence` (its number in the corpus), `unsteered` and `nats`, the mean nats per token without
    and under the edit, `rise` = nats - unsteered, and `dose`, the edit's ‖Δh‖ / ‖h‖ over all texts.

    Args:
        model: what `load` takes.
        corpus: sentences of each language; they should not be those that the edits were fitted on.
        edits: each edit by the language that it is meant for.
        controls: by the same languages, edits of the same dose that have nothing to do with any
            language, such as `random_like(model, texts, edits["de"])`.
        batch: the most rows that run together; by default as many as memory advises.
    """
    model = load(model)
    if not edits:
        raise SteerlabError("effects were asked of no edit; give a mapping from languages to edits")
    labelled = [(EDIT, name, edit) for name, edit in edits.items()]
    labelled += [(CONTROL, name, edit) for name, edit in (controls or {}).items()]
    all_edits = [edit for _, _, edit in labelled]
    texts = [text for lang in corpus.langs for text in corpus[lang]]
    dose_of_edit = doses(model, texts, all_edits, batch=batch).tolist()
    parts = []
    for lang in corpus.langs:
        # The model as it is comes first; in float64, so that a small rise is not lost in rounding.
        nats_of_edits = cross_entropy(model, corpus[lang], [Edit(()), *all_edits], batch=batch)
        unsteered, *steered = nats_of_edits.double()
        numbers: list[Any]
        if corpus.aligned:
            numbers = list(corpus.numbers)
        else:
            # The first sentence of one language is not that of another: no number in common.
            numbers = [f"{lang} {index}" for index in range(len(unsteered))]
        for (kind, name, _), nats, dose in zip(labelled, steered, dose_of_edit, strict=True):
            columns = {
                "edit": name,
                "kind": kind,
                "language": lang,
                "sentence": numbers,
                "dose": dose,
                "unsteered": unsteered,
                "nats": nats,
                "rise": nats - unsteered,
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
