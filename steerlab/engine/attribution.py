"""How much each token of a prompt contributes to an answer, or to one rather than another:
integrated gradients, and prompts with some of their tokens taken away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.analysis.quadrature import FIRST, Integral, integrate
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import shortened
from steerlab.core.sources import Source
from steerlab.engine.answers import (
    Answered,
    answer_log_probs,
    answered,
    both_log_probs,
    shares_prompts,
)
from steerlab.engine.batching import InOrder
from steerlab.engine.collect_gradients import differentiable
from steerlab.engine.inputs import need_count
from steerlab.engine.preferences import Preferences
from steerlab.models.counting import counted
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import Positions

SOURCE = Source(cites=("sundararajan2017axiomatic",))
BASELINES = ("zero", "mean")
SMALLEST = 0.01  # nats: of a smaller change float32 does not tell a twentieth
COLUMNS = ["pair", "position", "token", "attribution", "change", "error", "points"]
ENTRY = ("resid_pre", 0)  # what enters the first block: the embeddings, as far as they are changed


def attribution(
    model: Any,
    pairs: Any,
    *,
    baseline: str = "zero",
    tolerance: float = 0.05,
    most: int = 2000,
    batch: int = 64,
) -> pd.DataFrame:
    """How many nats each token of a prompt adds to log p(chosen) - log p(rejected): a row a token.

    Integrated gradients on what enters the first block: token i of a prompt x has Σ_width (x - b)_i
    ∫ ∂f(b + α (x - b))/∂x_i dα over α from 0 to 1, b the baseline, so that the tokens add up to
    f(x) - f(b), the column `change`. The answers, BOS and whatever else begins a text stay as they
    are. Behind a norm f changes where α is about √ε over the embeddings' size, which even steps
    jump over. So pieces of the path are halved until what they miss, each of the difference of its
    own ends, is together no more than `tolerance`. That bounds what the whole misses: the column
    `error`, as a share of the change (of .01 nats where the change is smaller). `points` is at how
    many points of the path it was looked. Source: Sundararajan et al. (arXiv 1703.01365); the
    contrast is GrAInS' (arXiv 2507.18043), whose code scores the last token of the input in place
    of an answer.

    Columns: pair, position (0 is BOS), token, attribution, change, error, points. Raises
    `SteerlabError` for an empty prompt or answer, NaN, and where `most` points do not reach the
    tolerance.

    Args:
        model: what `load` takes, in float32 or float64.
        pairs: what `preferences` makes, or (prompt, chosen, rejected) of each, or (prompt, answer),
            of which f is log p(answer).
        baseline: "zero", no embedding; or "mean", that of the prompt's tokens at every place.
        tolerance: how much the sum of a pair may miss, as a share of the change.
        most: how many points of the path may be looked at for a pair.
        batch: the most points that run together.
    """
    need_options(baseline, tolerance, most, batch)
    model = load(model)
    rows = rows_of(model, pairs)
    return attributed(model, rows, baseline, tolerance, most, batch)


@dataclass(frozen=True)
class Contrast:
    """A prompt with its answers.

    Args:
        prompt: the prompt's tokens, BOS included.
        answers: the prompt with each answer behind it: the chosen one, and the rejected one if
            there is one.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


def need_options(baseline: str, tolerance: float, most: int, batch: int) -> None:
    """Raise for settings with which nothing can be attributed."""
    if baseline not in BASELINES:
        raise SteerlabError(f"baseline is {baseline!r}; give {' or '.join(map(repr, BASELINES))}")
    if not 0 < tolerance < 1:
        raise SteerlabError(
            f"tolerance is {shortened(tolerance)}; give a share of the change between 0 and 1"
        )
    need_count("most", most, FIRST)
    need_count("batch", batch)


