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

    `edits` and `controls`: by the language that each is meant for; a control is an edit of the same
    dose that knows no language, such as `random_like(model, texts, edits["de"])`. Columns: `edit`
    (that language), `kind` ("edit" or "control"), `language`, `sentence` (its number in the
    corpus), `unsteered` and `nats`, the mean nats per token without and under the edit, `rise` =
    nats - unsteered, and `dose`, the edit's ‖Δh‖ / ‖h‖ over all texts. Give text that the edits
    were not fitted on.
    """
    model = load(model)
    named = [(EDIT, name, edit) for name, edit in edits.items()]
    if not named:
        raise SteerlabError("effects were asked of no edit; give a mapping from languages to edits")
    named += [(CONTROL, name, edit) for name, edit in (controls or {}).items()]
    given = [edit for _, _, edit in named]
    dose = doses(
        model, [text for lang in corpus.langs for text in corpus[lang]], given, batch=batch
    ).tolist()
    parts = []
    for lang in corpus.langs:
        plain, *steered = cross_entropy(
            model, corpus[lang], [Edit(()), *given], batch=batch
        ).double()
        numbers = (
            corpus.numbers if corpus.aligned else [f"{lang} {index}" for index in range(len(plain))]
        )
        for (kind, name, _), nats, size in zip(named, steered, dose, strict=True):
            columns = {
                "edit": name,
                "kind": kind,
                "language": lang,
                "sentence": list(numbers),
                "dose": size,
            }
            parts.append(
                pd.DataFrame({**columns, "unsteered": plain, "nats": nats, "rise": nats - plain})
            )
    return pd.concat(parts, ignore_index=True)
