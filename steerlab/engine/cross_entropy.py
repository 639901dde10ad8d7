"""What a model makes of texts, under an edit or not: cross-entropies, bits per byte."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.edits import Edit, stack
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model


def cross_entropy(
    model: Any, texts: Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, "edit text"]:
    """Mean nats per token of each text alone, after BOS, under each edit; `Edit(())` is the model
    as it is.

    A text runs once below the edits, and each edit's row joins it at its own depth, so that n edits
    cost less than n forward passes. NaN for a text of one token without BOS.
    """
    model = load(model)
    ids = encode(model.tokenizer, texts)
    nats = _nats(model, ids, edits, batch=batch)
    return nats / torch.tensor([len(tokens) - 1 or math.nan for tokens in ids])


def bits_per_byte(model: Any, texts: Sequence[str], *, batch: int | None = None) -> np.ndarray:
    """Bits per UTF-8 byte of each text alone, after BOS, under the model as it is; NaN for an
    empty text."""
    model = load(model)
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    bits: dict[str, float] = {}
    if distinct:
        [nats] = _nats(model, encode(model.tokenizer, distinct), [Edit(())], batch=batch).tolist()
        for text, own in zip(distinct, nats, strict=True):
            bits[text] = own / math.log(2) / len(text.encode())
    return np.array([bits.get(text, math.nan) for text in texts])


@torch.inference_mode()
def _nats(
    model: Model, ids: list[list[int]], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, "edit text"]:
    """Negative log-likelihood of each text's tokens after the first, under each edit."""
    count = len(edits)
    texts = [tokens for tokens in ids for _ in edits]  # row = text · count + edit
    carries = list(range(count)) * len(ids)
    nats = torch.zeros(len(texts))
    with rows_on(model, texts, stack(edits), carries=carries) as rows:

        def work(chosen: Sequence[int]) -> None:
            logits, done = rows.forward(chosen, keep="all")
            # One by one: a row's logits fit the processor's cache, a whole batch's do not.
            for index, row in enumerate(chosen):
                if after := len(texts[row]) - 1:
                    nats[row] = torch.nn.functional.cross_entropy(
                        logits[index, -after - 1 : -1].float(),
                        done.tokens[index, -after:],
                        reduction="sum",
                    )

        rows.run(work, batches.plan(model, texts, rows.depth, every=True, batch=batch))
    return rearrange(nats, "(text edit) -> edit text", text=len(ids), edit=count)
