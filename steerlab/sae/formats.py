"""The files that hold autoencoders, read without the libraries that wrote them: each becomes the
fields of an `SAE`.

A reader takes (folder, layer, hook), of which the last two say where the autoencoder reads if the
files do not, and returns (the fields, the digest that the file holds or None).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.files import read_config
from steerlab.core.tensors import (
    need_file,
    number_in,
    object_in,
    read_safetensors,
    truth_in,
    whole_in,
    word_in,
)
from steerlab.sae.hooks import agreed
from steerlab.sae.reading import Format, Parts

# The two files of sae-lens.
CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
_FACTORS = ("scaling_factor", "finetuning_scaling_factor")  # of latents, which have to be 1
# What sae-lens calls the kinds of activation.
ARCHITECTURES = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}


def from_config(config: Mapping[str, Any], weights: dict[str, Tensor], origin: str) -> Parts:
    """The fields of an autoencoder but its site and layer, from sae-lens' configuration and
    weights.

    Raises `SteerlabError` for what an `SAE` cannot compute, and for missing weights.

    Args:
        config: what sae-lens' `cfg.json` holds.
        weights: the tensors of its weights file, by name.
        origin: the file or folder, for the messages.
    """
    kind = _kind(config, origin)
    _need_plain(config, weights, origin)
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]
    if kind == "jumprelu":
        names.append("threshold")
    missing = [name for name in names if name not in weights]
    if missing:
        raise SteerlabError(f"{origin} has no {missing[0]}; it is damaged or of another format")
    unread = sorted(weights.keys() - {*names, *_FACTORS})
    if unread:
        named = "architecture" in config
        called = f"a {config['architecture']!r}" if named else "a standard (cfg.json names none)"
        raise SteerlabError(
            f"{origin} holds {', '.join(unread)[:100]}, which {called} autoencoder does not have; "
            "without it this would be another autoencoder: name the right architecture in its "
            "configuration, or take one of the known kinds"
        )
    for name in names:
        if not weights[name].is_floating_point():
            raise SteerlabError(
                f"{name} of {origin} holds {weights[name].dtype}, not numbers of floating point; "
                "fetch it again"
            )
    parts: Parts = {name: weights[name].float() for name in names}
    _need_shapes(config, parts, origin)
    # In float32 from here on, as `SAE` computes: folding in 16 bits would round twice.
    key = "rescale_acts_by_decoder_norm"
    if config.get(key) is not None and truth_in(config[key], f"{key} of {origin}"):
        _fold_norm(parts)
    parts["kind"] = kind
    subtracts = config.get("apply_b_dec_to_input", True)
    parts["apply_b_dec_to_input"] = truth_in(subtracts, f"apply_b_dec_to_input of {origin}")
    if kind == "topk":
        # Before version 6 of sae-lens, k was an argument of the activation function.
        older = object_in(config.get("activation_fn_kwargs"), f"activation_fn_kwargs of {origin}")
        parts["k"] = whole_in(config.get("k") or older.get("k"), f"k of {origin}", least=1)
    return parts


def _need_shapes(config: Mapping[str, Any], parts: Parts, origin: str) -> None:
    """Raise where the encoder is no matrix, not of the sizes that the configuration names, or the
    decoder not of its sizes."""
    shape = tuple(parts["W_enc"].shape)
    if len(shape) != 2 or 0 in shape:
        raise SteerlabError(
            f"W_enc of {origin} has shape {shape}; it is a matrix of width x latents: the file is "
            "damaged or of another format"
        )
    for key, size in zip(("d_in", "d_sae"), shape, strict=True):
        named = config.get(key)
        if named is not None and whole_in(named, f"{key} of {origin}", least=1) != size:
            raise SteerlabError(
                f"{key} of {origin} is {named}, and its W_enc is {shape[0]} x {shape[1]}; the two "
                "files are not of one autoencoder"
            )
    decoder = tuple(parts["W_dec"].shape)
    if decoder != shape[::-1]:
        raise SteerlabError(
            f"W_dec of {origin} has shape {decoder}; W_enc {shape[0]} x {shape[1]} asks for "
            f"{shape[::-1]}: the file is damaged or of another format"
        )


def as_config(sae: Any, dtype: torch.dtype) -> dict[str, Any]:
    """The configuration that sae-lens would write for an autoencoder whose weights are saved in
    `dtype`."""
    # sae-lens takes a file that names no version for one of before version 6.
    metadata: dict[str, Any] = {"sae_lens_version": "6.0.0"}
    metadata |= sae.about.get("metadata") or {}
    if sae.about.get("model"):
        metadata["model_name"] = sae.about["model"]
    if sae.about.get("fingerprint"):
        metadata["fingerprint"] = sae.about["fingerprint"]
    metadata["hook_name"] = sae.hook
    architecture = next(name for name, kind in ARCHITECTURES.items() if kind == sae.kind)
    config = {
        "architecture": architecture,
        "d_in": sae.width,
        "d_sae": sae.latents,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if sae.site == "attn_z" else "none",
        "metadata": metadata,
    }
    if sae.kind == "topk":
        config["k"] = sae.k
    return config


def about_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The field `about` of an autoencoder: the model that sae-lens' metadata names, and all of
    it."""
    about: dict[str, Any] = {}
    if metadata.get("model_name"):
        about["model"] = word_in(metadata["model_name"], "model_name of an autoencoder")
    if metadata.get("fingerprint"):
        about["fingerprint"] = word_in(metadata["fingerprint"], "fingerprint of an autoencoder")
    about["metadata"] = dict(metadata)
    return about


