"""A cross-entropy matrix of texts under ablations: replay below the edits, against a full forward
pass for each edit.

The bound is what the arithmetic allows. With L blocks of b FLOPs a token, an unembedding of u, and
E edits at the layers l, full passes cost E (L b + u); replay runs the blocks up to the deepest edit
once and, for each edit, the blocks above it and the unembedding: (max l + 1) b + Σ (L - 1 - l) b +
E u. b and u are twice the weights that a token meets; attention's own products are left out (under
2 % at these lengths).
"""

import random
from typing import Any

import torch
from environments import BUILD
from measures import interleaved, ratio, spread
from shared import random_llama
from torch import Tensor

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.engine.prompts import encode, pad
from steerlab.models.model import Model

QUARTER, BATCH = 4, 16
Edits = list[tuple[str, int]]  # language to ablate, layer


def measure(*, quick: bool) -> dict[str, Any]:
    rows = [
        _compare(
            "polyglot",
            sl.load(dtype="float32"),
            texts=2 if quick else 4,
            langs=2 if quick else 6,
            rounds=1 if quick else 3,
        )
    ]
    if not quick:
        model = sl.load(str(random_llama(BUILD / "random150")), dtype="float32")
        rows.append(_compare("random150", model, texts=1, langs=3, rounds=2))
    notes = [
        "Replay: `sl.cross_entropy`, all texts and edits in one call. Full: for each edit (a "
        "random "
        f"{QUARTER}th of them a round, scaled) the Hugging Face model under a plain hook, texts of "
        "like length in "
        f"batches of {BATCH}, all logits kept.",
        " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
    ]
    return {"tables": [{"title": "Languages x ablations x layers", "rows": rows}], "notes": notes}


def bound(layers: list[int], blocks: int, block: float, unembedding: float) -> float:
    """How much less arithmetic replay needs than full passes: see the head of this file."""
    full = len(layers) * (blocks * block + unembedding)
    above = sum(blocks - 1 - layer for layer in layers)
    return full / ((max(layers) + 1 + above) * block + len(layers) * unembedding)


def _compare(name: str, model: Model, *, texts: int, langs: int, rounds: int) -> dict[str, Any]:
    corpus = sl.corpus()
    layers = list(range(0, model.n_layers, max(1, model.n_layers // 8)))
    directions = sl.diffmean(
        sl.collect(model, corpus.split("estimate").take(24), layers=layers, also=[])
    )
    lines = [f"{line}\n" for iso in corpus.langs for line in corpus.split("test").take(texts)[iso]]
    edits = [(iso, layer) for iso in corpus.langs[:langs] for layer in layers]
    draw, few = random.Random(0), max(1, len(edits) // QUARTER)
    difference = _difference(model, directions, lines[:BATCH], edits[:: len(edits) // 3])
    taken = interleaved(
        {
            "replay": lambda: replayed(model, directions, lines, edits),
            "full": lambda: full(model, directions, lines, draw.sample(edits, few)),
        },
        rounds=rounds,
        warm_up=False,
    )
    whole = [spent * len(edits) / few for spent in taken["full"]]
    weights = sum(p.numel() for p in model.blocks[0].parameters())
    limit = bound(
        [layer for _, layer in edits],
        model.n_layers,
        weights,
        model.width * model.config.vocab_size,
    )
    reached = ratio(whole, taken["replay"])
    return {
        "model": name,
        "texts": len(lines),
        "edits": len(edits),
        "replay, s": spread(taken["replay"]),
        "full passes, s": spread(whole),
        "full / replay": reached,
        "bound": limit,
        "share of the bound": {
            key: value if key == "n" else value / limit for key, value in reached.items()
        },
        "aim": "0.9",
        "largest difference, nats a token": difference,
    }


def replayed(model: Model, directions: Directions, lines: list[str], edits: Edits) -> Tensor:
    """[edit text]"""
    from steerlab.engine.cross_entropy import cross_entropy

    return cross_entropy(
        model, lines, [sl.ablate(directions[iso].at(layer)) for iso, layer in edits]
    )


@torch.inference_mode()
def full(model: Model, directions: Directions, lines: list[str], edits: Edits) -> Tensor:
    """[edit text], by a hooked forward pass of every batch for every edit."""
    ids = encode(model.tokenizer, lines)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    found = torch.zeros(len(edits), len(lines))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        tokens, mask = pad([ids[row] for row in rows], model.tokenizer.pad_token_id, model.device)
        kept = (mask & (tokens != model.tokenizer.bos_token_id))[:, :, None].float()
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        for number, (iso, layer) in enumerate(edits):
            basis = directions[iso].at(layer).basis[0]
            hook = model.blocks[layer].register_forward_hook(
                lambda _, __, h, basis=basis, kept=kept: h - kept * (h @ basis.T @ basis)
            )
            given = {"input_ids": tokens, "attention_mask": mask.long(), "position_ids": positions}
            logits = model.hf(**given, use_cache=False).logits
            hook.remove()
            for place, row in enumerate(rows):
                said = len(ids[row]) - 1
                found[number, row] = torch.nn.functional.cross_entropy(
                    logits[place, -said - 1 : -1], tokens[place, -said:]
                )
    return found


def _difference(model: Model, directions: Directions, lines: list[str], edits: Edits) -> float:
    """The largest difference of the two over a few texts and edits, which also warms both up."""
    return float(
        (replayed(model, directions, lines, edits) - full(model, directions, lines, edits))
        .abs()
        .max()
    )
