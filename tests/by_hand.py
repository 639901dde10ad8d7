"""Decoding and reading as plainly as can be, to hold the engine against: one row, no cache,
formulas written out."""

import functools
import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, product
from random import Random
from typing import Any

import torch
from conftest import RESIDUAL
from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.edits import (
    POSITIONS,
    Edit,
    ablate,
    add,
    affine,
    conceptor,
    erase,
    overwrite,
    push,
    rotate,
)
from steerlab.engine.prompts import encode
from steerlab.models.model import Model

OPERATORS = ("add", "ablate", "rotate")
EVERY = (
    *OPERATORS,
    "affine",
    "push",
    "erase",
    "conceptor",
    "overwrite",
)  # the last three need `equipped` directions
# two tokens whose logits differ by less may change places when sums are rounded in another order
TIE = 1e-3


@dataclass(frozen=True)
class Step:
    """One operator with its numbers, of which an edit can be made and which can be done by hand."""

    operator: str
    direction: Direction
    size: float
    positions: str = "all"

    @property
    def edit(self) -> Edit:
        """Size 0 is the identity of each."""
        step, size, where = self.direction, self.size, self.positions
        made = {
            "add": lambda: add(step, strength=size, positions=where),
            "ablate": lambda: ablate(step, fraction=size, positions=where),
            "rotate": lambda: rotate(step, share=size, positions=where),
            "affine": lambda: affine(step, level=0.8, fraction=size, positions=where),
            "push": lambda: push(step, strength=size, positions=where),
            "erase": lambda: erase(step, fraction=size, positions=where),
            "conceptor": lambda: conceptor(
                step, aperture=0.9, beta=1.2, fraction=size, positions=where
            ),
            "overwrite": lambda: overwrite(step, scale=0.7, fraction=size, positions=where),
        }
        return made[self.operator]()

    def by_hand(self, h: Tensor, place: int) -> Tensor:
        """What becomes of h [pos width] at the direction's layer number `place`."""
        unit, gap, start, basis = (
            getattr(self.direction, name)[place].double()
            for name in ("unit", "gap", "start", "basis")
        )
        x = h.double()
        if self.operator == "add":
            return (x + self.size * gap * unit).to(h.dtype)
        if self.operator == "ablate":
            return (x - self.size * x @ basis.T @ basis).to(h.dtype)
        if self.operator != "rotate":
            return self._more_by_hand(x, place).to(h.dtype)
        first = start / start.norm()
        second = unit - (unit @ first) * first
        second = second / second.norm()
        end = start + gap * unit
        angle = self.size * torch.arccos(start @ end / start.norm() / end.norm())
        before = torch.complex(x @ first, x @ second)
        move = before * torch.polar(torch.ones_like(angle), angle) - before
        return (x + move.real[:, None] * first + move.imag[:, None] * second).to(h.dtype)

    def _more_by_hand(self, x: Tensor, place: int) -> Tensor:
        """In double precision, with dense matrices where there are any."""
        step, size = self.direction, self.size
        extra = {name: value[place].double() for name, value in step.extra.items()}
        unit, basis, one = (
            step.unit[place].double(),
            step.basis[place].double(),
            torch.eye(x.shape[1]).double(),
        )
        if self.operator == "affine":
            assert step.end is not None
            level = unit @ (0.2 * step.start[place].double() + 0.8 * step.end[place].double())
            return x + size * (level - x @ unit)[:, None] * unit
        if self.operator == "push":
            return x + size * step.gap[place] * torch.nn.functional.normalize(
                x @ basis.T @ basis, dim=-1
            )
        if self.operator == "erase":
            return x - size * (x - extra["centre"]) @ extra["read"].T @ extra["write"]
        if self.operator == "conceptor":
            moment = extra["axes"].T * extra["spectrum"] @ extra["axes"]
            return x + size * (1.2 * x @ torch.linalg.inv(moment + one / 0.9**2) @ moment - x)
        new = x + size * extra["mask"] * (0.7 * extra["values"] - x)
        return new * x.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True)


