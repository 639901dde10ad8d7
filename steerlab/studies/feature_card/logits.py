"""Which tokens a feature's decoder row speaks for, and which other features' rows are like it."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import bytes_behind
from steerlab.models.model import Model
from steerlab.sae import SAE


@torch.inference_mode()
def logit_effects(model: Model, rows: Float[Tensor, "unit width"]) -> Float[Tensor, "unit vocab"]:
    """What each row adds to the logits for one unit of its feature: row · diag(γ) @ W_Uᵀ, less the
    mean over tokens.

    γ is the weight of the final norm. Its division by the size of h is left out, so that the
    effects of one model's rows compare with each other and have no unit; a norm that centres h
    centres the row. The layers between are left out too: the path is the direct one. (Direct logit
    attribution; a constant on all logits changes no probability.)
    """
    if rows.shape[-1] != model.width:
        raise SteerlabError(
            f"these rows are {rows.shape[-1]} wide and the residual stream of {model.name} "
            f"{model.width}: only what is written into the stream has an effect on the logits of "
            "its own"
        )
    head = model.head
    scale, centres = folded(head.norm, model.width, model.device, model.dtype)
    rows = rows.to(model.device).float()
    rows = rows - rows.mean(-1, keepdim=True) if centres else rows
    effects = (rows * scale) @ head.unembedding.float().mT
    return (effects - effects.mean(-1, keepdim=True)).cpu()


@torch.inference_mode()
def folded(
    norm: Any, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, " width"], bool]:
    """The weight γ of a norm, and whether it centres, read off what it does: to ±1 its division
    does nothing."""
    signs = torch.ones(width, device=device, dtype=dtype)
    signs[1::2] = -1
    out = [norm(h[None, None])[0, 0].float() for h in (signs, -signs, signs + 1)]
    scale = signs.float() * (out[0] - out[1]) / 2
    return scale, bool(torch.allclose(out[0], out[2], atol=1e-2 * float(scale.abs().max())))


def promoted(
    model: Model, effects: Float[Tensor, " vocab"], count: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The tokens that are raised most and lowered most, with their effects; special and unused
    tokens do not count."""
    real = min(len(effects), len(model.tokenizer))
    chosen = torch.full_like(effects, float("nan"))
    chosen[:real] = effects[:real]
    chosen[[token for token in model.tokenizer.all_special_ids if token < real]] = float("nan")
    sides = []
    for sign in (1, -1):
        order = (
            (sign * chosen)
            .nan_to_num(nan=-torch.inf)
            .topk(min(count, int(chosen.isfinite().sum())))
            .indices
        )
        sides.append(
            [(written(model.tokenizer, token), float(effects[token])) for token in order.tolist()]
        )
    return sides[0], sides[1]


def written(tokenizer: Any, token: int) -> str:
    """A token as it reads, or its bytes in hexadecimal: those of a piece of a character and of a
    control character."""
    text, name = tokenizer.decode([token]), str(tokenizer.convert_ids_to_tokens(token))
    if "\ufffd" in text:
        byte_of = bytes_behind()
        if not set(name) <= set(byte_of):
            return name
        return _hexadecimal(byte_of[letter] for letter in name)
    if unseen := [
        letter for letter in text if not letter.isprintable() and letter not in "\n\t\u200c\u200d"
    ]:
        return text if len(unseen) < len(text) else _hexadecimal(text.encode())
    return (
        f" {text}" if name.startswith("▁") and not text.startswith(" ") else text
    )  # SentencePiece drops the space


def _hexadecimal(values: Iterable[int]) -> str:
    return " ".join(f"0x{value:02X}" for value in values)


def neighbours(sae: SAE, unit: int, count: int) -> list[tuple[int, float]]:
    """The other features whose decoder rows have the largest cosine with this one's."""
    rows = sae.W_dec.cpu()
    cosines = torch.nn.functional.cosine_similarity(rows, rows[unit : unit + 1], dim=-1)
    cosines[unit] = -torch.inf
    nearest = cosines.topk(min(count, len(rows) - 1))
    return list(zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True))
