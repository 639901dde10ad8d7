"""Amplified edits: at each token the edited model is weighed against the plain one, with a strength
that given answers decide."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits.amplified import Amplification, kept, moves
from steerlab.edits.edit import Edit, need_edit
from steerlab.engine.answers import Answered, answered, padded
from steerlab.engine.inputs import need_count
from steerlab.engine.preferences import Preferences
from steerlab.models.loading import load
from steerlab.models.model import Model

ROUNDS, TINY = 60, 1e-12


def amplify(
    edit: Edit,
    strength: float | None = None,
    *,
    rule: str = "kl",
    mask: float = 0.1,
    model: Any = None,
    dev: Preferences | None = None,
) -> Edit:
    """An edit whose outputs are decoded from two models' logits, the edited one's z and the plain
    one's: z' = z + μ δ where p ≥ mask · max p, -∞ elsewhere.

    δ = -p (r - E_p[r]), r = log p - log q, of the edited model's p and the plain one's q, is the
    negative gradient of KL(p ‖ q) in z. Without a strength, μ is what gives the `dev` answers the
    least loss, of either sign: the loss is convex in μ. δ points back to the plain model, so that
    μ is below 0 where the edit serves the answers. Where p = q nothing changes. Source: SVDecode
    (arXiv 2509.15888), whose μ is the mean over tokens of one Gauss-Newton step
    (`amplifying_strengths` has both).
    `rule="difference"` has δ = r: proxy tuning, its control.

    It is for `generate`, `decode` and sweeps, where both of a row run in one batch; what reads
    activations or texts refuses it. Its dose is the edit's.

    Args:
        edit: what is amplified; of a stack each row is.
        strength: μ; without one, give model and dev.
        rule: kl or difference.
        mask: tokens below this share of the largest probability are not said; 0 for no mask.
        model: what `load` takes, to find the strength.
        dev: pairs whose chosen answers decide the strength, of `preferences`.
    """
    need_edit(edit)
    edit.need_plain("amplify the edit itself")
    if not edit.parts:
        raise SteerlabError("there is nothing to amplify: the edit has no parts")
    if strength is None:
        if model is None or dev is None:
            raise SteerlabError(
                "give a strength, or model= and dev=preferences(...) from which it is found"
            )
        if edit.rows is not None:
            raise SteerlabError("a strength is found for one edit; amplify each, and stack them")
        strength = amplifying_strengths(model, edit, dev, rule=rule, mask=mask).best
    setting = Amplification(float(strength), rule, float(mask))
    return replace(edit, logits=(setting,) * (edit.rows or 1))


@dataclass(frozen=True)
class Strengths:
    """What `amplifying_strengths` finds.

    Args:
        best: with the least loss of the answers' tokens.
        mean: of one Gauss-Newton step a token, <e_y - p, δ> / ‖δ‖²; so SVDecode has it.
        median: of the same.
        loss: nats a token at 0 and at `best`.
        tokens: how many tokens counted.
        masked: how many more did not, as the mask leaves them out whatever μ is.
    """

    best: float
    mean: float
    median: float
    loss: tuple[float, float]
    tokens: int
    masked: int


@torch.inference_mode()
def amplifying_strengths(
    model: Any,
    edit: Edit,
    dev: Preferences,
    *,
    rule: str = "kl",
    mask: float = 0.1,
    batch: int = 8,
) -> Strengths:
    """The strengths at which `amplify` serves the chosen answers.

    Raises `SteerlabError` where the edit changes no logit, and where the mask leaves out every
    token of the answers.

    Args:
        model: what `load` takes.
        edit: what is to be amplified.
        dev: pairs of `preferences`; only prompts and chosen answers are read.
        rule: kl or difference.
        mask: see `amplify`.
        batch: how many rows run together.
    """
    Amplification(0.0, rule, mask)  # raises for what is none
    need_count("batch", batch)
    model = load(model)
    rows = answered(model, dev.prompts(model), dev.chosen)
    terms = [
        _Term.of(edited, plain, gold, rule, mask)
        for edited, plain, gold in _both(model, edit, rows, batch)
    ]
    tokens = sum(len(term.gold) for term in terms)
    masked = sum(term.masked for term in terms)
    if not tokens:
        raise SteerlabError(
            f"the mask {mask} leaves out all {masked} tokens of the answers; give a smaller mask"
        )
    if not any(bool(term.delta.any()) for term in terms):
        raise SteerlabError("the edit changes no logit, so that no strength of it is the best")
    steps = torch.cat([term.steps() for term in terms])
    best = _least(terms)
    losses = tuple(sum(float(term.loss(at).sum()) for term in terms) / tokens for at in (0.0, best))
    return Strengths(
        best, float(steps.mean()), float(steps.median()), (losses[0], losses[1]), tokens, masked
    )


def _both(
    model: Model, edit: Edit, rows: Answered, batch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(edited logits, plain ones, what follows) at the answers' tokens, batch by batch."""
    with model.turns.taken():
        model.need_unedited("finding a strength")
        for at in range(0, len(rows), batch):
            some = rows.take(range(at, min(at + batch, len(rows))))
            tokens, mask, in_answer = padded(model, some)
            follows = in_answer[:, -some.longest :]
            # As in decoding, where what has been answered is generated.
            places = replace(
                model.positions(tokens[:, :-1], mask[:, :-1]), generated=in_answer[:, :-1]
            )
            plain, _ = model.forward(tokens[:, :-1], mask[:, :-1], last=some.longest)
            plain = plain[follows]
            with edit.on(model):
                edited, _ = model.forward(
                    tokens[:, :-1], mask[:, :-1], last=some.longest, positions=places
                )
            yield edited[follows], plain, tokens[:, -some.longest :][follows]


