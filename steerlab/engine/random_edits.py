"""Edits in random directions that are exactly as strong as given ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, record_of, stack
from steerlab.edits.twins import Twin, twin_of
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

# a scale fits at once where the dose is in proportion to it, as that of `add` and of one layer's
# `ablate`
_TRIES = 8
_CLOSE = 0.02  # of the dose that a control shall have


@torch.inference_mode()
def doses(
    model: Any, texts: Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, " edit"]:
    """The mean dose Σ ‖Δh‖ / ‖h‖ of each edit over all the positions of the texts that it touches;
    0 for no edit."""
    model = load(model)
    ids = encode(model.tokenizer, texts)
    edit = stack(edits)
    if not edit.parts:
        return torch.zeros(len(edits))
    tokens = [row for row in ids for _ in edits]
    carries = list(range(len(edits))) * len(ids)
    with rows_on(model, tokens, edit, carries=carries) as rows:

        def work(chosen: Sequence[int]) -> None:
            rows.forward(chosen)  # for what is touched on the way

        rows.run(work, batches.plan(model, tokens, rows.depth, batch=batch))
    return rows.touched.doses(len(edits))


def random_like(
    model: Any, texts: Sequence[str], edit: Edit, *, seed: int = 0, batch: int | None = None
) -> Edit:
    """An edit like this one in random directions, of the same dose over these texts: what any push
    of its size does.

    Same operators, layers and ranks. What is drawn is the twin in the operator's record
    (`edits.OPERATORS`): `add` takes a random vector of the same length, and so does `gate`, behind
    the same gate; `ablate` and `push` a random subspace, `erase` a random projection, `conceptor` a
    random ellipsoid; `rotate` a random second axis, `affine` a random axis; `overwrite` and the
    operators of neurons as many random units, which get what the edit's get; those of latents read
    them where they are and write elsewhere. Length, fraction or angle is then scaled until the dose
    agrees within 2 %, since a random direction holds less of the activations than a language's.
    What cannot reach the dose raises, and so does a function of your own; `equal_doses` has random
    shifts for these.
    """
    model = load(model)
    if not edit.parts:
        raise SteerlabError(
            "there is no random control of an edit that does nothing; give one with parts"
        )
    twin_of(edit, Twin(seed))  # raises for what has no twin
    [found] = _scaled(model, texts, [edit], [Twin(seed)], batch=batch)
    twin, wanted, reached = found
    if not _close(reached, wanted):
        raise SteerlabError(
            f"no random edit reached the dose {wanted:.3g} (the last had {reached:.3g}); take a "
            "weaker edit or fewer layers, or compare with controls.random"
        )
    return twin_of(edit, twin)


def equal_doses(
    model: Any,
    texts: Sequence[str],
    edits: Sequence[Edit],
    *,
    seeds: Sequence[int] = (0,),
    batch: int | None = None,
) -> list[tuple[Twin, ...]]:
    """For each edit its random twins, one for each seed, that have its mean dose over the texts
    within 2 %.

    A twin is by the same operator in random directions of the same rank, scaled. Where that has no
    twin, or cannot reach the dose, it is a shift along a random direction, and says so (`kind`).
    `edits.twins.twin_of` makes the edit of one. Raises `SteerlabError` where no shift can reach the
    dose either.

    Args:
        model: what `load` takes.
        texts: the texts over which doses are equal.
        edits: the edits; one without a part has no twins.
        seeds: of what is drawn.
        batch: the most rows that run together; by default as many as memory advises.
    """
    model = load(model)
    pairs = [(number, seed) for number, edit in enumerate(edits) if edit.parts for seed in seeds]
    found: dict[tuple[int, int], Twin] = {}
    for kind in ("operator", "shift"):
        waiting = [
            pair
            for pair in pairs
            if pair not in found and (kind == "shift" or _has_twin(edits[pair[0]]))
        ]
        given = [edits[number] for number, _ in waiting]
        starts = [Twin(seed, 1.0, kind) for _, seed in waiting]
        for pair, (twin, wanted, reached) in zip(
            waiting, _scaled(model, texts, given, starts, batch=batch), strict=True
        ):
            if _close(reached, wanted):
                found[pair] = twin
            elif kind == "shift":
                raise SteerlabError(
                    f"no random shift reached the dose {wanted:.3g} (the last had {reached:.3g}); "
                    "take a weaker edit or fewer layers"
                )
    return [
        tuple(found[number, seed] for seed in seeds) if edit.parts else ()
        for number, edit in enumerate(edits)
    ]


def _has_twin(edit: Edit) -> bool:
    records = [record_of(part) for part in edit.parts]
    return all(record is not None and record.twin is not None for record in records)


def _close(reached: float, wanted: float) -> bool:
    return abs(reached - wanted) <= _CLOSE * wanted


def _scaled(
    model: Model,
    texts: Sequence[str],
    edits: Sequence[Edit],
    twins: Sequence[Twin],
    *,
    batch: int | None = None,
) -> list[tuple[Twin, float, float]]:
    """(the twin of each edit, scaled until its dose is the edit's or no more can be tried; the
    edit's dose; the twin's)."""
    if not edits:
        return []
    widths = {site: model.width_of(site) for edit in edits for site in edit.sites}
    wanted = doses(model, texts, edits, batch=batch).tolist()
    twins = list(twins)
    reached = [0.0] * len(edits)
    waiting = list(range(len(edits)))
    for _ in range(_TRIES):
        made = [twin_of(edits[i], twins[i], widths=widths) for i in waiting]
        for i, dose in zip(waiting, doses(model, texts, made, batch=batch).tolist(), strict=True):
            reached[i] = dose
        waiting = [i for i in waiting if not _close(reached[i], wanted[i]) and reached[i] > 0]
        if not waiting:
            break
        last = list(twins)
        for i in waiting:
            twins[i] = replace(twins[i], scale=twins[i].scale * wanted[i] / reached[i])
    else:
        for i in waiting:  # the doses are those of the twins before
            twins[i] = last[i]
    return list(zip(twins, wanted, reached, strict=True))