def _sae_lens(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, str | None]:
    """`cfg.json` and `sae_weights.safetensors`, which this package writes too."""
    config = read_config(folder / CONFIG)
    weights, header = read_weights(folder / WEIGHTS)
    metadata = object_in(config.get("metadata"), f"metadata of {folder}")
    # Before version 6 the metadata stood in the configuration itself, the hook under two names.
    if not metadata:
        metadata = {}
        if config.get("model_name"):
            metadata["model_name"] = config["model_name"]
    hook_in_file = metadata.get("hook_name") or config.get("hook_name") or config.get("hook_point")
    if hook_in_file is not None:
        hook_in_file = word_in(hook_in_file, f"hook_name of {folder}")
    site, its_layer = agreed(hook_in_file, hook, layer, str(folder))
    parts = from_config(config, weights, str(folder))
    about = about_of(metadata) | {"format": "sae-lens", "sha256": file_hash(folder / WEIGHTS)}
    parts |= {"site": site, "layer": its_layer, "about": about}
    return parts, header.get("steerlab")  # only `SAE.save` writes a digest there


def _gemma_scope(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, None]:
    """`params.npz`: W_enc, W_dec, b_enc, b_dec, threshold; it does not say where it reads."""
    file = folder / "params.npz"
    need_file(file)
    try:
        # Never unpickle: a pickle can run anything.
        with np.load(file, allow_pickle=False) as opened:
            stored = {name: torch.from_numpy(opened[name]) for name in opened.files}
    # An archive of headers that are parsed: what a damaged one raises has no class in common.
    except Exception as error:
        raise SteerlabError(
            f"{file} is truncated or no npz file ({first_line_of(error)}); fetch it again"
        ) from error
    weights = {}
    for name, value in stored.items():
        # Some files write w_enc for W_enc.
        if name.startswith("w_"):
            name = f"W_{name.removeprefix('w_')}"
        weights[name] = value
    site_and_layer = agreed(None, hook, layer, str(file))
    return _jumprelu(folder, file, weights, "Gemma Scope", site_and_layer)