def equipped(direction: Direction, seed: int = 0) -> Direction:
    """The same direction with what every operator asks for, at random, and an end of its own, a
    gap away."""
    random, shape = torch.Generator().manual_seed(seed), direction.start.shape
    width, rows = shape[1], lambda rank: torch.randn(shape[0], rank, shape[1], generator=random)
    extra = {
        "read": rows(3) / width**0.5,
        "write": rows(3) / width**0.5,
        "centre": rows(1)[:, 0],
        "axes": torch.linalg.qr(rows(width * 3 // 4).mT)[0].mT.contiguous(),
        "spectrum": torch.rand(shape[0], width * 3 // 4, generator=random)
        .sort(descending=True)
        .values
        * 5,
        "mask": (torch.rand(*shape, generator=random) < 0.3)
        .float()
        .index_fill(1, torch.tensor([0]), 1),
        "values": rows(1)[:, 0],
        "agreement": 3 * rows(1)[:, 0],
        "reads": rows(1)[:, 0].sign(),
        "writes": rows(1)[:, 0] / width,
    }
    away = torch.nn.functional.normalize(rows(1)[:, 0], dim=-1)
    return replace(direction, end=direction.start + direction.gap[:, None] * away, extra=extra)


SITE_OF = {  # where operators act, by the units that they take
    None: "resid_post",
    "latents": "resid_post",
    "neurons": "mlp_post",
    "experts": "router",
}


def with_units(direction: Direction, seed: int = 0, *, rank: int = 3) -> Direction:
    """The same with random latents and neurons of both languages; a latent is on at a quarter of
    places, or so."""
    random, (layers, width) = torch.Generator().manual_seed(seed), direction.start.shape

    def units() -> dict[str, Tensor]:
        numbers = lambda *shape: torch.randn(layers, *shape, generator=random)  # noqa: E731
        found = {name: numbers(rank, width) for name in ("encoder", "decoder")}
        found |= {name: numbers(rank) for name in ("bias", "push", "pull")}
        found |= {
            "threshold": 2 + numbers(rank).abs(),
            "level": 2 + numbers(rank).abs(),
            "window": torch.ones(layers),
            "code": 1 + found["push"].abs(),
        }
        mask = (
            (torch.rand(layers, width, generator=random) < 0.3)
            .float()
            .index_fill(1, torch.tensor([0]), 1)
        )
        return (
            found
            | {"mask": mask, "values": numbers(width), "rest": numbers(width)}
            | {"rates": mask * numbers(width)}
        )

    return replace(direction, extra={**direction.extra, **units()}, source_extra=units())


Row = Sequence[Step]


def edit_of(row: Row) -> Edit:
    """The steps of a row, one after the other."""
    return functools.reduce(operator.or_, (step.edit for step in row), Edit(()))


def rows_of(directions: Directions, count: int, *, targets: Sequence[str]) -> list[Row]:
    """Rows of every operator, kind of positions and site, at many layers, sizes and targets; some
    of several steps.

    The first row has none. Of each four, one has a second step anywhere and one a second step at
    the same place.
    """
    random, kinds = Random(0), cycle(product(OPERATORS, POSITIONS, RESIDUAL))

    def draw(site: str, layers: Sequence[int]) -> Direction:
        step = directions.between("en", random.choice(targets)).at(*layers)
        return replace(step, site=site)

    def size(operator: str) -> float:
        return random.choice([0.5, 1.0] if operator == "ablate" else [0.3, 0.6, 1.0, 1.4])

    rows: list[Row] = [[]]
    while len(rows) < count:
        kind, positions, site = next(kinds)
        layers = random.sample(directions.layers, k=2 if len(rows) % 9 == 0 else 1)
        row = [Step(kind, draw(site, layers), size(kind) / len(layers), positions)]
        if len(rows) % 4 == 1:
            kind, positions, site = (
                random.choice(OPERATORS),
                random.choice(POSITIONS),
                random.choice(RESIDUAL),
            )
            row.append(
                Step(kind, draw(site, random.sample(directions.layers, k=1)), size(kind), positions)
            )
        elif len(rows) % 4 == 3:
            kind = random.choice(OPERATORS)
            row.append(Step(kind, draw(site, layers), size(kind) / len(layers), positions))
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Said:
    """The tokens of one row, and the logits [new vocab] that each was chosen from (one more if
    the row ended)."""

    model: Model
    tokens: list[int]
    logits: Tensor

    @property
    def text(self) -> str:
        return self._text(self.tokens)

    def gap_to(self, text: str) -> float:
        """How much less likely, in logits, the other text was where it leaves this one; infinite if
        it cannot.

        0 for the same text. Only the 100 likeliest tokens of each step are looked at.
        """
        if text == self.text:
            return 0.0
        last = max(
            k for k in range(len(self.logits)) if text.startswith(self._whole(self.tokens[:k]))
        )
        values, tokens = self.logits[last].topk(100)
        found = [
            float(values[0] - value)
            for value, token in zip(values[1:], tokens[1:].tolist(), strict=True)
            if self._can_start(text, self.tokens[:last], token)
        ]
        return min(found, default=float("inf"))

    def _can_start(self, text: str, before: list[int], token: int) -> bool:
        if token == self.model.tokenizer.eos_token_id:
            return text == self._text(before)
        return text.startswith(self._whole([*before, token])) and self._text(
            [*before, token]
        ) != self._text(before)

    def _text(self, tokens: list[int]) -> str:
        return str(self.model.tokenizer.decode(tokens, skip_special_tokens=True))

    def _whole(self, tokens: list[int]) -> str:
        """Without a last letter of which only some bytes are there."""
        return self._text(tokens).rstrip("\N{REPLACEMENT CHARACTER}")


@torch.inference_mode()
def say(model: Model, prompt: str, row: Row, new: int) -> Said:
    """Greedy tokens of one prompt with a row's steps done by hand, the whole sequence anew for
    each token."""
    ids = torch.tensor(encode(model.tokenizer, [prompt]))
    length, made, logits = ids.shape[1], list[int](), list[Tensor]()
    with _steered(model, row, length):
        while len(made) < new:
            logits.append(model.hf(input_ids=ids, use_cache=False).logits[0, -1])
            token = int(logits[-1].argmax())
            if token == model.tokenizer.eos_token_id:
                break
            made.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return Said(model, made, torch.stack(logits))


@torch.inference_mode()
def nats(model: Model, text: str, row: Row) -> float:
    """Mean negative log-likelihood of a text's tokens after the first, with a row's steps done
    by hand."""
    [ids] = encode(model.tokenizer, [text])
    with _steered(model, row, len(ids)):
        logits = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return float(-logits.double().log_softmax(-1)[range(len(ids) - 1), ids[1:]].mean())


def differing(
    model: Model,
    prompts: Sequence[str],
    rows: Sequence[Row],
    ours: Sequence[str],
    theirs: Sequence[str],
    new: int,
) -> list[int]:
    """The rows whose texts of `new` tokens differ, each of which must be a near-tie of the run
    by hand."""
    found = [row for row, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    for row in found:
        said = say(model, prompts[row], rows[row], new)
        gaps = [said.gap_to(text) for text in (ours[row], theirs[row])]
        assert max(gaps) < TIE, f"row {row} is no near-tie: {gaps}, {ours[row]!r}, {theirs[row]!r}"
    return found


@contextmanager
def _steered(model: Model, row: Row, length: int) -> Iterator[None]:
    """Plain hooks that do a row's steps to one unpadded sequence whose prompt has `length`
    tokens, BOS excepted."""
    spans = {"all": slice(1, None), "prompt": slice(1, length), "generated": slice(length, None)}

    def change(step: Step, place: int, h: Tensor) -> Tensor:
        span, new = spans[step.positions], h.clone()
        new[0, span] = step.by_hand(h[0, span], place)
        return new

    def before(step: Step, place: int) -> Any:
        return lambda _, args: (change(step, place, args[0]), *args[1:])

    def after(step: Step, place: int) -> Any:
        def hook(_: Any, __: Any, out: Any) -> Any:
            return (
                (change(step, place, out[0]), *out[1:])
                if isinstance(out, tuple)
                else change(step, place, out)
            )

        return hook

    with ExitStack() as handles:
        for step in row:
            for place, layer in enumerate(step.direction.layers):
                block = model.blocks[layer]
                early = step.direction.site == "resid_pre"
                handle = (
                    block.register_forward_pre_hook(before(step, place))
                    if early
                    else block.register_forward_hook(after(step, place))
                )
                handles.callback(handle.remove)
        yield
