"""What an edit's function does, as numbers: an affine map, if it is one."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.edits.own_function import OwnFunction
from steerlab.edits.part import Part

FEW = 48  # a map of fewer dimensions than this is found by so many random vectors
_AT_ONCE = 512  # unit vectors that a function gets at a time
_SLACK = 1e-5  # of single precision, in which tensors of edits are kept


@dataclass(frozen=True, eq=False)
class Affine:
    """h becomes h + left (right h) + shift, in double precision.

    A rank of 0 is a shift alone.
    """

    left: Float[Tensor, "width rank"]
    right: Float[Tensor, "rank width"]
    shift: Float[Tensor, " width"]

    @property
    def rank(self) -> int:
        """Of what is added, the shift aside."""
        return self.left.shape[1]

    def after(self, first: "Affine") -> "Affine":
        """This one of what another one gives."""
        left = torch.cat([first.left, self.left], 1)
        # (I + L2 R2)(I + L1 R1) = I + L1 R1 + L2 (R2 + R2 L1 R1)
        right = torch.cat([first.right, self.right + self.right @ first.left @ first.right])
        return Affine(left, right, self.of(first.shift))

    def of(self, h: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
        """What it makes of a vector."""
        return h + self.left @ (self.right @ h) + self.shift

    def keeps(self, first: "Affine") -> bool:
        """Whether it only shifts what another one gives, whatever that reads."""
        if not self.rank:
            return True
        rest = self.left @ (self.right + self.right @ first.left @ first.right)
        whole = self.left @ self.right
        return bool(rest.norm() <= _SLACK * whole.norm())

    def scaled(self, by: Float[Tensor, " width"]) -> "Affine":
        """The same in coordinates that are multiplied by numbers later on."""
        return Affine(self.left / by[:, None], self.right * by, self.shift / by)


def no_change(width: int) -> Affine:
    """The identity."""
    nothing = torch.zeros(width, 0, dtype=torch.float64)
    return Affine(nothing, nothing.mT, torch.zeros(width, dtype=torch.float64))


def shift_of(shift: Float[Tensor, " width"]) -> Affine:
    """A shift alone."""
    return replace(no_change(len(shift)), shift=shift.double().cpu())


@torch.no_grad()
def affine_of(part: Part, width: int) -> Affine | None:
    """What a part's function does to any vector at any position; None where that is no affine map,
    or depends on positions.

    It is tried: on zero, on each unit vector, and held against random vectors of several lengths,
    so that no operator has to say of itself what it is.
    """
    change = part.change
    if isinstance(change, OwnFunction) and change.takes == 3:
        return None
    tensors = {
        name: value.double().cpu() if value.is_floating_point() else value.cpu()
        for name, value in part.tensors.items()
    }

    def added(h: Tensor) -> Tensor:
        return change(h[None], tensors, None).expand(1, *h.shape)[0]

    shift = added(torch.zeros(1, width, dtype=torch.float64))[0]
    random = torch.Generator().manual_seed(0)
    given = torch.randn(6, width, generator=random, dtype=torch.float64)
    given *= torch.tensor([0.1, 0.3, 1.0, 3.0, 10.0, 100.0])[:, None]
    wanted = added(given) - shift
    size = _SLACK * (wanted.norm() + shift.norm())
    if wanted.norm() <= size and not part.identity:
        return shift_of(shift)
    rows = torch.eye(width, dtype=torch.float64).split(_AT_ONCE)
    matrix = torch.cat([added(each) - shift for each in rows]).mT
    # Each length by itself: what depends on the length may hide behind the longest.
    for vector, change_of in zip(given, wanted, strict=True):
        if (matrix @ vector - change_of).norm() > _SLACK * (change_of.norm() + shift.norm()) + 1e-9:
            return None
    left, right = factors(matrix)
    return Affine(left, right, shift)


def factors(matrix: Float[Tensor, "out width"]) -> tuple[Tensor, Tensor]:
    """Two matrices of the least rank, but for roundings of single precision, whose product is a
    matrix."""
    width = matrix.shape[1]
    random = torch.Generator().manual_seed(1)
    drawn = torch.randn(width, min(FEW, width), generator=random, dtype=matrix.dtype)
    basis, sizes, _ = torch.linalg.svd(matrix @ drawn, full_matrices=False)
    rank = int((sizes > _SLACK * sizes[0]).sum()) if sizes[0] > 0 else 0
    if rank < FEW:
        return basis[:, :rank], basis[:, :rank].mT @ matrix
    rows = matrix.any(1).nonzero()[:, 0]  # of units that are scaled one by one
    left = torch.zeros(len(matrix), len(rows), dtype=matrix.dtype)
    left[rows, torch.arange(len(rows))] = 1
    return left, matrix[rows]
