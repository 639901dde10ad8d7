"""Random tensors in the place of an edit's own: of their shape, their lengths, their rank, their
angles."""

import torch
from einops import rearrange
from torch import Tensor


def draw_like(tensor: Tensor, random: torch.Generator) -> Tensor:
    """Normal numbers of a tensor's shape."""
    return torch.randn(tensor.shape, generator=random)


def draw_unit(tensor: Tensor, random: torch.Generator) -> Tensor:
    """Random vectors of length 1 in a tensor's shape [... width]."""
    return torch.nn.functional.normalize(draw_like(tensor, random), dim=-1)


def draw_basis(basis: Tensor, random: torch.Generator) -> Tensor:
    """Random orthonormal rows [row rank width] in the place of a subspace's."""
    # A stack fills smaller subspaces up with rows of zeros, which stay zeros.
    filled = basis.any(-1, keepdim=True)
    columns = rearrange(draw_like(basis, random), "row rank width -> row width rank")
    orthonormal = rearrange(torch.linalg.qr(columns)[0], "row width rank -> row rank width")
    return orthonormal * filled


def draw_turned(rows: Tensor, random: torch.Generator) -> Tensor:
    """Random rows [... rank width] with the same lengths and angles: whatever is written along
    them is as long."""
    # U S Vᵀ with random orthonormal rows in place of Vᵀ has the same inner products, U S² Uᵀ.
    left, sizes, _ = torch.linalg.svd(rows.double(), full_matrices=False)
    drawn = torch.randn(
        *rows.shape[:-2], rows.shape[-1], sizes.shape[-1], generator=random, dtype=torch.float64
    )
    axes = torch.linalg.qr(drawn)[0].mT
    # Rows of padding stay zero.
    return ((left * sizes[..., None, :]) @ axes).float() * rows.any(-1, keepdim=True)
