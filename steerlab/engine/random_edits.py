"""Edits in random directions that are as strong as a given one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.edits import OPERATORS, Edit, Part, record_of, stack
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load

# a scale fits at once where the dose is in proportion to it, as that of `add` and of one layer's
# `ablate`
_TRIES = 8
_CLOSE = 0.02  # of the dose that a control shall have


@torch.inference_mode()
def doses(
    model: Any, texts: Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, " edit"]:
    """The mean dose ‖Δh‖ / ‖h‖ of each edit over all the positions of the texts that it touches;
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
    the same gate; `ablate` and `push` a random subspace; `rotate` a random second axis;
    `neuron_add`, `neuron_set` and `neuron_zero` as many random neurons, which get what the edit's
    get. Length, fraction or angle is then scaled until the dose agrees within 2 %, since a random
    direction holds less of the activations than a language's. What cannot reach the dose raises,
    and so does an operator without a twin, with the reason that its record states.
    """
    model = load(model)
    if not edit.parts:
        raise SteerlabError(
            "there is no random control of an edit that does nothing; give one with parts"
        )
    scale = 1.0
    for _ in range(_TRIES):
        twin = _drawn(edit, seed, scale)
        wanted, reached = doses(model, texts, [edit, twin], batch=batch).tolist()
        if abs(reached - wanted) <= _CLOSE * wanted:
            return twin
        scale *= wanted / reached if reached else math.inf
        if not math.isfinite(scale):
            break
    raise SteerlabError(
        f"no random edit reached the dose {wanted:.3g} (the last had {reached:.3g}); take a weaker "
        "edit or fewer layers, or compare with controls.random"
    )


def _drawn(edit: Edit, seed: int, scale: float) -> Edit:
    random = generator("random edit", seed)
    return replace(edit, parts=tuple(_drawn_part(part, random, scale) for part in edit.parts))


def _drawn_part(part: Part, random: torch.Generator, scale: float) -> Part:
    record = record_of(part)
    if record is None or record.twin is None:
        reason = "it is your own function; draw one yourself" if record is None else record.no_twin
        able = ", ".join(name for name, each in OPERATORS.items() if each.twin is not None)
        raise SteerlabError(
            f"there is no random control of the operator {part.operator!r}: {reason}. Only {able} "
            "have one"
        )
    # Drawn where the generator is, so that a seed means the same on every device.
    tensors = {name: tensor.cpu() for name, tensor in part.tensors.items()}
    return replace(part, tensors={**tensors, **record.twin(tensors, random, scale)})
