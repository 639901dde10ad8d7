"""What the rows of a batch say under their edits, before anything is scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from steerlab.edits import Edit, stack
from steerlab.engine.decoding import decode
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.models.model import Model
from steerlab.scores.text import composed, first_line


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How outputs are made: each of these decides numbers, and so they are part of a cell's key.

    Args:
        new_tokens: the most tokens of an output.
        one_line: whether an output ends with its first line.
        temperature: 0 takes the likeliest token, more samples.
        rows: the most rows that the model runs at once.
    """

    new_tokens: int
    one_line: bool
    temperature: float
    rows: int


def decode_rows(
    model: Model,
    prompts: Sequence[str],
    edits: Sequence[Edit | WeightEdit],
    seeds: Sequence[int],
    options: Decoding,
) -> pd.DataFrame:
    """The output of each prompt under its edit, its tokens, whether the limit cut it off, its doses
    and the rows of the batches.

    Rows of one `WeightEdit` run together, by themselves; they have no dose.
    """
    by_weights: dict[int, list[int]] = {}
    for row, edit in enumerate(edits):
        by_weights.setdefault(id(edit) if isinstance(edit, WeightEdit) else 0, []).append(row)
    tables = [
        _of_one_model(
            model,
            [prompts[row] for row in rows],
            [edits[row] for row in rows],
            [seeds[row] for row in rows],
            options,
        ).set_axis(rows)
        for rows in by_weights.values()
    ]
    return pd.concat(tables).sort_index()


def _of_one_model(
    model: Model,
    prompts: Sequence[str],
    edits: Sequence[Any],  # one WeightEdit again and again, or Edits
    seeds: Sequence[int],
    options: Decoding,
) -> pd.DataFrame:
    """`decode_rows` of rows under edits of activations alone, or all of one edit of weights."""
    written = edits[0]
    if not isinstance(written, WeightEdit):
        return _under_edits(model, prompts, edits, seeds, options)
    plain = [Edit(())] * len(edits)
    with written.running(model) as changed:
        table = _under_edits(changed, prompts, plain, seeds, options)
    return table.assign(site="weights", dose=math.nan, displacement=math.nan)


def _under_edits(
    model: Model,
    prompts: Sequence[str],
    edits: Sequence[Edit],
    seeds: Sequence[int],
    options: Decoding,
) -> pd.DataFrame:
    """`decode_rows` of rows under edits of activations.

    `site` is where the edit acts. `dose` is what it moves there, and at all its layers, in the
    residual stream, `displacement` how far the last of the stream is moved in the end; where a site
    of an edit does not lie in the stream, a column named by it has the dose as a share of what is
    there.

    Rows without an edit that have one prompt say the same unless they are sampled, so that they are
    decoded once.
    """
    numbers, first = _distinct(prompts, edits, sampled=options.temperature > 0)
    edit = stack([edits[i] for i in first])
    decoded = decode(
        model,
        [prompts[i] for i in first],
        edit=edit if edit.parts else None,
        max_new_tokens=options.new_tokens,
        one_line=options.one_line,
        temperature=options.temperature,
        seed=[seeds[i] for i in first],
        batch=options.rows,
        displacement=True,
    )
    cut = first_line if options.one_line else composed
    columns = {
        "output": [cut(decoded.texts[number]) for number in numbers],
        "tokens": [decoded.tokens[number] for number in numbers],
        "truncated": [not decoded.ended[number] for number in numbers],
        "site": ["+".join(edit.sites) for edit in edits],
        "dose": [decoded.dose[number] for number in numbers],
        "displacement": [decoded.displacement[number] for number in numbers],
    }
    for site, doses in decoded.site_doses.items():
        # NaN, not 0, for the rows whose edit does not act there: they have no such dose.
        acts = [site in edit.sites for edit in edits]
        columns[f"dose_{site}"] = [
            doses[number] if here else math.nan for number, here in zip(numbers, acts, strict=True)
        ]
    return pd.DataFrame(columns | {"batch_rows": decoded.plan.rows})


def _distinct(
    prompts: Sequence[str], edits: Sequence[Edit], *, sampled: bool
) -> tuple[list[int], list[int]]:
    """(for each row the number of the decoded row that it takes, for each decoded row the first row
    that takes it)."""
    numbers: list[int] = []
    first: list[int] = []
    number_of: dict[tuple[str, int], int] = {}
    for row, (prompt, edit) in enumerate(zip(prompts, edits, strict=True)):
        # A row of its own is told apart by its number, rows that are shared have none.
        alone = row if edit.parts or sampled else -1
        number = number_of.setdefault((prompt, alone), len(number_of))
        if number == len(first):
            first.append(row)
        numbers.append(number)
    return numbers, first