def _gemma_scope_2(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, None]:
    """`params.safetensors`, and `config.json` that names the hook as Hugging Face does."""
    file = folder / "params.safetensors"
    weights, _ = read_weights(file)
    config = read_config(folder / "config.json") if (folder / "config.json").exists() else {}
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise SteerlabError(
            f"{folder} holds a {config['architecture']!r}; only jump_relu is read in this format"
        )
    # The same format holds transcoders: they write at another hook, or add a linear map.
    hook_in = config.get("hf_hook_point_in")
    if hook_in is not None:
        hook_in = word_in(hook_in, f"hf_hook_point_in of {folder}")
    hook_out = config.get("hf_hook_point_out")
    writes_elsewhere = hook_out is not None and hook_out != hook_in
    if writes_elsewhere or "affine_skip_connection" in weights:
        raise SteerlabError(transcoder(folder))
    # Those that write at many layers have a decoder for each.
    if "w_dec" in weights and weights["w_dec"].ndim != 2:
        raise SteerlabError(
            f"{folder} holds a crosslayer transcoder; take an autoencoder of one layer"
        )
    names = {"w_enc": "W_enc", "w_dec": "W_dec"}
    weights = {names.get(name, name): value for name, value in weights.items()}
    site_and_layer = agreed(hook_in, hook, layer, str(folder))
    parts, _ = _jumprelu(folder, file, weights, "Gemma Scope 2", site_and_layer)
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
    config = read_config(folder / "hyperparams.json")
    file = folder / "checkpoints" / "final.safetensors"
    stored, _ = read_weights(file)
    hook_in = config.get("hook_point_in")
    if hook_in is not None:
        hook_in = word_in(hook_in, f"hook_point_in of {folder}")
    site_and_layer = agreed(hook_in, hook, layer, str(folder))
    if config.get("hook_point_out", hook_in) != hook_in:
        raise SteerlabError(transcoder(folder))
    key = "dataset_average_activation_norm"
    norms = object_in(config.get(key), f"{key} of {folder}")
    norm = number_in(norms.get("in"), f"{key} of {folder}", least=0)
    threshold = number_in(config.get("jump_relu_threshold"), f"jump_relu_threshold of {folder}")
    try:
        encoder = stored["encoder.weight"].float()
        decoder = stored["decoder.weight"].float()
        encoder_bias = stored["encoder.bias"].float()
        decoder_bias = stored["decoder.bias"].float()
    except KeyError as error:
        raise SteerlabError(
            f"{folder} lacks {error}; it is damaged or of another format"
        ) from error
    if encoder.ndim != 2 or decoder.ndim != 2:
        raise SteerlabError(
            f"{file} holds weights of shapes {tuple(encoder.shape)} and {tuple(decoder.shape)}; "
            "they are matrices: the file is damaged"
        )
    # PyTorch's linear layers hold weights as [out in], the transpose of an `SAE`'s.
    scale = encoder.shape[1] ** 0.5 / norm
    weights = {
        "W_enc": encoder.mT * scale,
        "b_enc": encoder_bias,
        "W_dec": decoder.mT / scale,
        "b_dec": decoder_bias / scale,
        "threshold": torch.full_like(encoder_bias, threshold * scale),
    }
    return _jumprelu(folder, file, weights, "Llama Scope", site_and_layer)


# The formats by the file whose presence tells them.
RECORDS = {
    CONFIG: Format(name="sae-lens", read=_sae_lens),
    "params.npz": Format(name="Gemma Scope", read=_gemma_scope),
    "params.safetensors": Format(name="Gemma Scope 2", read=_gemma_scope_2),
    "hyperparams.json": Format(name="Llama Scope", read=_llama_scope),
}


