"""The training of a vector under a frozen model: its losses, its steps, and the choice of the best
on held-out pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.engine.answers import Answered, Look, answer_log_probs, answered, both_log_probs
from steerlab.engine.collect_gradients import differentiable
from steerlab.engine.learned_parts import Learnt
from steerlab.engine.preferences import Preferences
from steerlab.models.model import Model

BOTH_WAYS = ("bipo", "yapo")  # whose loss compares two answers, with both signs
WARM = 0.1  # the share of the steps over which the rate rises


@dataclass(frozen=True)
class Knobs:
    """The knobs of a training, as `learn` takes them."""

    how: str
    beta: float
    batch: int
    steps: int
    rate: float
    every: int
    patience: int
    seed: int


@dataclass(frozen=True)
class Pairs:
    """Rows of the chosen answers and of the rejected ones, with what the model as it is gives."""

    chosen: Answered
    rejected: Answered | None
    reference: Float[Tensor, "two pair"] | None
    tokens_read: int = 0

    def __len__(self) -> int:
        return len(self.chosen)

    @classmethod
    def of(cls, model: Model, preferences: Preferences, settings: Knobs) -> "Pairs":
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

    def take(self, rows: Sequence[int]) -> "Pairs":
        if self.rejected is None or self.reference is None:
            return Pairs(self.chosen.take(rows), None, None)
        index = torch.tensor(list(rows), device=self.reference.device)
        return Pairs(self.chosen.take(rows), self.rejected.take(rows), self.reference[:, index])


def _in_batches(model: Model, rows: Answered, batch: int) -> Float[Tensor, " row"]:
    """The log-probabilities of many rows, as the model is."""
    some = [range(at, min(at + 2 * batch, len(rows))) for at in range(0, len(rows), 2 * batch)]
    with model.turns.taken():
        return torch.cat([answer_log_probs(model, rows.take(each)) for each in some])


def losses(
    model: Model,
    pairs: Pairs,
    learnt: Learnt,
    place: tuple[str, int],
    signs: Float[Tensor, " pair"],
    *,
    how: str,
    beta: float,
    shared: bool = False,
) -> Float[Tensor, " pair"]:
    """The loss of each pair, which depends on no other of its batch.

    Args:
        model: what is frozen.
        pairs: the rows.
        learnt: what is trained.
        place: its site and layer.
        signs: of each pair.
        how: which loss.
        beta: of the preference losses.
        shared: whether a prompt is read once for both of its answers.
    """
    if pairs.rejected is None or pairs.reference is None:
        look: Look = (*place, learnt.hook(signs))
        said = answer_log_probs(model, pairs.chosen, [look])
        lengths = torch.tensor(pairs.chosen.lengths, device=said.device)
        return -said / lengths + learnt.penalty
    look = (*place, learnt.hook(torch.cat([signs, signs])))
    if shared:
        before = (*place, learnt.hook(signs))
        said = both_log_probs(model, pairs.chosen, pairs.rejected, [before], [look])
    else:
        said = answer_log_probs(model, pairs.chosen + pairs.rejected, [look])
        said = rearrange(said, "(two pair) -> two pair", two=2)
    gained = said - pairs.reference
    return -torch.nn.functional.logsigmoid(signs * beta * (gained[0] - gained[1]))


@dataclass
class Run:
    """One training: its curve, and the tokens that it read."""

    model: Model
    place: tuple[str, int]
    learnt: Learnt
    settings: Knobs
    gap: float
    shared: bool = False  # whether a prompt is read once for both answers
    curve: list[list[float]] = field(default_factory=list)
    tokens: int = 0
    still: bool = False  # whether no step had a gradient

    def train(self, train: Pairs, held: Pairs) -> Learnt:
        """The best on the held-out pairs, of those that were looked at."""
        knobs = self.settings
        random = generator("training a direction", knobs.seed)
        best, best_loss, worse = self.learnt, self.dev_loss(held), 0
        self.curve = [[0, float("nan"), best_loss]]
        self.curve[0][1] = best_loss  # before any step there is no other
        order: list[int] = []
        self.still = True
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
                self.still = self.still and not (value.grad is not None and bool(value.grad.any()))
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

    def loss(self, pairs: Pairs, learnt: Learnt, random: torch.Generator) -> Tensor:
        """The mean loss of a batch, under signs that are drawn."""
        signs = torch.ones(len(pairs), device=self.model.device)
        if self.settings.how in BOTH_WAYS:
            drawn = torch.randint(0, 2, (len(pairs),), generator=random) * 2.0 - 1
            signs = drawn.to(signs.device)
        return self.of(pairs, learnt, signs).mean()

    def dev_loss(self, pairs: Pairs, learnt: Learnt | None = None) -> float:
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

    def of(self, pairs: Pairs, learnt: Learnt, signs: Tensor) -> Tensor:
        self.tokens += pairs.chosen.tokens
        if pairs.rejected is not None:
            self.tokens += sum(pairs.rejected.lengths) if self.shared else pairs.rejected.tokens
        how, beta = self.settings.how, self.settings.beta
        place, shared = self.place, self.shared
        return losses(self.model, pairs, learnt, place, signs, how=how, beta=beta, shared=shared)


def _pace(steps: int, step: int) -> float:
    """The factor of the rate: up over the first steps, then down a half cosine."""
    warm = max(1, round(WARM * steps))
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * share))))