@dataclass(frozen=True)
class _Term:
    """The tokens of one batch: logits where they are kept and -∞ elsewhere, and δ there."""

    logits: Float[Tensor, "token vocab"]
    delta: Float[Tensor, "token vocab"]
    gold: Int[Tensor, " token"]
    masked: int

    @classmethod
    def of(cls, edited: Tensor, plain: Tensor, gold: Tensor, rule: str, mask: float) -> "_Term":
        keep = kept(edited, mask)
        there = keep.gather(1, gold[:, None])[:, 0]
        edited, plain, keep = edited[there], plain[there], keep[there]
        delta = moves(edited, plain, rule).masked_fill(~keep, 0)
        logits = edited.float().masked_fill(~keep, -torch.inf)
        return cls(logits, delta, gold[there], int((~there).sum()))

    def steps(self) -> Float[Tensor, " token"]:
        """<e_y - p, δ> / (‖δ‖² + ε) over the tokens that are kept, p the edited model's."""
        p = self.logits.softmax(-1)
        up = self.delta.gather(1, self.gold[:, None])[:, 0] - (p * self.delta).sum(-1)
        return up / (self.delta.square().sum(-1) + TINY)

    def loss(self, strength: float) -> Float[Tensor, " token"]:
        """Nats of each token."""
        logits = self.logits + strength * self.delta
        return torch.nn.functional.cross_entropy(logits, self.gold, reduction="none")

    def slope(self, strength: float) -> float:
        """d loss / dμ = Σ (E_p'[δ] - δ_y), which rises with μ."""
        p = (self.logits + strength * self.delta).softmax(-1)
        mean = (p * self.delta).sum(-1)
        return float((mean - self.delta.gather(1, self.gold[:, None])[:, 0]).double().sum())


def _least(terms: Sequence[_Term]) -> float:
    """Where the slope is 0: it rises, so that halving finds it."""

    def slope(at: float) -> float:
        return sum(term.slope(at) for term in terms)

    sign = -1.0 if slope(0.0) > 0 else 1.0
    far = 1.0
    while slope(sign * far) * sign < 0:
        far *= 2
        if far > 2**20:
            raise SteerlabError(
                "the answers ask for a strength without end: the mask leaves them alone with what "
                "δ prefers; give more answers, or a smaller mask"
            )
    low, high = sorted((0.0, sign * far))
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2