def rows_of(model: Model, pairs: Any) -> list[Contrast]:
    """The tokens of prompts and answers; an empty prompt, and what is no pair, raise."""
    model.need_decoder("attribution to the tokens of a prompt")
    model.need_unedited("attribution to the tokens of a prompt")
    listed = pairs.triples(model) if isinstance(pairs, Preferences) else pairs
    if isinstance(listed, str) or not isinstance(listed, Sequence) or not listed:
        raise SteerlabError(
            "there is no pair to attribute: give (prompt, chosen, rejected) of each, or "
            "preferences(corpus, 'en', 'de') whose rejected answers are not the chosen ones"
        )
    made = []
    for pair in listed:
        if (
            not isinstance(pair, tuple | list)
            or len(pair) not in (2, 3)
            or not all(isinstance(text, str) for text in pair)
        ):
            raise SteerlabError(
                f"{shortened(pair)} is no pair; give (prompt, chosen, rejected) or (prompt, answer)"
            )
        prompt, *answers = pair
        if not prompt.strip():
            raise SteerlabError(
                f"the prompt of the answer {answers[0][:60]!r} is empty, so that no token of it "
                "contributes; give it text"
            )
        rows = answered(model, [prompt] * len(answers), answers)
        made.append(Contrast(rows.ids[0][: -rows.lengths[0]], rows.ids))
    return made


def attributed(
    model: Model,
    pairs: Sequence[Contrast],
    baseline: str,
    tolerance: float,
    most: int,
    batch: int,
) -> pd.DataFrame:
    """The frame of `attribution`."""
    frames = []
    with model.turns.taken(), counted(model) as count:
        for number, pair in enumerate(pairs):
            path = _Path(model, pair, baseline, batch)
            found = integrate(path.look, tolerance=tolerance, smallest=SMALLEST, most=most)
            error = found.missed / max(abs(found.change), SMALLEST)
            _need_reached(model, number, found, error, tolerance)
            tokens = [pair.prompt[place] for place in path.places]
            frames.append(
                pd.DataFrame(
                    {
                        "pair": number,
                        "position": path.places,
                        "token": model.tokenizer.batch_decode([[token] for token in tokens]),
                        "attribution": found.parts.numpy(),
                        "change": found.change,
                        "error": error,
                        "points": found.points,
                    },
                    columns=COLUMNS,
                )
            )
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs = {
        "model": model.metadata,
        "baseline": baseline,
        "tolerance": tolerance,
        "tokens": count.tokens,
    }
    return frame


def _need_reached(
    model: Model, number: int, found: Integral, error: float, tolerance: float
) -> None:
    """Raise where the attributions of a pair do not add up."""
    if found.reached:
        return
    precise = model.dtype in (torch.float32, torch.float64)
    advice = "" if precise else f" load the model with dtype='float32' (it is in {model.dtype}),"
    raise SteerlabError(
        f"the attributions of pair {number} may miss {error:.0%} of the change of "
        f"{found.change:.3g} nats after {found.points} points, and {tolerance:.0%} is allowed;"
        f"{advice} give more points (most=), baseline='mean', a larger tolerance, or leave the "
        "pair out"
    )


