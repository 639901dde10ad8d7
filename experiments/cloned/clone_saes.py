"""Sparse autoencoders of a small model's residual stream, all layers at once, in plain torch; and
linear maps between aligned positions, which are the upper bound of what an edit can do."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steerlab.models.model import Model
from steerlab.sae import SAE

SITE = "resid_post"
BATCH = 1024  # tokens of a step


@dataclass(frozen=True)
class Aligned:
    """Token vectors of texts in the first language and, position by position, in the clone.

    Args:
        first: `[layer token width]`.
        clone: `[layer token width]`.
    """

    first: Tensor
    clone: Tensor


@torch.inference_mode()
def aligned(model: Model, rows: Tensor, swap: Tensor) -> Aligned:
    """Read rows of tokens, [row pos] with BOS at the front, and the same in the clone."""
    found: list[Tensor] = []
    for ids in (rows, swap.cpu()[rows]):
        parts = []
        for part in ids.split(256):
            seen: dict[int, Tensor] = {}

            def keep(layer: int, seen: dict[int, Tensor] = seen) -> object:
                return lambda h, where: seen.__setitem__(layer, h[:, 1:].flatten(0, 1).float())

            tokens = part.to(model.device)
            looks = [(SITE, layer, keep(layer)) for layer in range(model.n_layers)]
            with model.attached(looks):  # type: ignore[arg-type]
                model.body(tokens, torch.ones_like(tokens, dtype=torch.bool))
            parts.append(torch.stack([seen[layer] for layer in range(model.n_layers)]))
        found.append(torch.cat(parts, 1))
    return Aligned(found[0], found[1])


def token_cosines(pairs: Aligned) -> list[tuple[float, float]]:
    """By layer: the mean cosine of a token's vector with its clone's, each less the mean of its
    language, and with another token's."""
    found = []
    for first, clone in zip(pairs.first, pairs.clone, strict=True):
        a, b = (torch.nn.functional.normalize(h - h.mean(0), dim=-1) for h in (first, clone))
        other = b.roll(len(b) // 2 + 7, 0)  # far from any position of the same text
        found.append((float((a * b).sum(-1).mean()), float((a * other).sum(-1).mean())))
    return found


def train_saes(
    model: Model, pairs: Aligned, *, steps: int, times: int = 8, active: int = 16, seed: int = 0
) -> tuple[dict[int, SAE], dict[str, list[float]]]:
    """Top-k autoencoders (Gao et al. 2024) of every layer, and how good each is.

    Args:
        model: whose vectors they are.
        pairs: the vectors, of both languages.
        steps: of 1,024 tokens.
        times: latents, in widths of the model.
        active: how many latents are on at a token.
        seed: of weights and order.
    """
    h = torch.cat([pairs.first, pairs.clone], 1)
    centre = h.mean(1, keepdim=True)
    scale = (h - centre).square().sum(-1, keepdim=True).mean(1, keepdim=True).sqrt()
    layers, tokens, width = h.shape
    random = torch.Generator().manual_seed(seed)
    decoder = torch.randn(layers, times * width, width, generator=random).to(h.device)
    decoder = torch.nn.functional.normalize(decoder, dim=-1).requires_grad_(True)
    encoder = decoder.detach().mT.clone().requires_grad_(True)
    bias = torch.zeros(layers, 1, times * width, device=h.device, requires_grad=True)
    optimiser = torch.optim.Adam([encoder, decoder, bias], lr=1e-3)
    order = torch.randint(tokens, (steps, BATCH), generator=random).to(h.device)

    def read(x: Tensor) -> Tensor:
        values, indices = (x @ encoder + bias).topk(active, dim=-1, sorted=False)
        return torch.zeros_like(bias.expand(-1, x.shape[1], -1)).scatter(-1, indices, values.relu())

    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 4 * (1 - step / steps))
        x = (h[:, order[step]] - centre) / scale
        loss = (read(x) @ decoder - x).square().sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        x = (h[:, :: max(1, tokens // 8192)] - centre) / scale
        z = read(x)
        left = (z @ decoder - x).square().sum((1, 2)) / x.square().sum((1, 2))
        quality = {
            "explained": (1 - left).tolist(),
            "alive": (z > 0).any(1).float().mean(-1).tolist(),
        }
        # z is of (h - centre) / scale; latents in units of h want both folded into the weights.
        saes = {
            layer: SAE(
                W_enc=encoder[layer].cpu(),
                b_enc=bias[layer, 0].cpu() * scale[layer, 0].cpu(),
                W_dec=decoder[layer].cpu(),
                b_dec=centre[layer, 0].cpu(),
                kind="topk",
                k=active,
                layer=layer,
                site=SITE,
                about={"model": model.name, "fingerprint": model.fingerprint},
            )
            for layer in range(layers)
        }
    return saes, quality


@dataclass(frozen=True)
class Maps:
    """What is added to h of one layer: h @ matrix + shift.

    Args:
        matrix: `[width width]`.
        shift: `[width]`.
    """

    matrix: Tensor
    shift: Tensor


def linear_map(first: Tensor, clone: Tensor, rank: int | None = None) -> Maps:
    """The affine map from a token's vector to its clone's, by least squares with a little ridge.

    Formula: the step Δ = clone - first is W (h - mean) + mean Δ; with a rank, W is projected on the
    leading axes of its fitted values (reduced-rank regression). Rank 0 is the difference of means.

    Args:
        first: vectors, [token width].
        clone: those of the same positions in the clone.
        rank: of the part that differs from token to token; None for all.
    """
    x, step = first.double(), (clone - first).double()
    mean, shift = x.mean(0), step.mean(0)
    x, step = x - mean, step - shift
    square = x.mT @ x
    ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square)).to(square)
    weights = torch.linalg.solve(square + ridge, x.mT @ step)
    if rank is not None:
        _, axes = torch.linalg.eigh(weights.mT @ square @ weights)
        kept = axes[:, len(axes) - rank :]
        weights = weights @ kept @ kept.mT
    return Maps(weights.float(), (shift - mean @ weights).float())


def rotation_map(first: Tensor, clone: Tensor) -> Maps:
    """The rotation about the means that brings vectors nearest to their clones' (Procrustes)."""
    x, y = first.double(), clone.double()
    left, _, right = torch.linalg.svd((x - x.mean(0)).mT @ (y - y.mean(0)))
    turn = left @ right
    shift = y.mean(0) - x.mean(0) @ turn
    return Maps((turn - torch.eye(len(turn)).to(turn)).float(), shift.float())
