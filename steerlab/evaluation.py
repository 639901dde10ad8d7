"""What came of an edit: outputs to tidy scores, one row per output."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.corpora import Corpus
from steerlab.langid import Identifier
from steerlab.model import Model, load
from steerlab.prompts import encode, pad
from steerlab.scores import first_line, relevance, repetition

DISTRACTORS = 31


def judge(
    outputs: Sequence[str], sentences: Sequence[int], targets: Sequence[str], references: Corpus, identifier: Identifier
) -> dict[str, Any]:
    """Columns of scores of outputs that were made from `references`' i-th sentence, with `targets` asked for.

    `in_language`: the identifier's first label is the target. `relevant`: the own reference in the language that the
    output is in is nearer by chrF than 31 fixed distractors; chance is 1/32. `joint`: both, so the output is in the
    target language and nearest to its own target-language reference.
    """
    lines = [first_line(output) for output in outputs]
    languages = identifier.identify(lines)
    places = {number: place for place, number in enumerate(references.numbers)}
    own = [places[sentence] for sentence in sentences]
    relevant, chrf = relevance(lines, languages, own, references.lines, distractors=DISTRACTORS)
    in_language = np.array([found == asked for found, asked in zip(languages, targets, strict=True)], dtype=bool)
    return {
        "output": lines,
        "language": languages,
        "in_language": in_language,
        "relevant": relevant,
        "joint": in_language & relevant,
        "chrf": chrf,
        "repetition": [repetition(line) for line in lines],
    }


@torch.inference_mode()
def bits_per_byte(
    model: Any, texts: Sequence[str], *, known: dict[str, float] | None = None, batch: int = 128
) -> np.ndarray:
    """Bits per UTF-8 byte of each text alone, after BOS, under the model as it is; NaN for an empty text.

    `known` is filled with every text's bits, and what it holds is not computed again.
    """
    model, known = load(model), {} if known is None else known
    distinct = sorted({text for text in texts if text.strip() and text not in known}, key=len)
    for start in range(0, len(distinct), batch):
        part = distinct[start : start + batch]
        for text, nats in zip(part, _nats(model, part), strict=True):
            known[text] = float(nats) / math.log(2) / len(text.encode())
    return np.array([known.get(text, math.nan) for text in texts])


def _nats(model: Model, texts: Sequence[str]) -> Tensor:
    """Negative log-likelihood of each text [row], BOS given where there is one, else the first token."""
    ids, mask = pad(encode(model.tokenizer, texts), model.tokenizer.pad_token_id, model.device)
    logits, _ = model.forward(ids, mask)
    logits = logits[:, :-1].float()
    nats = logits.logsumexp(-1) - logits.gather(2, ids[:, 1:, None])[..., 0]
    return (nats * (mask[:, 1:] & mask[:, :-1])).sum(1).cpu()


def fluency(
    model: Any, outputs: Sequence[str], references: Sequence[str], *, known: dict[str, float] | None = None
) -> np.ndarray:
    """Bits per byte of each output over that of its reference under the unsteered model: 1 is as fluent as the text."""
    known = {} if known is None else known
    return bits_per_byte(model, outputs, known=known) / bits_per_byte(model, references, known=known)