class _Path:
    """f and its slopes on the way from the baseline to a prompt.

    Two answers share the pass of their prompt, behind which each goes on by itself, where the model
    has a cache of keys and values; otherwise each answer runs by itself. No row has padding before
    its text: what is found of a pair depends on no other.
    """

    def __init__(self, model: Model, pair: Contrast, baseline: str, batch: int):
        self.model = model
        self.pair = pair
        self.baseline = baseline
        self.batch = batch
        self.inputs = InOrder(model, every=True, backward=True)
        ids = torch.tensor([pair.prompt])
        text = model.positions(ids, torch.ones_like(ids, dtype=torch.bool)).text[0]
        self.places = [int(place) for place in text.nonzero()[:, 0]]
        if not self.places:
            raise SteerlabError(
                "a prompt has no token that counts: all of it is how a text begins; give it text"
            )
        self.shared = len(pair.answers) == 2 and shares_prompts(model)

    def look(
        self, points: Sequence[float]
    ) -> tuple[Float[Tensor, " point"], Float[Tensor, "point part"]]:
        """f at some points, and df/dα by token."""
        found = self._run(points, slopes=True)
        return found[:, 0], found[:, 1:]

    def values(self, points: Sequence[float]) -> Float[Tensor, " point"]:
        """f alone, which takes a third of the time."""
        return self._run(points, slopes=False)[:, 0]

    def _run(self, points: Sequence[float], *, slopes: bool) -> Float[Tensor, "point column"]:
        """f in the first column, and its slopes by token in the others."""
        longest = max(self.pair.answers, key=len)
        parts = []
        for start in range(0, len(points), self.batch):
            some = points[start : start + self.batch]
            work = partial(self._some, some, slopes=slopes)
            parts += self.inputs.run([longest] * len(some), work)
        total = torch.cat(parts)
        if not torch.isfinite(total).all():
            raise SteerlabError(
                f"{self.model.name} gives NaN or infinity on the way from the baseline to a "
                "prompt, of which nothing can be attributed; load it with dtype='float32', or look "
                "at its weights"
            )
        return total

    def _some(
        self, points: Sequence[float], chosen: Sequence[int], *, slopes: bool
    ) -> Float[Tensor, "point column"]:
        alpha = torch.tensor([points[number] for number in chosen])
        found = []
        for run in self._passes():
            entry = _Entry(alpha, len(self.pair.prompt), self.baseline, asked=slopes)
            with differentiable(self.model) if slopes else torch.no_grad():
                f = run(entry)
                columns = [f.detach().double().cpu()[:, None]]
                if slopes:
                    [gradient] = torch.autograd.grad(f.sum(), [entry.at])
                    # In float64: a token's terms over the width cancel.
                    terms = (gradient.double() * entry.step.double()).sum(-1).cpu()
                    columns.append(terms[:, self.places])
            found.append(torch.cat(columns, 1))
        return torch.stack(found).sum(0)

    def _passes(self) -> list[Callable[["_Entry"], Float[Tensor, " point"]]]:
        """What gives f, or parts of it that add up."""
        if self.shared:
            return [self._both]
        signed = zip((1, -1), self.pair.answers, strict=False)
        return [partial(self._one, sign, row) for sign, row in signed]

    def _one(self, sign: int, row: tuple[int, ...], entry: "_Entry") -> Float[Tensor, " point"]:
        """The log-probability of one answer, times its sign."""
        rows = self._rows(row, len(entry.alpha))
        return sign * answer_log_probs(self.model, rows, [(*ENTRY, entry.move)])

    def _both(self, entry: "_Entry") -> Float[Tensor, " point"]:
        """log p(chosen) - log p(rejected), of one pass of the prompt."""
        chosen, rejected = (self._rows(row, len(entry.alpha)) for row in self.pair.answers)
        found = both_log_probs(self.model, chosen, rejected, [(*ENTRY, entry.move)])
        return found[0] - found[1]

    def _rows(self, row: tuple[int, ...], count: int) -> Answered:
        return Answered((row,) * count, (len(row) - len(self.pair.prompt),) * count)


class _Entry:
    """What enters the first block at some points of the path: `at`, of which there is a gradient,
    and the `step` from the baseline to the prompt."""

    at: Tensor
    step: Tensor

    def __init__(self, alpha: Float[Tensor, " point"], prompt: int, baseline: str, *, asked: bool):
        self.alpha = alpha
        self.prompt = prompt
        self.baseline = baseline
        self.asked = asked  # whether a gradient is

    def move(self, h: Tensor, positions: Positions) -> Tensor:
        """Each row at its point; answers, and how a text begins, stay as they are."""
        plain = h.detach()
        moved = positions.text.clone()
        moved[:, self.prompt :] = False
        base = baseline_of(plain, moved, self.baseline)
        self.step = plain.float() - base
        new = base + rearrange(self.alpha.to(self.step), "row -> row 1 1") * self.step
        self.at = torch.where(moved[..., None], new.to(h.dtype), plain)
        self.at.requires_grad_(self.asked)
        return self.at


def baseline_of(
    plain: Float[Tensor, "row pos width"], moved: Bool[Tensor, "row pos"], baseline: str
) -> Float[Tensor, "row pos width"]:
    """What stands in the places of tokens that are taken away, in float32."""
    h = plain.float()
    if baseline == "zero":
        return torch.zeros_like(h)
    weight = rearrange(moved.float(), "row pos -> row pos 1")
    # Padding may hold anything, NaN too.
    kept = h.masked_fill(weight == 0, 0)
    mean = kept.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return mean.expand_as(h)
