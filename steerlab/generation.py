"""Cached, batched decoding under an edit."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.edits import Edit, Touched
from steerlab.model import Model, load
from steerlab.prompts import encode, pad
from steerlab.terms import SteerlabError


@dataclass
class Decoded:
    """Texts in the order of the prompts, how many tokens each took, and what the edit touched."""

    texts: list[str]
    tokens: list[int]
    touched: Touched
    dose: list[float] = field(default_factory=list)


def generate(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    one_line: bool = True,
    edit: Edit | None = None,
    batch: int = 256,
) -> list[str]:
    """Continue each prompt: greedy at temperature 0, else sampled with the seed; under `edit`, or inside `edit.on`.

    `one_line` stops a row at the first line break after some text. A stacked edit needs one row for each prompt.
    """
    decoded = decode(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        one_line=one_line,
        edit=edit,
        batch=batch,
    )
    return decoded.texts


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    one_line: bool = True,
    edit: Edit | None = None,
    batch: int = 256,
) -> Decoded:
    """Like `generate`, with what each row took and what was touched."""
    model = load(model)
    if not temperature >= 0:
        raise SteerlabError(f"temperature is {temperature}; give 0 (greedy) or more")
    if max_new_tokens < 1:
        raise SteerlabError(f"max_new_tokens is {max_new_tokens}; give 1 or more")
    ids = encode(model.tokenizer, prompts)
    longest = max(map(len, ids), default=0) + max_new_tokens
    if longest > model.context:
        raise SteerlabError(
            f"a prompt of {longest - max_new_tokens} tokens and {max_new_tokens} new ones make {longest}; {model.name} "
            f"was made for {model.context}: shorten the prompt or max_new_tokens"
        )
    random = torch.Generator().manual_seed(seed)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # rows of like length pad little
    texts, counts, dose = [""] * len(ids), [0] * len(ids), [0.0] * len(ids)
    with edit.on(model) if edit else nullcontext(Touched()) as touched:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            new = _decode_batch(
                model, [ids[r] for r in rows], rows, max_new_tokens, temperature, random, one_line=one_line
            )
            for row, tokens in zip(rows, new, strict=True):
                texts[row] = model.tokenizer.decode(tokens, skip_special_tokens=True)
                counts[row] = len(tokens)
    if edit:
        dose = touched.doses(len(ids)).tolist()
    return Decoded(texts, counts, touched, dose)


def _decode_batch(
    model: Model,
    ids: list[list[int]],
    rows: list[int],
    max_new_tokens: int,
    temperature: float,
    random: torch.Generator,
    *,
    one_line: bool,
) -> list[list[int]]:
    """New tokens of each row; a row that has finished leaves the batch and its cache."""
    tokens, mask = pad(ids, model.tokenizer.pad_token_id, model.device)
    active, names = torch.arange(len(ids)), torch.tensor(rows)
    new: list[list[int]] = [[] for _ in ids]
    breaks, blank = _line_breaks(model) if one_line else (set(), set())
    said = [False] * len(ids)
    past, model.prompt_length = None, tokens.shape[1]
    try:
        feed = tokens
        for _ in range(max_new_tokens):
            model.rows = names[active].to(model.device)
            logits, past = model.forward(feed, mask, past=past, last=True)
            chosen = _choose(logits[:, -1], temperature, random)
            stay = []
            for place, (row, token) in enumerate(zip(active.tolist(), chosen.tolist(), strict=True)):
                if token == model.tokenizer.eos_token_id:
                    continue
                new[row].append(token)
                said[row] = said[row] or token not in blank
                if not (token in breaks and said[row]):
                    stay.append(place)
            if not stay:
                break
            keep = torch.tensor(stay, device=model.device)
            active, mask, chosen = active[stay], mask[keep], chosen[keep]
            mask = torch.cat([mask, mask.new_ones(len(stay), 1)], 1)
            if past is None:
                tokens = feed = torch.cat([tokens[keep], chosen[:, None]], 1)
            else:
                if len(stay) < logits.shape[0]:
                    past.batch_select_indices(keep)
                feed = chosen[:, None]
    finally:
        model.rows, model.prompt_length = None, 0
    return new


def _choose(logits: Float[Tensor, "row vocab"], temperature: float, random: torch.Generator) -> Int[Tensor, " row"]:
    if not torch.isfinite(logits).all():
        raise SteerlabError(
            "the model's logits hold NaN or infinity; its weights are broken, or the edit is too strong"
        )
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float().cpu() / temperature, -1)
    return torch.multinomial(probabilities, 1, generator=random)[:, 0].to(logits.device)


def _line_breaks(model: Model) -> tuple[set[int], set[int]]:
    """(tokens that hold a line break, tokens that hold nothing but space), of the model's vocabulary."""
    found = getattr(model, "_breaks", None)
    if found is None:
        decoded = model.tokenizer.batch_decode([[i] for i in range(len(model.tokenizer))])
        found = (
            {i for i, text in enumerate(decoded) if "\n" in text},
            {i for i, text in enumerate(decoded) if not text.strip()},
        )
        model._breaks = found  # type: ignore[attr-defined]
    return found
