"""Directions that are trained: by preferences or by the answers' own loss, under a frozen model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.random import generator
from steerlab.core.settings import shortened
from steerlab.engine.answers import Answered, Look, answer_log_probs, answered
from steerlab.engine.collect import collect
from steerlab.engine.collect_gradients import differentiable
from steerlab.engine.inputs import need_count
from steerlab.engine.learned_parts import Code, Learnt, Rank1, Vector
from steerlab.engine.preferences import Preferences
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE

HOW = ("bipo", "lm", "yapo", "reft_r1")
BOTH_WAYS = ("bipo", "yapo")  # whose loss compares two answers, with both signs
WARM = 0.1  # the share of the steps over which the rate rises


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
    settings = _Settings(how, beta, batch, steps, rate, every, patience, seed)
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
    train, held = (_Pairs.of(model, each, settings) for each in (preferences, dev))
    learnt = _begin(how, width, sae, start, preferences, layer, seed)
    run = _Run(model, (site, layer), learnt, settings, gap)
    found = run.train(train, held) if steps else learnt
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


@dataclass(frozen=True)
class _Settings:
    """The knobs of a training."""

    how: str
    beta: float
    batch: int
    steps: int
    rate: float
    every: int
    patience: int
    seed: int


def _need(
    settings: _Settings,
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


@dataclass(frozen=True)
class _Pairs:
    """Rows of the chosen answers and of the rejected ones, with what the model as it is gives."""

    chosen: Answered
    rejected: Answered | None
    reference: Float[Tensor, "two pair"] | None
    tokens_read: int = 0

    def __len__(self) -> int:
        return len(self.chosen)

    @classmethod
    def of(cls, model: Model, preferences: Preferences, settings: _Settings) -> "_Pairs":
        if settings.how not in BOTH_WAYS:
            chosen = answered(model, preferences.prompts(model), preferences.chosen)
            return cls(chosen, None, None)
        triples = preferences.triples(model)
        if not triples:
            raise SteerlabError(
                "of no sentence does the model say anything but the chosen answer: there is "
                "nothing to prefer; give other sentences, another form, or rejected="
            )
        prompts, right, wrong = (list(each) for each in zip(*triples, strict=True))
        chosen, rejected = (answered(model, prompts, each) for each in (right, wrong))
        with torch.no_grad():
            both = [_in_batches(model, rows, settings.batch) for rows in (chosen, rejected)]
        read = 2 * (chosen.tokens + rejected.tokens)  # once for these, once for the model's answers
        return cls(chosen, rejected, torch.stack(both), read)

    def take(self, rows: Sequence[int]) -> "_Pairs":
        if self.rejected is None or self.reference is None:
            return _Pairs(self.chosen.take(rows), None, None)
        index = torch.tensor(list(rows), device=self.reference.device)
        return _Pairs(self.chosen.take(rows), self.rejected.take(rows), self.reference[:, index])


def _in_batches(model: Model, rows: Answered, batch: int) -> Float[Tensor, " row"]:
    """The log-probabilities of many rows, as the model is."""
    some = [range(at, min(at + 2 * batch, len(rows))) for at in range(0, len(rows), 2 * batch)]
    with model.turns.taken():
        return torch.cat([answer_log_probs(model, rows.take(each)) for each in some])


def losses(
    model: Model,
    pairs: _Pairs,
    learnt: Learnt,
    place: tuple[str, int],
    signs: Float[Tensor, " pair"],
    *,
    how: str,
    beta: float,
) -> Float[Tensor, " pair"]:
    """The loss of each pair, which depends on no other of its batch."""
    if pairs.rejected is None or pairs.reference is None:
        look: Look = (*place, learnt.hook(signs))
        said = answer_log_probs(model, pairs.chosen, [look])
        lengths = torch.tensor(pairs.chosen.lengths, device=said.device)
        return -said / lengths + learnt.penalty
    look = (*place, learnt.hook(torch.cat([signs, signs])))
    said = answer_log_probs(model, pairs.chosen + pairs.rejected, [look])
    gained = rearrange(said, "(two pair) -> two pair", two=2) - pairs.reference
    return -torch.nn.functional.logsigmoid(signs * beta * (gained[0] - gained[1]))


@dataclass
class _Run:
    """One training: its curve, and the tokens that it read."""

    model: Model
    place: tuple[str, int]
    learnt: Learnt
    settings: _Settings
    gap: float
    curve: list[list[float]] = field(default_factory=list)
    tokens: int = 0

    def train(self, train: _Pairs, held: _Pairs) -> Learnt:
        """The best on the held-out pairs, of those that were looked at."""
        knobs = self.settings
        random = generator("training a direction", knobs.seed)
        best, best_loss, worse = self.learnt, self.dev_loss(held), 0
        self.curve = [[0, float("nan"), best_loss]]
        self.curve[0][1] = best_loss  # before any step there is no other
        order: list[int] = []
        recent: list[float] = []
        with self.model.turns.taken(), differentiable(self.model):
            value = self.learnt.value.clone().requires_grad_(True)
            rate = knobs.rate * self.gap / value.numel() ** 0.5
            optimiser = torch.optim.AdamW([value], lr=rate, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_pace, knobs.steps))
            for step in range(1, knobs.steps + 1):
                if len(order) < min(knobs.batch, len(train)):
                    order += torch.randperm(len(train), generator=random).tolist()
                some, order = order[: knobs.batch], order[knobs.batch :]
                loss = self.loss(train.take(some), replace(self.learnt, value=value), random)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                recent.append(float(loss.detach()))
                if step % knobs.every and step < knobs.steps:
                    continue
                now = replace(self.learnt, value=value.detach().clone())
                dev_loss = self.dev_loss(held, now)
                self.curve.append([step, sum(recent) / len(recent), dev_loss])
                recent = []
                if dev_loss < best_loss:
                    best, best_loss, worse = now, dev_loss, 0
                else:
                    worse += 1
                if worse == knobs.patience:
                    break
        return best

    def loss(self, pairs: _Pairs, learnt: Learnt, random: torch.Generator) -> Tensor:
        """The mean loss of a batch, under signs that are drawn."""
        signs = torch.ones(len(pairs), device=self.model.device)
        if self.settings.how in BOTH_WAYS:
            drawn = torch.randint(0, 2, (len(pairs),), generator=random) * 2.0 - 1
            signs = drawn.to(signs.device)
        return self.of(pairs, learnt, signs).mean()

    def dev_loss(self, pairs: _Pairs, learnt: Learnt | None = None) -> float:
        """The mean loss of the held-out pairs; of a two-sided loss over both signs."""
        learnt = self.learnt if learnt is None else learnt
        batch = max(8, self.settings.batch)
        total = 0.0
        kinds = (1.0, -1.0) if self.settings.how in BOTH_WAYS else (1.0,)
        with torch.no_grad(), self.model.turns.taken():
            for at in range(0, len(pairs), batch):
                some = pairs.take(range(at, min(at + batch, len(pairs))))
                for sign in kinds:
                    signs = torch.full((len(some),), sign, device=self.model.device)
                    total += float(self.of(some, learnt, signs).sum()) / len(kinds)
        return total / len(pairs)

    def of(self, pairs: _Pairs, learnt: Learnt, signs: Tensor) -> Tensor:
        self.tokens += pairs.chosen.tokens
        self.tokens += 0 if pairs.rejected is None else pairs.rejected.tokens
        how, beta = self.settings.how, self.settings.beta
        return losses(self.model, pairs, learnt, self.place, signs, how=how, beta=beta)


def _pace(steps: int, step: int) -> float:
    """The factor of the rate: up over the first steps, then down a half cosine."""
    warm = max(1, round(WARM * steps))
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * share))))


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
        extra = _code(learnt.sae, learnt.value)
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
