"""The files that hold autoencoders, read without the libraries that wrote them: each becomes the
fields of an `SAE`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.sae.hooks import agreed

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}  # sae-lens' names

Parts = dict[str, Any]


def read(folder: Path, *, layer: int | None, hook: str | None) -> tuple[Parts, str | None]:
    """The fields of the autoencoder in a folder of any known format, and the digest that its
    file promises, if any."""
    if not folder.is_dir():
        raise SteerlabError(
            f"there is no folder {folder}; give the one that holds an autoencoder's files"
        )
    for file, reader in _READERS.items():
        if (folder / file).exists():
            return reader(folder, layer, hook)
    raise SteerlabError(
        f"{folder} holds no autoencoder: none of {', '.join(_READERS)}; give a folder of sae-lens, "
        "Gemma Scope or "
        "Llama Scope"
    )


def from_config(config: Mapping[str, Any], weights: dict[str, Tensor], origin: str) -> Parts:
    """sae-lens' configuration and weights as fields, without the place; what cannot be computed
    here raises."""
    kind = _kind(config, origin)
    _need_plain(config, weights, origin)
    names = ("W_enc", "b_enc", "W_dec", "b_dec", *(["threshold"] if kind == "jumprelu" else []))
    if missing := [name for name in names if name not in weights]:
        raise SteerlabError(f"{origin} has no {missing[0]}; it is damaged or of another format")
    parts: Parts = {name: weights[name].float() for name in names}
    if config.get("rescale_acts_by_decoder_norm"):
        _fold_norm(parts)
    parts |= {"kind": kind, "apply_b_dec_to_input": bool(config.get("apply_b_dec_to_input", True))}
    if kind == "topk":
        parts["k"] = int(config.get("k") or (config.get("activation_fn_kwargs") or {})["k"])
    return parts


def as_config(sae: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What sae-lens' own file would say of an autoencoder."""
    known = sae.about.get("metadata") or {}
    model = {
        name: sae.about[key]
        for name, key in {"model_name": "model", "fingerprint": "fingerprint"}.items()
        if sae.about.get(key)
    }
    config = {
        "architecture": next(name for name, kind in ARCHITECTURES.items() if kind == sae.kind),
        "d_in": sae.width,
        "d_sae": sae.latents,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if sae.site == "attn_z" else "none",
        # sae-lens takes a file that names no version of it for one of before version 6
        "metadata": {"sae_lens_version": "6.0.0"} | known | model | {"hook_name": sae.hook},
    }
    return config | ({"k": sae.k} if sae.kind == "topk" else {})


def about_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What sae-lens' metadata tells of the model, and all of it."""
    told = {"model": metadata.get("model_name"), "fingerprint": metadata.get("fingerprint")}
    return {name: value for name, value in told.items() if value} | {"metadata": dict(metadata)}


def _sae_lens(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, str | None]:
    config = _json(folder / CONFIG)
    weights, header = _safetensors(folder / WEIGHTS)
    metadata = config.get("metadata") or {
        name: config[name] for name in ("model_name",) if config.get(name)
    }
    told = metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point")
    site, depth = agreed(told, hook, layer, str(folder))
    parts = from_config(config, weights, str(folder))
    about = about_of(metadata) | {"format": "sae-lens", "sha256": _sha256(folder / WEIGHTS)}
    return parts | {"site": site, "layer": depth, "about": about}, header.get("steerlab")


