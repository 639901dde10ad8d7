"""Random autoencoders, and how they are compared with those of sae-lens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from steerlab.sae import SAE

WIDTH, LATENTS = 12, 40
HOOK = "blocks.2.hook_resid_post"


def weights(seed: int = 0, width: int = WIDTH, latents: int = LATENTS) -> dict[str, Any]:
    """Random ones, with decoder rows of many lengths and a threshold of its own for each latent."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    told: dict[str, Any] = {
        "W_enc": draw(width, latents),
        "W_dec": draw(latents, width) * (0.1 + draw(latents, 1).abs()),
    }
    return told | {"b_enc": draw(latents), "b_dec": draw(width), "threshold": draw(latents).abs()}


def jumprelu(
    seed: int = 0, *, layer: int = 2, about: dict[str, Any] | None = None, **sizes: int
) -> SAE:
    return SAE(
        **weights(seed, **sizes), kind="jumprelu", layer=layer, site="resid_post", about=about or {}
    )


def activations(seed: int = 5, width: int = WIDTH) -> Tensor:
    return 2 * torch.randn(3, 7, width, generator=torch.Generator().manual_seed(seed))


def theirs(kind: str, **told: Any) -> Any:
    """An autoencoder object of sae-lens with random weights."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    made, configured = get_sae_class(kind)
    config = configured(WIDTH, LATENTS, **told)
    config.metadata = SAEMetadata(hook_name=HOOK, model_name="some model")
    found = made(config)
    with torch.no_grad():
        for name, value in weights().items():
            if hasattr(found, name):
                getattr(found, name).copy_(value)
    return found


@torch.no_grad()
def agree(ours: SAE, other: Any, *, exactly: bool = True) -> None:
    h = activations()
    z, expected = ours.encode(h), other.encode(h)
    assert 0 < (z > 0).float().mean() < 1
    if exactly:
        assert torch.equal(z, expected)
        assert torch.equal(ours.decode(z), other.decode(expected))
    else:
        torch.testing.assert_close(z, expected)
        torch.testing.assert_close(ours.decode(z), other.decode(expected))


def gemma_scope(folder: Path) -> None:
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {name: value.numpy() for name, value in weights().items()}
    np.savez(folder / "params.npz", **arrays)


def gemma_scope_2(folder: Path, hook: str = "model.layers.2.output", **more: Tensor) -> None:
    folder.mkdir(parents=True)
    lower = {name.replace("W_", "w_"): value for name, value in weights().items()}
    save_file(lower | more, folder / "params.safetensors")
    told = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-1b-pt",
        "hf_hook_point_in": hook,
        "width": LATENTS,
    }
    (folder / "config.json").write_text(json.dumps(told))


def llama_scope(folder: Path) -> None:
    (folder / "checkpoints").mkdir(parents=True)
    own = weights()
    told = {"encoder.weight": own["W_enc"].mT.contiguous(), "encoder.bias": own["b_enc"]}
    told |= {"decoder.weight": own["W_dec"].mT.contiguous(), "decoder.bias": own["b_dec"]}
    save_file(told, folder / "checkpoints" / "final.safetensors")
    config = {"hook_point_in": HOOK, "hook_point_out": HOOK, "d_model": WIDTH, "d_sae": LATENTS}
    config |= {
        "jump_relu_threshold": 0.4,
        "dataset_average_activation_norm": {"in": 2.5, "out": 2.5},
    }
    (folder / "hyperparams.json").write_text(json.dumps(config))


def altered(of: Any, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A folder of sae-lens whose configuration was changed."""
    of.save_model(folder)
    config = json.loads((folder / "cfg.json").read_text())
    change(config)
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder
