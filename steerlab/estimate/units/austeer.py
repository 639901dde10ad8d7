"""AUSteer: single coordinates that differ the same way in nearly all pairs of texts."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.text_vectors import TextVectors
from steerlab.estimate.units.record import Method
from steerlab.estimate.units.selection import Selection

NUMBER = 100  # the most that the paper chooses
_LARGE = 1e-30


def austeer(
    vectors: TextVectors,
    *,
    source: str,
    number: int = NUMBER,
    layers: Sequence[int] | None = None,
    shuffled: int | None = None,
) -> Selection:
    """The units whose value changes the same way from a source text to its target in most pairs,
    over all layers: the `number` highest s = max(r₊, r₋), of each target.

    r₊ is the share of pairs in which the momentum m = x(target) - x(source) is above 0, r₋ that in
    which it is below. A unit is one coordinate of what a linear map reads: `attn_z` and `mlp_post`;
    at other sites, as at the released code's MLP output, it is a coordinate of what is there.

    On few pairs hundreds of units have the same s, often 1. Of these, larger |mean m| over its
    standard deviation goes first (the released code takes the first layer's), and adds less than
    half of a pair's share to `score`. `provenance["settings"]` has, of each target, `tied`: how
    many units have the s of the last that is chosen, and how many of these are; `perfect`: how many
    have s = 1; and `chance`, .5 + √(log D/2N), which the highest of D units reaches on N pairs that
    say nothing. Source: AUSteer (arXiv 2602.04428).

    Args:
        vectors: of pairs of texts, best of their last tokens: `collect_texts(read="last")`.
        source: the language, or label, that units change from.
        number: how many units are chosen for each target.
        layers: among whose units; by default all. The last layers alone are a control.
        shuffled: a seed by which each pair's two labels are exchanged or not: the control of a
            selection that knows nothing.
    """
    _need_number(number)
    targets = [lang for lang in vectors.langs if lang != source]
    vectors.of(source)
    if not targets:
        raise SteerlabError(f"the texts are all of {source!r}; read a target's beside them")
    open_layers = _among(vectors, layers)
    shape = (len(vectors.langs), *vectors.of(source).shape[1:])
    score = torch.zeros(shape)
    chosen = torch.zeros(shape, dtype=torch.bool)
    tied, perfect, chance = {}, {}, {}
    for lang in targets:
        momenta = _momenta(vectors, source, lang, shuffled)
        above, below = agreement(momenta)
        index = vectors.langs.index(lang)
        least = torch.maximum(above, below).masked_fill(~open_layers[:, None], -1)
        if number > int((least >= 0).sum()):
            raise SteerlabError(
                f"{number} units are asked for, and there are {int((least >= 0).sum())}; ask for "
                "fewer"
            )
        score[index] = (least + _steadiness(momenta) * 0.49 / len(momenta)).float()
        score[index][~open_layers] = -math.inf
        best = score[index].flatten().argsort(descending=True, stable=True)[:number]
        chosen[index].view(-1)[best] = True
        last = least.flatten()[best].min()
        tied[lang] = [int((least == last).sum()), int((least.flatten()[best] == last).sum())]
        perfect[lang] = int((least == 1).sum())
        chance[lang] = 0.5 + math.sqrt(math.log(int((least >= 0).sum())) / (2 * len(momenta)))
    method = "austeer" if shuffled is None else f"austeer shuffled {shuffled}"
    settings = {"source": source, "number": number, "layers": layers and list(layers)}
    settings |= {"tied": tied, "perfect": perfect, "chance": chance, "shuffled": shuffled}
    provenance = {**vectors.provenance, "method": method, "settings": settings}
    langs, site = vectors.langs, vectors.site
    return Selection(method, langs, vectors.layers, site, chosen, score, provenance)


def random_atoms(selection: Selection, *, seed: int = 0) -> Selection:
    """As many units of each language as were chosen, anywhere in the layers, at random: the control
    of a selection by `austeer`."""
    random = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(selection.chosen)
    for index in range(len(selection.langs)):
        count = int(selection.chosen[index].sum())
        drawn = torch.randperm(selection.chosen[index].numel(), generator=random)[:count]
        chosen[index].view(-1)[drawn] = True
    method = f"{selection.method} random {seed}"
    return replace(
        selection,
        method=method,
        chosen=chosen,
        score=torch.zeros_like(selection.score),
        provenance={**selection.provenance, "method": method},
    )


def momenta(selection: Selection, vectors: TextVectors, *, source: str) -> Directions:
    """Directions of chosen units, for `scale_units`: the mean momentum of each, and 0 elsewhere.

    `extra`, each [lang layer width]: `mask`, 1 at a target's units; `rates`, there r₊, or -r₋ where
    that is larger (at a tie r₊, as in the released code). A layer without a unit has no direction.
    Source: AUSteer (arXiv 2602.04428).

    Args:
        selection: of `austeer`, or a control of it.
        vectors: what the units were chosen from.
        source: the language, or label, that directions lead from.
    """
    for name in ("langs", "layers", "site"):
        if getattr(selection, name) != getattr(vectors, name):
            raise SteerlabError(
                f"the units were chosen with {name} {getattr(selection, name)}, and the texts have "
                f"{getattr(vectors, name)}; give the texts that they were chosen from"
            )
    means = torch.stack([vectors.of(lang).mean(0) for lang in vectors.langs])
    rates, steps = torch.zeros_like(means), torch.zeros_like(means)
    for index, lang in enumerate(vectors.langs):
        if lang == source:
            continue
        pairs = vectors.differences(source, lang)
        above, below = agreement(pairs)
        mask = selection.chosen[index]
        rates[index] = torch.where(above >= below, above, -below) * mask
        steps[index] = pairs.mean(0) * mask
    length = steps.norm(dim=-1, keepdim=True).clamp(min=_LARGE)
    return Directions(
        steps.float(),
        (steps / length)[:, :, None].float(),
        means.float(),
        vectors.langs,
        vectors.layers,
        vectors.site,
        source,
        {**vectors.provenance, "estimator": selection.method, "settings": _settings(selection)},
        {"mask": selection.chosen.float(), "rates": rates.float()},
    )


def agreement(
    momenta: Float[Tensor, "pair layer width"],
) -> tuple[Float[Tensor, "layer width"], Float[Tensor, "layer width"]]:
    """The shares of pairs in which each unit rises, and in which it falls."""
    return (momenta > 0).double().mean(0), (momenta < 0).double().mean(0)


def _momenta(
    vectors: TextVectors, source: str, target: str, shuffled: int | None
) -> Float[Tensor, "pair layer width"]:
    pairs = vectors.differences(source, target)
    if len(pairs) < 2:
        raise SteerlabError("one pair says nothing of what agrees; read two or more")
    if shuffled is None:
        return pairs
    random = torch.Generator().manual_seed(shuffled)
    signs = 1 - 2 * torch.randint(0, 2, (len(pairs),), generator=random)
    return pairs * signs[:, None, None]


def _steadiness(momenta: Float[Tensor, "pair layer width"]) -> Float[Tensor, "layer width"]:
    """|mean| over the standard deviation, brought to 0 to 1 without a change of order."""
    ratio = momenta.mean(0).abs() / momenta.std(0, correction=0).clamp(min=_LARGE)
    return (ratio / (1 + ratio)).nan_to_num(1.0)


def _among(vectors: TextVectors, layers: Sequence[int] | None) -> Bool[Tensor, " layer"]:
    """Which of the layers units may be of."""
    wanted = vectors.layers if layers is None else tuple(layers)
    if missing := [layer for layer in wanted if layer not in vectors.layers]:
        raise SteerlabError(
            f"no layer {missing[0]} here; there are layers {', '.join(map(str, vectors.layers))}"
        )
    return torch.tensor([layer in wanted for layer in vectors.layers])


def _need_number(number: int) -> None:
    if number < 1:
        raise SteerlabError(f"number is {number!r}; give a whole number of units, 1 or more")


def _settings(selection: Selection) -> dict[str, object]:
    settings = selection.provenance.get("settings", {})
    return {**settings, "selection": selection.method}


def _atoms(texts: TextVectors, *, source: str) -> Directions:
    return momenta(austeer(texts, source=source), texts, source=source)


RECORDS = {
    "austeer": Method(
        _atoms,
        ("texts",),
        ("scale_units",),
        cites=("feng2026fine",),
    ),
}
