"""Edits in random directions that are exactly as strong as given ones."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.corpus import as_texts
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, record_of, stack
from steerlab.edits.twins import Twin, twin_of
from steerlab.engine.decoding import decode
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

# a scale fits at once where the dose is in proportion to it, as that of `add` and of one layer's
# `ablate`
_TRIES = 8
_CLOSE = 0.02  # of the dose that a control shall have
_CORRECTIONS = 2  # of a scale, for what is generated
_ROWS = 512  # of prompts under edits that are continued at once


@torch.inference_mode()
def doses(
    model: Any, texts: str | Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, " edit"]:
    """The mean dose Σ ‖Δh‖ / ‖h‖ of each edit over all the positions of the texts that it touches;
    0 for no edit."""
    return _doses(load(model), _each(texts, len(edits)), edits, batch)


def _doses(
    model: Model, texts: Sequence[Sequence[str]], edits: Sequence[Edit], batch: int | None
) -> Float[Tensor, " edit"]:
    """The mean dose of each edit over its own texts."""
    edit = stack(edits)
    if not edit.parts:
        return torch.zeros(len(edits))
    carries = [number for number, own in enumerate(texts) for _ in own]
    tokens = encode(model.tokenizer, [text for own in texts for text in own])
    with rows_on(model, tokens, edit, carries=carries) as rows:

        def work(chosen: Sequence[int]) -> None:
            rows.forward(chosen)  # for what is touched on the way

        rows.run(work, batches.plan(model, tokens, rows.depth, batch=batch))
    return rows.touched.doses(len(edits))


def _each(texts: Any, count: int) -> list[list[str]]:
    """The texts of each of some edits: the same for all, or a list for each."""
    if not isinstance(texts, str) and len(texts) and not isinstance(texts[0], str):
        if len(texts) != count:
            raise SteerlabError(
                f"{len(texts)} lists of texts for {count} edits; give one for each, or one list "
                "for all"
            )
        return [as_texts(own, "what measures a dose") for own in texts]
    return [as_texts(texts, "what measures a dose")] * count


def decoded_doses(
    model: Any,
    texts: str | Sequence[str] | Sequence[Sequence[str]],
    edits: Sequence[Edit],
    *,
    new: int,
    one_line: bool = True,
    batch: int | None = None,
) -> Float[Tensor, " edit"]:
    """The mean dose of each edit over texts that are continued under it, as rows of a sweep have
    it: what is generated is edited too, and another edit generates other text.

    Args:
        model: what `load` takes.
        texts: the prompts, the same for all edits, or a list for each.
        edits: the edits.
        new: the most tokens of a continuation.
        one_line: whether it ends with its first line.
        batch: the most rows that run together.
    """
    each = _each(texts, len(edits))
    at_once = max(1, _ROWS // max(map(len, each), default=1))
    found: list[float] = []
    for first in range(0, len(edits), at_once):
        some = range(first, min(first + at_once, len(edits)))
        decoded = decode(
            model,
            [text for number in some for text in each[number]],
            edit=stack([edits[number] for number in some for _ in each[number]]),
            max_new_tokens=new,
            one_line=one_line,
            batch=batch,
        )
        of_rows = iter(decoded.dose)
        for number in some:
            own = [next(of_rows) for _ in each[number]]
            found.append(sum(own) / len(own))
    return torch.tensor(found)


def random_like(
    model: Any, texts: str | Sequence[str], edit: Edit, *, seed: int = 0, batch: int | None = None
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
    [found] = _scaled(model, [edit], [Twin(seed)], _on_texts(model, _each(texts, 1), batch))
    twin, wanted, reached = found
    if not _close(reached, wanted):
        raise SteerlabError(
            f"no random edit reached the dose {wanted:.3g} (the last had {reached:.3g}); take a "
            "weaker edit or fewer layers, or compare with controls.random"
        )
    return twin_of(edit, twin)


def equal_doses(
    model: Any,
    texts: str | Sequence[str] | Sequence[Sequence[str]],
    edits: Sequence[Edit],
    *,
    seeds: Sequence[int] = (0,),
    new: int = 0,
    one_line: bool = True,
    batch: int | None = None,
) -> list[tuple[Twin, ...]]:
    """For each edit its random twins, one for each seed, that have its mean dose over the texts
    within 2 %.

    With `new`, the texts are prompts that are continued. A twin then says something else than its
    edit, in which it may hold more or less: its scale is corrected for that, twice at most,
    and the nearest is kept. What is generated changes by leaps, so that 2 % may not be reached.

    A twin is by the same operator in random directions of the same rank, scaled. Where that has no
    twin, or cannot reach the dose, it is a shift along a random direction, and says so (`kind`).
    `edits.twins.twin_of` makes the edit of one. Raises `SteerlabError` where no shift can reach the
    dose either.

    Args:
        model: what `load` takes.
        texts: the texts over which doses are equal, the same for all edits, or a list for each.
        edits: the edits; one without a part has no twins.
        seeds: of what is drawn.
        new: the most tokens of a continuation; 0 for the texts alone.
        one_line: whether a continuation ends with its first line.
        batch: the most rows that run together; by default as many as memory advises.
    """
    model = load(model)
    each = _each(texts, len(edits))
    # An edit that is given twice, with other texts, has two doses.
    edits = [copy(edit) for edit in edits]
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
        own = [each[number] for number, _ in waiting]
        scaled = _scaled(model, given, starts, _on_texts(model, own, batch))
        for pair, (twin, wanted, reached) in zip(waiting, scaled, strict=True):
            if _close(reached, wanted):
                found[pair] = twin
            elif kind == "shift":
                raise SteerlabError(
                    f"no random shift reached the dose {wanted:.3g} (the last had {reached:.3g}); "
                    "take a weaker edit or fewer layers"
                )
    if new and pairs:
        own = [each[number] for number, _ in pairs]
        options: dict[str, Any] = {"new": new, "one_line": one_line, "batch": batch}

        def continued(some: Sequence[Edit], which: Sequence[int]) -> list[float]:
            return decoded_doses(model, [own[i] for i in which], some, **options).tolist()

        given, starts = [edits[number] for number, _ in pairs], [found[pair] for pair in pairs]
        for pair, (twin, _, _) in zip(
            pairs, _scaled(model, given, starts, continued, tries=1 + _CORRECTIONS), strict=True
        ):
            found[pair] = twin
    return [
        tuple(found[number, seed] for seed in seeds) if edit.parts else ()
        for number, edit in enumerate(edits)
    ]


def _has_twin(edit: Edit) -> bool:
    records = [record_of(part) for part in edit.parts]
    return all(record is not None and record.twin is not None for record in records)


def _close(reached: float, wanted: float) -> bool:
    return abs(reached - wanted) <= _CLOSE * wanted


# Of some edits, and of which numbers they are among those that are scaled: the dose of each.
Measure = Callable[[Sequence[Edit], Sequence[int]], list[float]]


def _on_texts(model: Model, texts: Sequence[Sequence[str]], batch: int | None) -> Measure:
    return lambda edits, which: _doses(model, [texts[i] for i in which], edits, batch).tolist()


def _scaled(
    model: Model,
    edits: Sequence[Edit],
    twins: Sequence[Twin],
    measure: Measure,
    *,
    tries: int | None = None,
) -> list[tuple[Twin, float, float]]:
    """(the twin of each edit, scaled until its dose is the edit's or no more can be tried, then the
    nearest; the edit's dose; the twin's).

    Args:
        model: says how wide its sites are.
        edits: the edits; one may stand there several times.
        twins: a twin of each to begin with.
        measure: gives the dose of each of some edits.
        tries: how often a twin is measured.
    """
    if not edits:
        return []
    widths = {site: model.width_of(site) for edit in edits for site in edit.sites}
    first = {id(edit): i for i, edit in reversed(list(enumerate(edits)))}
    distinct = list(first.values())
    measured = measure([edits[i] for i in distinct], distinct)
    of_edits = dict(zip(first, measured, strict=True))
    wanted = [of_edits[id(edit)] for edit in edits]
    best: list[tuple[Twin, float]] = []
    current = list(twins)
    waiting = list(range(len(edits)))
    for turn in range(_TRIES if tries is None else tries):
        made = [twin_of(edits[i], current[i], widths=widths) for i in waiting]
        for i, reached in zip(waiting, measure(made, waiting), strict=True):
            if not turn:
                best.append((current[i], reached))
            elif abs(reached - wanted[i]) < abs(best[i][1] - wanted[i]):
                best[i] = (current[i], reached)
            if reached > 0:
                scale = current[i].scale * wanted[i] / reached
                current[i] = replace(current[i], scale=scale)
        waiting = [i for i in waiting if not _close(best[i][1], wanted[i]) and best[i][1] > 0]
        if not waiting:
            break
    return [(twin, dose, reached) for (twin, reached), dose in zip(best, wanted, strict=True)]
