"""Directions that are trained: by preferences or by the answers' own loss, under a frozen model."""

import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.random import generator
from steerlab.core.settings import shortened
from steerlab.core.sources import Source
from steerlab.engine.answers import shares_prompts
from steerlab.engine.collect import collect
from steerlab.engine.inputs import need_count
from steerlab.engine.learned_parts import Code, Learnt, Rank1, Vector
from steerlab.engine.preferences import Preferences
from steerlab.engine.training import BOTH_WAYS, Knobs, Pairs, Run
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE


@dataclass(frozen=True, kw_only=True)
class Training(Source):
    """The record of what can be trained: where it comes from, and what steers with it.

    Args:
        operator: what a study steers with.
        sae: whether it is a code of an SAE's latents.
    """

    operator: str = "add"
    sae: bool = False


HOW = {
    "bipo": Training(cites=("cao2024bipo",)),
    "lm": Training(no_source="the plain loss of the answers"),
    "yapo": Training(cites=("bounhar2026yapo",), operator="add_code", sae=True),
    "reft_r1": Training(cites=("wu2025axbench",)),
}


def learn(
    model: Any,
    preferences: Preferences,
    *,
    how: str = "bipo",
    layer: int,
    site: str = "resid_post",
    start: Directions | None = None,
    sae: SAE | None = None,
    dev: Preferences | None = None,
    held_out: float = 0.2,
    steps: int = 100,
    batch: int = 4,
    rate: float = 0.1,
    beta: float = 0.1,
    every: int = 10,
    patience: int = 3,
    seed: int = 0,
) -> Directions:
    """Train a direction from the preferences' source to their target, at one layer; the model stays
    frozen.

    - `bipo`: -log σ(s β [Δ(chosen) - Δ(rejected)]), Δ = log π(answer | h + s v) - log π(answer), s
      drawn from -1 and +1 for each row. Source: Cao et al. (BiPO, arXiv 2406.00045), whose code
      draws one s a batch.
    - `lm`: -log π(chosen | h + v) / tokens: a vector of the plain language-model loss.
    - `yapo`: the loss of `bipo`, with a code v of an SAE's latents: h + Dec(relu(z + s v)) -
      Dec(z), z = Enc(h), so that the error of the reconstruction stays. The operator `add_code`
      does it; the vectors are Dec(v). Source: Bounhar et al. (YaPO, arXiv 2601.08441).
    - `reft_r1`: the loss of `lm` under h + m w, ‖w‖ = 1, m the mean of the 8 largest relu(h·w) of
      the row, and .005 times the mean of the others. Source: Wu et al. (AxBench, arXiv 2501.17148).
      Where all texts share most of their vector, as in Gemma, h·w has one sign at all tokens; a
      random start is taken on the side where it is above 0, and a warning tells of a start that no
      gradient reaches.

    After every `every` steps the loss on held-out pairs is taken; the best of these vectors, the
    start among them, is what is returned. The provenance has the curve (step, loss, dev loss), the
    seed, the seconds and tokens of fitting, and the `length` that was trained, in natural gaps.
    Raises `SteerlabError`, before the work, for what cannot be trained.

    Args:
        model: what `load` takes.
        preferences: what `preferences` makes.
        how: the loss and what is trained.
        layer: where.
        site: where in that layer.
        start: directions to set out from, at strength 1, such as diffmean's; by default from zero,
            or of `reft_r1` from a random one.
        sae: of that layer and site, for `yapo`; `orthonormal` makes its control.
        dev: pairs for the choice of the step; by default `held_out` of the others.
        held_out: their share.
        steps: of AdamW, with a warm-up and a cosine; 0 gives the start.
        batch: pairs of a step.
        rate: how far a step may go, in natural gaps: AdamW's rate is this over √(numbers).
        beta: of the preference losses.
        every: how many steps come between two looks at the dev loss.
        patience: after how many looks without a better one it stops.
        seed: of the order, the signs and a random start.
    """
    begun, worked = time.perf_counter(), time.process_time()
    settings = Knobs(how, beta, batch, steps, rate, every, patience, seed)
    _need(settings, preferences, dev, held_out, sae, start)
    model = load(model)
    model.need_layer(layer)
    model.need_unedited("training a direction")
    width = model.width_of(site)
    _need_places(model, preferences, layer, site, width, start, sae)
    if dev is None:
        dev = preferences.take(max(1, round(held_out * len(preferences))))
        preferences = preferences.drop(len(dev))
    pair = preferences.texts.select([preferences.source, preferences.target])
    moments = collect(model, pair, layers=[layer], site=site, also=[], progress=False)
    gap = float((moments.mean[1, 0] - moments.mean[0, 0]).norm())
    train, held = (Pairs.of(model, each, settings) for each in (preferences, dev))
    here = None if sae is None else sae.to(model.device)
    learnt = _begin(how, width, here, start, preferences, layer, seed)
    if how == "reft_r1" and start is None and float(learnt.value.double() @ moments.mean[0, 0]) < 0:
        learnt.value = -learnt.value  # or the relu would pass nothing where all texts share most
    learnt.value = learnt.value.to(model.device)
    shared = how in BOTH_WAYS and shares_prompts(model)
    run = Run(model, (site, layer), learnt, settings, gap, shared)
    found = run.train(train, held) if steps else learnt
    if run.still:
        message = (
            f"no step of {how} had a gradient, so that what comes back is its start"
            + (": h·w is below 0 at every token, where relu is 0" if how == "reft_r1" else "")
            + "; set out from another start, or take how='lm'"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    tokens = run.tokens + train.tokens_read + held.tokens_read + int(moments.count.sum())
    made = {
        "settings": {
            **{key: getattr(settings, key) for key in ("how", "beta", "batch", "rate", "steps")},
            "start": "none" if start is None else start.estimator,
            "sae": None if sae is None else str(sae.about.get("id") or sae.digest[:16]),
        },
        "preferences": preferences.metadata,
        "pairs": {"train": len(train), "dev": len(held)},
        "curve": run.curve,
        "seed": seed,
        "length": float(found.vector().norm()) / max(gap, 1e-30),
        "cost": {
            "seconds": round(time.perf_counter() - begun, 3),
            "cpu_seconds": round(time.process_time() - worked, 3),
            "tokens": tokens,
        },
    }
    return _directions(found, moments, how, preferences.source, made)


def _need(
    settings: Knobs,
    preferences: Any,
    dev: Any,
    held_out: float,
    sae: SAE | None,
    start: Directions | None,
) -> None:
    """Raise for settings with which nothing could be trained."""
    if settings.how not in HOW:
        raise SteerlabError(f"how is {settings.how!r}; give {', '.join(HOW)}")
    for each in (preferences, dev):
        if not isinstance(each, Preferences | None) or preferences is None:
            raise SteerlabError(
                f"preferences are needed, not a {type(each).__name__}; give "
                "preferences(corpus, 'en', 'de')"
            )
    for name in ("batch", "every", "patience"):
        need_count(name, getattr(settings, name))
    need_count("steps", settings.steps, 0)
    for name in ("rate", "beta"):
        value = getattr(settings, name)
        if not 0 < value < float("inf"):
            raise SteerlabError(f"{name} is {shortened(value)}; give a number above 0")
    if dev is None and not (0 < held_out < 1 and len(preferences) > 1):
        raise SteerlabError(
            f"held_out is {held_out} of {len(preferences)} pairs; give a share between 0 and 1 of "
            "two pairs or more, or dev="
        )
    if (sae is None) == (settings.how == "yapo"):
        raise SteerlabError(
            "how='yapo' trains a code of an SAE; give sae=, such as saes()[layer]"
            if sae is None
            else f"sae= belongs to how='yapo', not to {settings.how!r}; leave it out"
        )
    if start is not None and settings.how == "yapo":
        raise SteerlabError("a code of an SAE sets out from zero; leave start out of how='yapo'")


def _need_places(
    model: Model,
    preferences: Preferences,
    layer: int,
    site: str,
    width: int,
    start: Directions | None,
    sae: SAE | None,
) -> None:
    """Raise for a start or an SAE of another place, width or model."""
    for name, given in (("start", start), ("sae", sae)):
        if given is not None and (given.site, given.width) != (site, width):
            raise SteerlabError(
                f"{name} is of {given.site}, width {given.width}, and the training of {site}, "
                f"width {width}; give one of that place"
            )
    if start is not None:  # both raise where it lacks them
        start.at(layer).between(preferences.source, preferences.target)
    if sae is not None:
        if sae.layer != layer:
            raise SteerlabError(f"the SAE is of layer {sae.layer}, not {layer}; give that layer's")
        sae.readers([0])  # raises for a kind whose latents depend on one another
        sae.need(model)


def _begin(
    how: str,
    width: int,
    sae: SAE | None,
    start: Directions | None,
    preferences: Preferences,
    layer: int,
    seed: int,
) -> Learnt:
    """What is trained, as it is before the first step."""
    if sae is not None:
        return Code(torch.zeros(sae.latents), sae=sae)
    value = torch.zeros(width)
    if start is not None:
        direction = start.at(layer).between(preferences.source, preferences.target)
        value = (direction.gap[:, None] * direction.unit)[0].float().clone()
    elif how == "reft_r1":
        value = torch.randn(width, generator=generator("a direction to train", seed))
    return Rank1(value) if how == "reft_r1" else Vector(value)


def _directions(
    learnt: Learnt, moments: Moments, how: str, source: str, made: dict[str, Any]
) -> Directions:
    """The trained vector as directions from the source."""
    vector = learnt.vector().detach().float().cpu()
    vectors = torch.zeros(2, 1, len(vector))
    vectors[1, 0] = vector
    basis = torch.zeros(2, 1, 1, len(vector))
    basis[1, 0, 0] = vector / vector.norm().clamp(min=1e-30)
    extra = {}
    if isinstance(learnt, Code):
        extra = _code(learnt.sae.to("cpu"), learnt.value)
    return Directions(
        vectors=vectors,
        basis=basis,
        means=moments.mean.float(),
        langs=moments.langs,
        layers=moments.layers,
        site=moments.site,
        source=source,
        provenance={**moments.provenance, "estimator": how, **made},
        extra=extra,
    )


def _code(sae: SAE, value: Float[Tensor, " latent"]) -> dict[str, Tensor]:
    """What `add_code` reads: the latents that the code moves, and by how much."""
    units = value.detach().cpu().nonzero()[:, 0].tolist()
    encoder, bias, threshold = sae.readers(units) if units else sae.readers([0])
    code = value.detach().cpu()[units] if units else torch.zeros(1)
    decoder = sae.W_dec[units] if units else sae.W_dec[:1]
    found = {
        "encoder": encoder,
        "bias": bias,
        "threshold": threshold,
        "decoder": decoder,
        "code": code,
    }
    # The source has the same latents and moves none of them.
    shared = {name: torch.stack([each, each])[:, None] for name, each in found.items()}
    shared["code"][0] = 0
    return shared
