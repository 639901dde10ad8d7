"""Directions made of the tokens that matter: what the prompts lose when these are taken away, after
GrAInS."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.random import generator
from steerlab.core.settings import shortened
from steerlab.core.sources import Source
from steerlab.engine.attribution import (
    ENTRY,
    Contrast,
    attributed,
    baseline_of,
    need_options,
    rows_of,
)
from steerlab.engine.batching import InOrder
from steerlab.engine.collect import collect
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, need_count
from steerlab.engine.preferences import Preferences
from steerlab.estimate.build import build
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import Positions

SOURCES = {
    "grains": Source(cites=("nguyen2026grains", "sundararajan2017axiomatic")),
    "grains, random tokens": Source(no_source="the control of grains"),
}
GROUPS = ("both", "positive", "negative")
TOKENS = ("top", "random")
SUMMARIES = ("pca", "mean")


def grains(
    model: Any,
    preferences: Any,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    share: float = 0.25,
    k: int | None = None,
    groups: str = "both",
    of: str = "pca",
    tokens: str = "top",
    attributions: pd.DataFrame | None = None,
    baseline: str = "zero",
    tolerance: float = 0.05,
    most: int = 2000,
    batch: int = 64,
    seed: int = 0,
) -> Directions:
    """The direction from the preferences' source to their target that the prompts' tokens with the
    largest attributions make at the last token.

    Each token of a prompt gets its `attribution` to log p(chosen) - log p(rejected). The k of the
    largest positive ones are taken away, their embeddings set to the baseline, and so are by
    themselves the k of the largest negative ones; d⁺ and d⁻ are what h of the prompt's last token
    was less what it then is. v = u⁺ - u⁻, u the first principal axis of the pairs' d, not centred,
    its sign that of their mean; or with of="mean" the means themselves. Prompts without a token of
    a sign count for the other alone. `sl.add(direction, keep_norm=True)` is the published
    operator. Source: GrAInS (arXiv 2507.18043), whose code centres the axes and so leaves their
    sign to chance, takes k = 10 of the whole input, reads the objective off the last token's own
    id, and steers one layer.

    The provenance has the attributions' errors (`completeness`), how many tokens were taken away,
    and the cost. Raises `SteerlabError`, before the work, for what cannot be, and where
    `attribution` does.

    Args:
        model: what `load` takes.
        preferences: what `preferences` makes.
        layers: which layers; by default all.
        site: where in a layer.
        share: how many of a prompt's tokens a group is at most; a quarter, and one at least.
        k: how many, in place of a share.
        groups: "both" of v; or "positive", u⁺ alone; or "negative", -u⁻.
        of: "pca" or "mean": what one vector is made of many by.
        tokens: "top"; or "random", the control: as many tokens in each group, drawn from all.
        attributions: what `attribution` gave for these preferences; by default it is asked.
        baseline: of the attribution, and what stands in the places of tokens taken away.
        tolerance: of the attribution.
        most: of the attribution.
        batch: of the attribution.
        seed: of the random tokens.
    """
    begun, worked = time.perf_counter(), time.process_time()
    _need(preferences, share, k, groups, of, tokens)
    need_options(baseline, tolerance, most, batch)
    model = load(model)
    chosen = chosen_layers(model, layers)
    model.width_of(site)  # raises for a site that the model does not have
    pairs = rows_of(model, preferences)
    if attributions is None:
        attributions = attributed(model, pairs, baseline, tolerance, most, batch)
        read_for_it = int(attributions.attrs["tokens"])
    else:
        _need_same(model, pairs, attributions)
        read_for_it = 0
    taken = _taken(pairs, attributions, share, k, groups)
    counts = {sign: sum(map(len, places)) for sign, places in taken.items()}
    if tokens == "random":
        taken = _at_random(attributions, taken, seed)
    vector = torch.zeros(len(chosen), model.width_of(site), dtype=torch.float64)
    for sign, places in taken.items():
        lost = _lost(model, pairs, places, baseline, site, chosen)
        vector += (1 if sign == "positive" else -1) * _summary(lost, of)
    pair = preferences.texts.select([preferences.source, preferences.target])
    moments = collect(model, pair, layers=chosen, site=site, also=[], progress=False)
    of_pairs = attributions.groupby("pair")
    cost = {
        "seconds": round(time.perf_counter() - begun, 3),
        "cpu_seconds": round(time.process_time() - worked, 3),
        "tokens": read_for_it
        + (1 + len(taken)) * sum(len(pair.prompt) for pair in pairs)
        + int(moments.count.sum()),
    }
    made = {
        "preferences": preferences.metadata,
        "pairs": len(pairs),
        "taken": counts,
        "completeness": {
            "worst": float(of_pairs["error"].first().max()),
            "mean": float(of_pairs["error"].first().mean()),
            "points": int(of_pairs["points"].first().sum()),
        },
        "seed": seed,
        "cost": cost,
    }
    settings = {"share": share if k is None else None, "k": k, "groups": groups, "of": of}
    settings |= {"tokens": tokens, "baseline": baseline, "tolerance": tolerance}
    return _directions(moments, vector, preferences, tokens, settings, made)


def _need(preferences: Any, share: float, k: int | None, groups: str, of: str, tokens: str) -> None:
    """Raise for settings that say nothing."""
    if not isinstance(preferences, Preferences):
        raise SteerlabError(
            f"preferences are needed, not a {type(preferences).__name__}; give "
            "preferences(corpus, 'en', 'de')"
        )
    if not 0 < share <= 1:
        raise SteerlabError(f"share is {shortened(share)}; give a share of the tokens, up to 1")
    if k is not None:
        need_count("k", k)
    words = {"groups": (groups, GROUPS), "of": (of, SUMMARIES), "tokens": (tokens, TOKENS)}
    for name, (given, allowed) in words.items():
        if given not in allowed:
            raise SteerlabError(f"{name} is {given!r}; give {', '.join(map(repr, allowed))}")


def _need_same(model: Model, pairs: Sequence[Contrast], frame: pd.DataFrame) -> None:
    """Raise for attributions of other prompts."""
    needed = ["pair", "position", "token", "attribution", "error", "points"]
    if missing := [name for name in needed if name not in frame]:
        raise SteerlabError(
            f"the attributions have no column {missing[0]!r}; give what attribution(model, "
            "preferences) gave"
        )
    if not frame["attribution"].map(lambda value: abs(value) < float("inf")).all():
        raise SteerlabError("the attributions hold NaN or infinity; attribute again")
    same = set(frame["pair"]) == set(range(len(pairs)))
    if same:
        ids = [
            pairs[number].prompt[place] if place < len(pairs[number].prompt) else -1
            for number, place in zip(frame["pair"], frame["position"], strict=True)
        ]
        same = -1 not in ids
        same = same and model.tokenizer.batch_decode([[token] for token in ids]) == list(
            frame["token"]
        )
    if not same:
        raise SteerlabError(
            f"the attributions are of other prompts than these {len(pairs)}; give what "
            "attribution(model, preferences) gave for the same model and preferences"
        )


def _taken(
    pairs: Sequence[Contrast], frame: pd.DataFrame, share: float, k: int | None, groups: str
) -> dict[str, list[list[int]]]:
    """The positions to take away, of each group and pair."""
    signs = ("positive", "negative") if groups == "both" else (groups,)
    taken: dict[str, list[list[int]]] = {sign: [] for sign in signs}
    for number, of_pair in frame.groupby("pair"):
        if k is not None and k > len(of_pair):
            raise SteerlabError(
                f"k is {k}, and the prompt of pair {number} has {len(of_pair)} tokens; give at "
                "most as many, or share="
            )
        count = max(1, round(share * len(of_pair))) if k is None else k
        for sign in signs:
            value = of_pair["attribution"] * (1 if sign == "positive" else -1)
            ordered = of_pair.assign(value=value).sort_values(
                "value", ascending=False, kind="stable"
            )
            largest = ordered[ordered["value"] > 0].head(count)
            taken[sign].append(sorted(largest["position"].tolist()))
    for sign, places in taken.items():
        if not any(places):
            raise SteerlabError(
                f"no token of these prompts has a {sign} attribution; give other preferences, or "
                f"groups={'negative' if sign == 'positive' else 'positive'!r}"
            )
    return taken


def _at_random(
    frame: pd.DataFrame, taken: dict[str, list[list[int]]], seed: int
) -> dict[str, list[list[int]]]:
    """As many positions in each group, drawn from all of the prompt; no token is in two groups."""
    random = generator("random tokens", seed)
    drawn: dict[str, list[list[int]]] = {sign: [] for sign in taken}
    # By pair from 0 on, as the groups of `taken` are.
    for number, (_, of_pair) in enumerate(frame.groupby("pair")):
        order = torch.randperm(len(of_pair), generator=random).tolist()
        places = of_pair["position"].tolist()
        for sign, top in taken.items():
            count = len(top[number])
            drawn[sign].append(sorted(places[at] for at in order[:count]))
            order = order[count:]
    return drawn


@torch.inference_mode()
def _lost(
    model: Model,
    pairs: Sequence[Contrast],
    taken: Sequence[Sequence[int]],
    baseline: str,
    site: str,
    layers: Sequence[int],
) -> Float[Tensor, "pair layer width"]:
    """What the last token of each prompt has less without some tokens; of prompts from which none
    is taken there is none."""
    some = [number for number, places in enumerate(taken) if places]
    ids = [list(pairs[number].prompt) for number in some]
    places = [taken[number] for number in some]

    def work(rows: Sequence[int]) -> Float[Tensor, "row layer width"]:
        seen = [torch.zeros(0)] * len(layers)
        looks = [(site, layer, partial(_keep, seen, at)) for at, layer in enumerate(layers)]
        texts = [ids[row] for row in rows]
        read(model, texts, looks)
        whole = torch.stack(seen, 1)
        take = partial(_take_away, [places[row] for row in rows], baseline)
        # First, so that a look at the same place sees what is left.
        read(model, texts, [(*ENTRY, take), *looks])
        return whole - torch.stack(seen, 1)

    return torch.cat(InOrder(model).run(ids, work))


def _keep(seen: list[Tensor], at: int, h: Tensor, _: Positions) -> None:
    seen[at] = h[:, -1].double().cpu()  # the padding is on the left


def _take_away(
    taken: Sequence[Sequence[int]], baseline: str, h: Tensor, positions: Positions
) -> Tensor:
    """The baseline in the places of some tokens of each row."""
    gone = torch.zeros_like(positions.text)
    for row, places in enumerate(taken):
        padding = int(h.shape[1] - positions.real[row].sum())
        gone[row, [padding + place for place in places]] = True
    base = baseline_of(h, positions.text, baseline)
    return torch.where(gone[..., None], base.to(h.dtype), h)


def _summary(lost: Float[Tensor, "pair layer width"], of: str) -> Float[Tensor, "layer width"]:
    """One vector of each layer, of the pairs' own."""
    mean = lost.mean(0)
    if of == "mean":
        return mean
    _, _, axes = torch.linalg.svd(lost.transpose(0, 1), full_matrices=False)
    first = axes[:, 0]
    along = (first * mean).sum(-1, keepdim=True)
    # Where nothing was lost at a layer there is no axis either.
    return first * along.sign() * (lost.abs().amax((0, 2)) > 0)[:, None]


def _directions(
    moments: Moments,
    vector: Float[Tensor, "layer width"],
    preferences: Preferences,
    tokens: str,
    settings: dict[str, Any],
    made: dict[str, Any],
) -> Directions:
    """The vector as directions from the source."""
    vectors = torch.zeros(len(moments.langs), *vector.shape, dtype=torch.float64)
    vectors[moments.langs.index(preferences.target)] = vector
    name = "grains" if tokens == "top" else "grains, random tokens"
    directions = build(moments, vectors, name, source=preferences.source, settings=settings)
    return replace(directions, provenance={**directions.provenance, **made})
