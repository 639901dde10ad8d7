"""How much each unit contributes to the right answers of labelled questions, by gradients of their
probability, after CULNIG."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Gradients
from steerlab.core.labels import label
from steerlab.engine.answers import Answered, answered, padded, summed
from steerlab.engine.batching import InOrder
from steerlab.engine.inputs import chosen_layers
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import HookFn, Positions

Items = Mapping[str, Sequence[tuple[str, str]]]  # by language: (prompt, answer)


def collect_gradients(
    model: Any,
    items: Items,
    *,
    control: Items | None = None,
    site: str = "mlp_post",
    layers: Iterable[int] | None = None,
    batch: int = 16,
) -> Gradients:
    """Score every unit of a site by what it contributes to the answers of items, by language.

    The score of a unit n is the mean over items of P(y|x) · max_t n_t · dP(y|x)/dn_t, over the
    tokens t that P depends on: all but BOS and the answer's last token, behind which nothing is
    predicted. P of an answer of several tokens is exp(mean log-probability).

    Raises `SteerlabError` for a language without items, an empty answer, and a control of other
    languages.

    Args:
        model: what `load` takes.
        items: (prompt, answer) pairs by language. An answer gets a space before it, unless its
            prompt ends in space.
        control: other items of the same languages, whose terms are clamped at 0 from below (CULNIG,
            arXiv 2510.08284: the same items with their options only).
        site: where in a layer.
        layers: which layers; by default all.
        batch: how many items run together.
    """
    model = load(model)
    if batch < 1:
        raise SteerlabError(f"a batch of {batch} items is none; give 1 or more")
    _need_items(items, control)
    chosen = chosen_layers(model, layers)
    width = model.width_of(site)
    score = torch.zeros(len(items), len(chosen), width)
    control_score = torch.zeros(len(items), len(chosen), width)
    inputs = InOrder(model, every=True, backward=True)
    for index, lang in enumerate(items):
        score[index] = _mean_terms(inputs, items[lang], site, chosen, batch, floor=None)
        if control is not None:
            control_score[index] = _mean_terms(
                inputs, control[lang], site, chosen, batch, floor=0.0
            )
    provenance = {
        "model": model.metadata,
        "site": site,
        "items": _metadata(items),
        "answer": "exp(mean log-probability)",
        "control": None if control is None else _metadata(control),
    }
    return Gradients(tuple(items), chosen, site, score, control_score, provenance)


def _need_items(items: Items, control: Items | None) -> None:
    """Raise for an unknown language, one without items, and a control of other languages."""
    for lang in items:
        label(lang)
    if not items or not all(items.values()):
        raise SteerlabError(
            "give (prompt, answer) items for each language, one at least; some have none"
        )
    if control is not None and (set(control) != set(items) or not all(control.values())):
        raise SteerlabError(
            f"the control has items of {' '.join(lang for lang in control if control[lang])}, the "
            "items are of "
            f"{' '.join(items)}; give a control for each"
        )


def _metadata(items: Items) -> dict[str, Any]:
    """What an artefact records of the items that it was made with: their hash and numbers."""
    listed = {lang: [list(pair) for pair in pairs] for lang, pairs in items.items()}
    text = json.dumps(listed, ensure_ascii=False)
    numbers = {lang: len(pairs) for lang, pairs in items.items()}
    return {"hash": hashlib.sha256(text.encode()).hexdigest()[:16], "numbers": numbers}


def _mean_terms(
    inputs: InOrder,
    pairs: Sequence[tuple[str, str]],
    site: str,
    layers: Sequence[int],
    batch: int,
    *,
    floor: float | None,
) -> Float[Tensor, "layer unit"]:
    """The mean over items of P · max over tokens of value · gradient; a term below `floor` counts
    as `floor`."""
    model = inputs.model
    items = answered(model, *zip(*pairs, strict=True))
    ids = items.ids

    def work(start: int, rows: Sequence[int]) -> Float[Tensor, "row layer unit"]:
        chosen = [start + row for row in rows]  # `rows` count from the start of the batch
        return _item_terms(model, items.take(chosen), site, layers)

    with model.turns.taken(), differentiable(model):
        # In float64: thousands of small terms are added up.
        total = torch.zeros(len(layers), model.width_of(site), dtype=torch.float64)
        for start in range(0, len(ids), batch):
            for terms in inputs.run(ids[start : start + batch], partial(work, start)):
                kept = terms if floor is None else terms.clamp(min=floor)
                total += kept.double().sum(0).cpu()
        return (total / len(ids)).float()


def _item_terms(
    model: Model, items: Answered, site: str, layers: Sequence[int]
) -> Float[Tensor, "row layer unit"]:
    """P · max over tokens of value · gradient, of each item."""
    tokens, mask, in_answer = padded(model, items)
    values: dict[int, Tensor] = {}
    seen_positions: list[Positions] = []

    def watch(layer: int) -> HookFn:
        def keep(h: Tensor, positions: Positions) -> Tensor:
            seen_positions[:] = [positions]
            # The first layer is where the graph begins, as no weight requires a gradient.
            values[layer] = h if h.requires_grad else h.detach().requires_grad_()
            # Returned, as the model must go on with this very tensor: the gradient comes through
            # it. At some sites `h` is a slice, that has to be put back.
            return values[layer]

        return keep

    with model.attached([(site, layer, watch(layer)) for layer in layers]):
        # The last token predicts nothing, so that it is not run.
        logits, _ = model.forward(tokens[:, :-1], mask[:, :-1], last=items.longest)
        chance = _chance(logits, tokens[:, 1:], in_answer[:, 1:])
        gradients = torch.autograd.grad(chance.sum(), [values[layer] for layer in layers])
    not_text = rearrange(~seen_positions[0].text, "row pos -> row pos 1")
    scale = rearrange(chance.detach(), "row -> row 1")
    terms = []
    for layer, gradient in zip(layers, gradients, strict=True):
        product = values[layer].detach().float() * gradient.float()
        # Below any other value, so that neither padding nor BOS is the maximum.
        product = product.masked_fill(not_text, -torch.inf)
        terms.append(scale * product.amax(1))
    return torch.stack(terms, 1)


def _chance(
    logits: Float[Tensor, "row last vocab"],
    following: Int[Tensor, "row pos"],
    in_answer: Bool[Tensor, "row pos"],
) -> Float[Tensor, " row"]:
    """exp of the mean log-probability of each row's answer: of the tokens where `in_answer`."""
    return (summed(logits, following, in_answer) / in_answer.sum(1)).exp()


@contextmanager
def differentiable(model: Model) -> Iterator[None]:
    """Switch on gradients of activations, whatever was switched off around, and none of the
    weights: those would cost as much memory as the model."""
    trainable = [weight for weight in model.hf.parameters() if weight.requires_grad]
    # A weight without a gradient is multiplied with a slice of the positions row by row, which
    # takes two to four times as long where the vocabulary is large; with a copy, at once.
    head = getattr(model.hf, "get_output_embeddings", lambda: None)()
    copying = head.register_forward_pre_hook(_contiguous) if head is not None else None
    try:
        for weight in trainable:
            weight.requires_grad_(False)
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
        if copying is not None:
            copying.remove()


def _contiguous(_: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return given[0].contiguous(), *given[1:]
