"""What a model can do in each language, as it is and under an edit: small tasks scored by
likelihood."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.effects.learning import UNSTEERED
from steerlab.core.abilities import Item, ability_items
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit
from steerlab.engine.conditional import conditional
from steerlab.models.loading import load


def abilities(
    model: Any,
    edits: Mapping[str, Edit] | None = None,
    *,
    items: Sequence[Item] | None = None,
    batch: int | None = None,
) -> pd.DataFrame:
    """Which choice of each question is likeliest, without an edit ("none") and under each: a row
    for each edit and question.

    A choice is as likely as its mean nats per UTF-8 byte after the prompt say, as in common test
    harnesses (acc_norm). Columns: edit; task; instruction, language and answer, the three
    languages; sentence, the task and the item's number, by which intervals resample; correct (1 if
    the right choice is the likeliest, 0 also for a tie); margin, by how many nats per byte it is
    likelier than the best wrong one; chance, 1 / number of choices. Raises `SteerlabError` for an
    edit called "none", and for no question.

    Args:
        model: what `load` takes.
        edits: the edits by name.
        items: the questions; by default those of `ability_items()`.
        batch: the most rows that run together; by default as many as speed and memory advise.
    """
    edits = dict(edits or {})
    if UNSTEERED in edits:
        raise SteerlabError(
            "no edit may be called 'none', which is the model as it is; name it otherwise"
        )
    items = ability_items() if items is None else list(items)
    if not items:
        raise SteerlabError("there is no question; ability_items() makes some")
    model = load(model)
    pairs = [(item.prompt, choice) for item in items for choice in item.choices]
    nats, _ = conditional(model, pairs, [Edit(()), *edits.values()], batch=batch)
    size = np.array([len(choice.encode()) for _, choice in pairs])
    starts = np.cumsum([0, *(len(item.choices) for item in items)])
    rows = []
    for name, costs in zip([UNSTEERED, *edits], nats.numpy() / size, strict=True):
        for item, start, end in zip(items, starts, starts[1:], strict=False):
            right, *wrong = costs[start:end]
            rows.append(_row(name, item, float(min(wrong) - right)))
    return pd.DataFrame(rows)


def _row(edit: str, item: Item, margin: float) -> dict[str, Any]:
    return {
        "edit": edit,
        "task": item.task,
        "instruction": item.instruction,
        "language": item.language,
        "answer": item.answer,
        "sentence": f"{item.task} {item.number}",
        "correct": float(margin > 0),
        "margin": margin,
        "chance": 1 / len(item.choices),
    }
