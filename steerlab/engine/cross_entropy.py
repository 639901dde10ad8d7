"""How well a model predicts texts, with and without edits: cross-entropy and bits per byte."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, stack
from steerlab.edits.edit import need_edit
from steerlab.engine.forward import rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model


def cross_entropy(
    model: Any,
    texts: str | Sequence[str],
    edits: Edit | Sequence[Edit] | None = None,
    *,
    batch: int | None = None,
) -> Float[Tensor, "..."]:
    """The mean cross-entropy in nats per token of each text by itself, after BOS, under each edit,
    `[edit text]`; one text in place of a list, or one edit, has no axis.

    A text runs once below the edits, and each edit's row joins it at the depth at which the edit
    first acts, so that n edits cost less than n forward passes. NaN for a text of one token where
    the tokenizer has no BOS: nothing predicts it.

    Args:
        model: what `load` takes.
        texts: the texts to predict, or one text.
        edits: the edits, each of which is on for all texts, or one edit; by default the model is
            as it is, which `Edit(())` says too.
        batch: the most rows that run together; by default as many as memory advises.
    """
    edits = Edit(()) if edits is None else edits
    if isinstance(texts, str):
        return cross_entropy(model, [texts], edits, batch=batch)[..., 0]
    if isinstance(edits, Edit):
        return cross_entropy(model, texts, [edits], batch=batch)[0]
    several: Any = edits
    if not isinstance(several, Sequence):
        need_edit(several)  # raises, and says what makes one of it
    if not len(edits):
        raise SteerlabError("there is no edit; give Edit(()) for the model as it is")
    model = load(model)
    ids = encode(model.tokenizer, texts)
    nats = _nats(model, ids, edits, batch=batch)
    predicted = [len(tokens) - 1 or math.nan for tokens in ids]  # all tokens but the first
    return nats / torch.tensor(predicted)


def bits_per_byte(
    model: Any, texts: str | Sequence[str], *, batch: int | None = None
) -> Any:  # a float for a str, else an array
    """The bits that the model, as it is, needs per UTF-8 byte of each text by itself, after BOS;
    NaN for an empty text; one text in place of a list gives one number.

    Per byte, not per token, so that models with different tokenizers can be compared.

    Args:
        model: what `load` takes.
        texts: the texts to predict; equal ones run once.
        batch: the most rows that run together; by default as many as memory advises.
    """
    if isinstance(texts, str):
        return float(np.asarray(bits_per_byte(model, [texts], batch=batch))[0])
    texts = need_texts(texts, "bits_per_byte")
    model = load(model)
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    bits: dict[str, float] = {}
    if distinct:
        [nats] = _nats(model, encode(model.tokenizer, distinct), [Edit(())], batch=batch).tolist()
        for text, nats_of_text in zip(distinct, nats, strict=True):
            bits[text] = nats_of_text / math.log(2) / len(text.encode("utf-8", "surrogatepass"))
    return np.array([bits.get(text, math.nan) for text in texts])


@torch.inference_mode()
def _nats(
    model: Model, ids: list[list[int]], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, "edit text"]:
    """The negative log-likelihood of each text's tokens after the first, under each edit."""
    # Edits of a text come beside each other: a batch then holds few prompts, and shares them.
    count = len(edits)
    texts = [tokens for tokens in ids for _ in edits]  # row = text · count + edit
    carries = list(range(count)) * len(ids)
    nats = torch.zeros(len(texts))
    with rows_on(model, texts, stack(edits), carries=carries) as rows:

        def work(chosen: Sequence[int]) -> None:
            logits, done = rows.forward(chosen, keep="all")
            # One by one: a row's logits fit the processor's cache, a whole batch's do not.
            for index, row in enumerate(chosen):
                predicted = len(texts[row]) - 1
                if predicted:
                    # Counted from the end, as the padding is on the left. Each position predicts
                    # the next token.
                    nats[row] = torch.nn.functional.cross_entropy(
                        logits[index, -predicted - 1 : -1].float(),
                        done.tokens[index, -predicted:],
                        reduction="sum",
                    )

        rows.run(work, batches.plan(model, texts, rows.depth, every=True, batch=batch))
    return rearrange(nats, "(text edit) -> edit text", text=len(ids), edit=count)
