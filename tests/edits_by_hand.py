"""What the tests of edits share: a model that is only sites, directions and positions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from by_hand import Step, equipped
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import ORDER
from steerlab.edits import (
    Edit,
)
from steerlab.models.positions import Positions

WIDTH, DEPTH = 16, 4
law = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 1000)


class Fake:
    """A model whose blocks act on each element alone, so that only edits can make rows or
    positions differ."""

    width, name, fingerprint = WIDTH, "fake", "abc"

    def __init__(self, fingerprint: str = "abc") -> None:
        self.fingerprint = fingerprint
        self.changes: Sequence[tuple[str, int, Any]] = ()

    def width_of(self, site: str) -> int:
        return self.width

    def need_layer(self, layer: int) -> None:
        if not 0 <= layer < DEPTH:
            raise SteerlabError(f"no layer {layer}")

    def experts_per_token(self) -> int:
        return 2

    def writes(self, site: str, layer: int) -> None:
        """Its sites are all the stream itself, so that nothing is known of what is inside."""

    @contextmanager
    def attached(self, changes: Any) -> Iterator[None]:
        self.changes = changes
        try:
            yield
        finally:
            self.changes = ()

    def __call__(self, h: Tensor, where: Positions) -> Tensor:
        for layer in range(DEPTH):
            for site in ORDER:
                for there, number, change in self.changes:
                    if (there, number) == (site, layer):
                        new = change(h, where)
                        h = h if new is None else new
                if site == "resid_pre":
                    h = h * (1 + 0.1 * layer) + 0.01
        return h


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def direction(
    seed: int = 0,
    *,
    layers: tuple[int, ...] = (2,),
    rank: int = 1,
    site: str = "resid_post",
    width: int = WIDTH,
) -> Direction:
    """One whose gap and unit lead from one mean to another, as a mean difference's do."""
    start, step = (
        randn(len(layers), width, seed=seed) * 3,
        randn(len(layers), width, seed=seed + 5000),
    )
    gap = step.norm(dim=-1)
    basis = torch.linalg.qr(randn(len(layers), width, rank, seed=seed + 9000))[0].mT.contiguous()
    about = {"name": "fake", "fingerprint": "abc"}
    return equipped(
        Direction("de", "en", layers, site, step / gap[:, None], gap, start, basis, about), seed
    )


def where(rows: int, length: int, *, decode: bool = False, prompt: int | None = None) -> Positions:
    """The first position of a prefill is BOS; every second row is padded by two more."""
    text = torch.ones(rows, length, dtype=torch.bool)
    if not decode:
        text[:, 0] = False
        text[1::2, :3] = False
    generated = torch.full((rows, length), decode)
    if prompt is not None:
        generated[:, prompt:] = True
    return Positions(text, generated, torch.arange(rows))


def steer(edit: Edit, h: Tensor, place: Positions | None = None) -> Tensor:
    fake = Fake()
    with edit.on(fake):
        return fake(h, place or where(*h.shape[:2]))


def at_site(edit: Edit, h: Tensor) -> Tensor:
    """What the edit makes of h at its own site, every position being text."""
    fake, everywhere = (
        Fake(),
        Positions(
            torch.ones(h.shape[:2], dtype=torch.bool),
            torch.zeros(h.shape[:2]).bool(),
            torch.arange(len(h)),
        ),
    )
    with edit.on(fake):
        for _, _, change in fake.changes:
            new = change(h, everywhere)
            h = h if new is None else new
    return h


def same_bits(a: Tensor, b: Tensor) -> bool:
    kind = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[a.dtype]
    return a.dtype == b.dtype and torch.equal(a.view(kind), b.view(kind))


def edit_of(operator: str, size: float, step: Direction, positions: str = "all") -> Edit:
    return Step(operator, step, size, positions).edit


def alone(edit: Edit, h: Tensor, place: Positions, row: int) -> Tensor:
    one = Positions(
        place.text[row : row + 1], place.generated[row : row + 1], torch.zeros(1, dtype=torch.long)
    )
    fake = Fake()
    with suppress(SteerlabError), edit.on(fake):  # some touch nothing here, alone
        made = fake(h[row : row + 1], one)
    return made[0]
