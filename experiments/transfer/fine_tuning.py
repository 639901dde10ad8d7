"""A brief full fine-tune on one language, and how well every language is predicted after it."""

import copy
from collections.abc import Sequence

import pandas as pd
import torch

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.engine.prompts import encode
from steerlab.models.model import Model

RATE, ROWS = 1e-4, 16  # the learning rate, and the lines of a step


def after_steps(
    model: Model, train: Sequence[str], texts: Corpus, steps: Sequence[int], *, seed: int = 0
) -> dict[int, pd.DataFrame]:
    """Cross-entropy of every text after each number of steps of AdamW on the lines of `train`.

    The model itself is left as it is: a copy is trained, all its weights, in float32.
    """
    tuned = sl.load(copy.deepcopy(model.hf), tokenizer=model.tokenizer)
    network = tuned.hf.float().train()
    network.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
    lines = encode(model.tokenizer, list(train))
    drawn = torch.Generator().manual_seed(seed)
    order: list[int] = []
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            network.eval().requires_grad_(False)
            found[step] = read(tuned, texts)
            network.train().requires_grad_(True)
        if len(order) < ROWS:
            order += torch.randperm(len(lines), generator=drawn).tolist()
        batch, order = order[:ROWS], order[ROWS:]
        _step(network, optimiser, [lines[row] for row in batch])
    return found


def read(model: Model, texts: Corpus) -> pd.DataFrame:
    """Bits per byte of each text: language, sentence, bits_per_byte."""
    parts = []
    for lang in texts.langs:
        bits = bits_per_byte(model, list(texts[lang]))
        parts.append(
            pd.DataFrame({"language": lang, "sentence": list(texts.numbers), "bits_per_byte": bits})
        )
    return pd.concat(parts, ignore_index=True)


def _step(
    network: torch.nn.Module, optimiser: torch.optim.Optimizer, rows: list[list[int]]
) -> None:
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(tokens)] = torch.tensor(tokens)
    loss = network(input_ids=ids, attention_mask=(labels >= 0).long(), labels=labels).loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