def _jumprelu(
    folder: Path,
    file: Path,
    weights: dict[str, Tensor],
    format_name: str,
    site_and_layer: tuple[str, int],
) -> tuple[Parts, None]:
    """The fields of a format that only knows jumprelu autoencoders.

    Args:
        folder: the folder, for the messages.
        file: the file of the weights.
        weights: what it holds, under the names of `SAE`.
        format_name: what the format is called.
        site_and_layer: where the autoencoder reads.
    """
    # None of these formats subtracts b_dec from the input.
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": False}
    parts = from_config(config, weights, str(folder))
    parts["site"], parts["layer"] = site_and_layer
    parts["about"] = {"format": format_name, "sha256": file_hash(file)}
    return parts, None


def transcoder(folder: Path) -> str:
    """Why a transcoder is refused."""
    return f"{folder} holds a transcoder, which writes elsewhere than it reads; take an autoencoder"


def _kind(config: Mapping[str, Any], origin: str) -> str:
    """The kind of activation of an `SAE`; raises for one that it does not have."""
    name = word_in(config.get("architecture", "standard"), f"architecture of {origin}")
    # Before version 6, topk was a standard autoencoder with another activation function.
    activation = config.get("activation_fn_str", config.get("activation_fn"))
    if name == "standard" and activation == "topk":
        name = "topk"
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    message = f"{origin} is a {name!r} autoencoder; steerlab computes {', '.join(ARCHITECTURES)}"
    if "batchtopk" in name:
        raise SteerlabError(
            f"{message}: save it by `save_inference_model`, which turns it into a jumprelu one"
        )
    raise SteerlabError(f"{message}: take one of these")


def _need_plain(config: Mapping[str, Any], weights: dict[str, Tensor], origin: str) -> None:
    """Raise for what changes the input or the latents in a way that no weight can hold."""
    normalisation = config.get("normalize_activations") or "none"
    # Old files have True for this one, and False for none.
    if normalisation in ("expected_average_only_in", True):
        raise SteerlabError(
            f"the scale of the inputs of {origin} (expected_average_only_in) was not folded into "
            "its weights, and the file does not hold it; call fold_activation_norm_scaling_factor "
            "in sae-lens and save it again"
        )
    if normalisation != "none":
        raise SteerlabError(
            f"{origin} normalises its inputs by {normalisation!r}, which steerlab does not; take "
            "another one"
        )
    reshaped = config.get("reshape_activations", "none")
    metadata = object_in(config.get("metadata"), f"metadata of {origin}")
    hook = str(metadata.get("hook_name") or config.get("hook_name"))
    # At `attn.hook_z` sae-lens lays the heads side by side, which is how `attn_z` has them.
    if reshaped != "none" and not (reshaped == "hook_z" and hook.endswith(".attn.hook_z")):
        raise SteerlabError(
            f"{origin} is of attention heads ({reshaped}) but reads {hook}; take one of "
            "attn.hook_z or of the residual stream"
        )
    for name in _FACTORS:
        # A factor of one does nothing.
        if name in weights and not torch.allclose(weights[name], torch.ones_like(weights[name])):
            raise SteerlabError(
                f"{origin} scales its latents by {name}, which steerlab does not; take another one"
            )


def _fold_norm(parts: Parts) -> None:
    """Fold the norms of the decoder rows into the encoder, in place.

    sae-lens' `rescale_acts_by_decoder_norm` multiplies each latent by the norm of its row. The same
    comes out of rows of length 1 and an encoder that is multiplied instead.
    """
    norm = parts["W_dec"].norm(dim=-1)
    if not (norm > 0).all():
        raise SteerlabError(
            "a decoder row is zero, and the latents are scaled by its norm; train it again"
        )
    parts["W_enc"] = parts["W_enc"] * norm
    parts["b_enc"] = parts["b_enc"] * norm
    parts["W_dec"] = parts["W_dec"] / norm[:, None]


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the tensors of a file, its header)."""
    if not file.exists():
        raise SteerlabError(f"there is no file {file} beside its configuration; fetch it too")
    return read_safetensors(file)


def file_hash(file: Path) -> str:
    """The hash of a file, read in blocks: weights may be larger than the memory."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
