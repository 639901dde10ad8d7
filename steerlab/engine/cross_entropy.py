"""What a model makes of texts, under an edit or not: cross-entropies, bits per byte."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, EditStats, stack
from steerlab.engine.prompts import encode, pad
from steerlab.models.branching import branch
from steerlab.models.huggingface import Model
from steerlab.models.loading import load


def cross_entropy(
    model: Any, texts: Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, "edit text"]:
    """Mean nats per token of each text alone, after BOS, under each edit; `Edit(())` is the model
    as it is.

    A text runs once below the edits, and each edit's row joins it at its own depth, so that n edits
    cost less than n forward passes. NaN for a text of one token without BOS.
    """
    model = load(model)
    if any(part.positions == "generated" for edit in edits for part in edit.parts):
        raise SteerlabError(
            "nothing is generated when texts are read; give edits of the positions 'all' or "
            "'prompt'"
        )
    ids = encode(model.tokenizer, texts)
    nats = _nats(model, ids, edits, batch=batch)
    return nats / torch.tensor([len(tokens) - 1 or math.nan for tokens in ids])


def bits_per_byte(model: Any, texts: Sequence[str], *, batch: int | None = None) -> np.ndarray:
    """Bits per UTF-8 byte of each text alone, after BOS, under the model as it is; NaN for an
    empty text."""
    model = load(model)
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    nats = (
        _nats(model, encode(model.tokenizer, distinct), [Edit(())], batch=batch)[0].tolist()
        if distinct
        else []
    )
    bits = {
        text: n / math.log(2) / len(text.encode()) for text, n in zip(distinct, nats, strict=True)
    }
    return np.array([bits.get(text, math.nan) for text in texts])


@torch.inference_mode()
def _nats(
    model: Model, ids: list[list[int]], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, "edit text"]:
    """Negative log-likelihood of each text's tokens after the first, under each edit."""
    if too_long := [len(row) for row in ids if len(row) > model.context]:
        raise SteerlabError(
            f"a text has {too_long[0]} tokens; {model.name} was made for {model.context}: cut it"
        )
    edit, count = stack(edits), len(edits)
    depth = edit.joins(range(count), model.n_layers)
    rows = [ids[row // count] for row in range(len(ids) * count)]  # row = text · count + edit
    plan = batches.plan(model, rows, depth * len(ids), every=True, batch=batch)
    found = torch.zeros(len(rows))
    shared = (
        model.branches and not model.attachments
    )  # an edit that is already on is one of whole passes

    def work(chosen: Sequence[int]) -> None:
        names, order = [row % count for row in chosen], list(chosen)
        prompts, joined = [rows[row] for row in chosen], None
        if shared:
            prompts, joined = branch(prompts, [depth[name] for name in names], names, model.device)
        if joined is not None:
            order = [chosen[place] for place in joined.order]
        tokens, mask = pad(prompts, model.tokenizer.pad_token_id, model.device)
        model.rows = (
            torch.tensor(names, device=model.device)
            if joined is None
            else torch.full_like(tokens[:, 0], -1)
        )
        try:
            logits, _ = model.forward(tokens, mask, branch=joined)
        finally:
            model.rows = None
        parents = range(len(order)) if joined is None else joined.parent.tolist()
        for place, (row, parent) in enumerate(zip(order, parents, strict=True)):
            said = (
                len(rows[row]) - 1
            )  # a row by itself is in the cache, a whole batch of logits is not
            if said:
                found[row] = torch.nn.functional.cross_entropy(
                    logits[place, -said - 1 : -1].float(), tokens[parent, -said:], reduction="sum"
                )

    with edit.on(model) if edit.parts else nullcontext(EditStats()) as touched:
        batches.run(plan, work, touched.mark, touched.undo)
    return found.reshape(len(ids), count).T
