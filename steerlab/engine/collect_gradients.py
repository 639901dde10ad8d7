"""How much each unit serves a labelled answer: gradients of the answer's probability, after
CULNIG."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Gradients
from steerlab.core.languages import language
from steerlab.engine.inputs import chosen_layers, need_room
from steerlab.engine.prompts import encode, pad
from steerlab.models.huggingface import Model
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions

Items = Mapping[str, Sequence[tuple[str, str]]]


def collect_gradients(
    model: Any,
    items: Items,
    *,
    control: Items | None = None,
    site: str = "mlp_post",
    layers: Iterable[int] | None = None,
    batch: int = 16,
) -> Gradients:
    """Score every unit of a site by what it does for the answers of (prompt, answer) `items`, by
    language.

    Score of a unit n: the mean over items of P(y|x) · max_t n_t · dP(y|x)/dn_t, over the tokens t
    that P depends on: all but BOS and the answer's last, behind which nothing is predicted. P of an
    answer of several tokens is exp(mean log-probability). `control`: other items of the same
    languages, whose terms are clamped at 0 from below (CULNIG, arXiv 2510.08284: the same items
    with their options only). An answer gets a space before it, unless its prompt ends in space.
    """
    model = load(model)
    if batch < 1:
        raise SteerlabError(f"a batch of {batch} items is none; give 1 or more")
    _need_items(items, control)
    chosen, width = chosen_layers(model, layers), model.width_of(site)
    score, other = (torch.zeros(len(items), len(chosen), width) for _ in range(2))
    for place, iso in enumerate(items):
        score[place] = _terms(model, items[iso], site, chosen, batch, floor=None)
        if control is not None:
            other[place] = _terms(model, control[iso], site, chosen, batch, floor=0.0)
    provenance = {
        "model": model.about,
        "site": site,
        "items": _about(items),
        "answer": "exp(mean log-probability)",
    }
    provenance["control"] = None if control is None else _about(control)
    return Gradients(tuple(items), chosen, site, score, other, provenance)


def _need_items(items: Items, control: Items | None) -> None:
    for iso in items:
        language(iso)
    if not items or not all(items.values()):
        raise SteerlabError(
            "give (prompt, answer) items for each language, one at least; some have none"
        )
    if control is not None and (set(control) != set(items) or not all(control.values())):
        raise SteerlabError(
            f"the control has items of {' '.join(iso for iso in control if control[iso])}, the "
            "items are of "
            f"{' '.join(items)}; give a control for each"
        )


def _about(items: Items) -> dict[str, Any]:
    told = json.dumps(
        {iso: [list(pair) for pair in pairs] for iso, pairs in items.items()}, ensure_ascii=False
    )
    numbers = {iso: len(pairs) for iso, pairs in items.items()}
    return {"hash": hashlib.sha256(told.encode()).hexdigest()[:16], "numbers": numbers}


def _terms(
    model: Model,
    pairs: Sequence[tuple[str, str]],
    site: str,
    layers: Sequence[int],
    batch: int,
    *,
    floor: float | None,
) -> Float[Tensor, "layer unit"]:
    """The mean over items of P · max over tokens of value · gradient; no item's below `floor`."""
    told = _tokens(model, pairs)
    with _differentiable(model):
        total = torch.zeros(len(layers), model.width_of(site), dtype=torch.float64)
        for start in range(0, len(told), batch):
            terms = _batch(model, told[start : start + batch], site, layers)
            total += (terms if floor is None else terms.clamp(min=floor)).double().sum(0).cpu()
        return (total / len(told)).float()


def _tokens(model: Model, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """The token ids of each prompt, with BOS, and of each answer."""
    prompts = encode(model.tokenizer, [prompt for prompt, _ in pairs])
    texts = [answer if prompt[-1:].isspace() else f" {answer}" for prompt, answer in pairs]
    answers = [list(model.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    for (prompt, answer), ids in zip(pairs, answers, strict=True):
        if not answer.strip() or not ids:
            raise SteerlabError(
                f"the prompt {prompt[:60]!r} has an empty answer, of which nothing can be a "
                "gradient"
            )
    need_room(model, [a + b for a, b in zip(prompts, answers, strict=True)])
    return list(zip(prompts, answers, strict=True))


def _batch(
    model: Model, told: Sequence[tuple[list[int], list[int]]], site: str, layers: Sequence[int]
) -> Float[Tensor, "row layer unit"]:
    """P · max over tokens of value · gradient of each item."""
    tokens, mask = pad(
        [prompt + answer for prompt, answer in told], model.tokenizer.pad_token_id, model.device
    )
    said = torch.zeros_like(mask)
    for row, (_, answer) in enumerate(told):
        said[row, -len(answer) :] = True
    values: dict[int, Tensor] = {}
    where: list[Positions] = []

    def watch(layer: int) -> HookFn:
        def keep(h: Tensor, here: Positions) -> Tensor:
            where[:] = [here]
            values[layer] = h if h.requires_grad else h.detach().requires_grad_()
            return values[
                layer
            ]  # a slice must go back into the graph that its gradient comes through

        return keep

    with model.attached([(site, layer, watch(layer)) for layer in layers]):
        logits, _ = model.forward(tokens[:, :-1], mask[:, :-1])
        chance = _chance(logits, tokens[:, 1:], said[:, 1:])
        gradients = torch.autograd.grad(chance.sum(), [values[layer] for layer in layers])
    text = where[0].text[..., None]
    found = []
    for layer, gradient in zip(layers, gradients, strict=True):
        product = (values[layer].detach().float() * gradient.float()).masked_fill(~text, -torch.inf)
        found.append(chance.detach()[:, None] * product.amax(1))
    return torch.stack(found, 1)


def _chance(
    logits: Float[Tensor, "row pos vocab"],
    following: Int[Tensor, "row pos"],
    said: Bool[Tensor, "row pos"],
) -> Float[Tensor, " row"]:
    """exp of the mean log-probability of each row's answer, the tokens where `said`."""
    nats = torch.zeros(said.shape, device=logits.device)
    found = -torch.nn.functional.cross_entropy(
        logits[said].float(), following[said], reduction="none"
    )
    return (nats.masked_scatter(said, found).sum(1) / said.sum(1)).exp()


@contextmanager
def _differentiable(model: Model) -> Iterator[None]:
    """Gradients of activations, whatever was switched off around; none of the weights, which
    would cost memory."""
    frozen = [weight for weight in model.hf.parameters() if weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(False)
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(True)