def _gemma_scope(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, None]:
    """`params.npz`: W_enc, W_dec, b_enc, b_dec, threshold; b_dec is not subtracted from the
    input."""
    file = folder / "params.npz"
    try:
        with np.load(file, allow_pickle=False) as opened:
            weights = {name: torch.from_numpy(opened[name]) for name in opened.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise SteerlabError(
            f"{file} is truncated or no npz file ({error}); fetch it again"
        ) from error
    weights = {
        f"W_{name[2:]}" if name.startswith("w_") else name: value for name, value in weights.items()
    }
    return _jumprelu(folder, file, weights, "Gemma Scope", agreed(None, hook, layer, str(file)))


def _gemma_scope_2(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, None]:
    """`params.safetensors`, and `config.json` with the place as Hugging Face names it."""
    file = folder / "params.safetensors"
    weights, _ = _safetensors(file)
    config = _json(folder / "config.json") if (folder / "config.json").exists() else {}
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise SteerlabError(
            f"{folder} holds a {config['architecture']!r}; only jump_relu is read in this format"
        )
    if (
        config.get("hf_hook_point_out") not in (None, config.get("hf_hook_point_in"))
        or "affine_skip_connection" in weights
    ):
        raise SteerlabError(
            f"{folder} holds a transcoder, which writes elsewhere than it reads; take an "
            "autoencoder"
        )
    if weights.get("w_dec", torch.empty(0, 0)).ndim != 2:
        raise SteerlabError(
            f"{folder} holds a crosslayer transcoder; take an autoencoder of one layer"
        )
    names = {"w_enc": "W_enc", "w_dec": "W_dec"}
    weights = {names.get(name, name): value for name, value in weights.items()}
    place = agreed(config.get("hf_hook_point_in"), hook, layer, str(folder))
    parts, _ = _jumprelu(folder, file, weights, "Gemma Scope 2", place)
    if config.get("model_name"):
        parts["about"]["model"] = config["model_name"]
    return parts, None


def _llama_scope(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, None]:
    """`hyperparams.json` and `checkpoints/final.safetensors`, trained on inputs of mean norm
    √width.

    With s = √width / dataset_average_activation_norm["in"], the scaling is folded into the weights:
    W_enc · s, W_dec / s, b_dec / s. The one threshold is given for activations as the model has
    them, so it is scaled by s too.
    """
    config = _json(folder / "hyperparams.json")
    file = folder / "checkpoints" / "final.safetensors"
    found, _ = _safetensors(file)
    site, depth = agreed(config.get("hook_point_in"), hook, layer, str(folder))
    if config.get("hook_point_out", config.get("hook_point_in")) != config.get("hook_point_in"):
        raise SteerlabError(
            f"{folder} holds a transcoder, which writes elsewhere than it reads; take an "
            "autoencoder"
        )
    try:
        norm = float(config["dataset_average_activation_norm"]["in"])
        threshold = float(config["jump_relu_threshold"])
        encoder, decoder = found["encoder.weight"].float(), found["decoder.weight"].float()
        biases = found["encoder.bias"].float(), found["decoder.bias"].float()
    except (KeyError, TypeError) as error:
        raise SteerlabError(
            f"{folder} lacks {error}; it is damaged or of another format"
        ) from error
    scale = encoder.shape[1] ** 0.5 / norm
    weights = {
        "W_enc": encoder.mT * scale,
        "b_enc": biases[0],
        "W_dec": decoder.mT / scale,
        "b_dec": biases[1] / scale,
    }
    weights["threshold"] = torch.full_like(biases[0], threshold * scale)
    return _jumprelu(folder, file, weights, "Llama Scope", (site, depth))


_READERS = {
    CONFIG: _sae_lens,
    "params.npz": _gemma_scope,
    "params.safetensors": _gemma_scope_2,
    "hyperparams.json": _llama_scope,
}


def _jumprelu(
    folder: Path, file: Path, weights: dict[str, Tensor], form: str, place: tuple[str, int]
) -> tuple[Parts, None]:
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": False}
    about = {"format": form, "sha256": _sha256(file)}
    return from_config(config, weights, str(folder)) | {
        "site": place[0],
        "layer": place[1],
        "about": about,
    }, None


def _kind(config: Mapping[str, Any], origin: str) -> str:
    name = str(config.get("architecture", "standard"))
    if (
        name == "standard"
        and config.get("activation_fn_str", config.get("activation_fn")) == "topk"
    ):
        name = "topk"  # before version 6
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    told = f"{origin} is a {name!r} autoencoder; steerlab computes {', '.join(ARCHITECTURES)}"
    if "batchtopk" in name:
        raise SteerlabError(
            f"{told}: save it by `save_inference_model`, which turns it into a jumprelu one"
        )
    raise SteerlabError(f"{told}: take one of these")


def _need_plain(config: Mapping[str, Any], weights: dict[str, Tensor], origin: str) -> None:
    """Raise for what changes the input or the latents in a way that no weight can hold."""
    scaled = config.get("normalize_activations") or "none"
    if scaled in ("expected_average_only_in", True):
        raise SteerlabError(
            f"the scale of the inputs of {origin} (expected_average_only_in) was not folded into "
            "its weights, and the "
            "file does not hold it; call fold_activation_norm_scaling_factor in sae-lens and save "
            "it again"
        )
    if scaled != "none":
        raise SteerlabError(
            f"{origin} normalises its inputs by {scaled!r}, which steerlab does not; take another "
            "one"
        )
    reshaped = config.get("reshape_activations", "none")
    hook = str((config.get("metadata") or {}).get("hook_name") or config.get("hook_name"))
    # At `attn.hook_z` sae-lens lays the heads side by side, which is how `attn_z` has them.
    if reshaped != "none" and not (reshaped == "hook_z" and hook.endswith(".attn.hook_z")):
        raise SteerlabError(
            f"{origin} is of attention heads ({reshaped}) but reads {hook}; take one of "
            "attn.hook_z or of the residual stream"
        )
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights and not torch.allclose(weights[name], torch.ones_like(weights[name])):
            raise SteerlabError(
                f"{origin} scales its latents by {name}, which steerlab does not; take another one"
            )


def _fold_norm(parts: Parts) -> None:
    """Latents by the norm of their decoder row (sae-lens' rescale_acts_by_decoder_norm), as the
    rows were unit."""
    norm = parts["W_dec"].norm(dim=-1)
    if not (norm > 0).all():
        raise SteerlabError(
            "a decoder row is zero, and the latents are scaled by its norm; train it again"
        )
    parts |= {
        "W_enc": parts["W_enc"] * norm,
        "b_enc": parts["b_enc"] * norm,
        "W_dec": parts["W_dec"] / norm[:, None],
    }


def _safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {
                name: opened.get_tensor(name) for name in opened.keys()
            }, opened.metadata() or {}
    except FileNotFoundError as error:
        raise SteerlabError(
            f"there is no file {file} beside its configuration; fetch it too"
        ) from error
    except (SafetensorError, OSError) as error:
        raise SteerlabError(
            f"{file} is truncated or no safetensors file ({error}); fetch it again"
        ) from error


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SteerlabError(
            f"{file} is no JSON that can be read ({error}); fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise SteerlabError(f"{file} holds no configuration; fetch it again")
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
