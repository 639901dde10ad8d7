"""Autoencoders that sparsify and dictionary_learning wrote: the first are read, the second are
pickles and are refused."""

import re
from pathlib import Path
from typing import NoReturn

from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_config
from steerlab.core.sites import hook_name
from steerlab.sae.formats import (
    file_hash,
    from_config,
    read_weights,
    transcoder,
)
from steerlab.sae.hooks import agreed
from steerlab.sae.reading import Format, Parts

# A folder's name says what the autoencoder reads: the output of a block, or of a part of one.
_PLACE = re.compile(r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)\.(\d+)(?:\.(\w+))?")
_SITES = {
    None: "resid_post",
    "mlp": "mlp_out",
    "attn": "attn_out",
    "self_attn": "attn_out",
    "attention": "attn_out",
}


def _sparsify(folder: Path, layer: int | None, hook: str | None) -> tuple[Parts, None]:
    """`cfg.json` and `sae.safetensors`: a topk autoencoder of what the folder's name says.

    Latents are the k largest of ReLU(W_enc (x - b_dec) + b_enc).
    """
    config = read_config(folder / "cfg.json")
    file = folder / "sae.safetensors"
    stored, _ = read_weights(file)
    if config.get("transcode") or config.get("skip_connection") or "W_skip" in stored:
        raise SteerlabError(transcoder(folder))
    if config.get("activation", "topk") != "topk":
        raise SteerlabError(
            f"{folder} keeps its latents by {config['activation']!r}; of sparsify's autoencoders "
            "only those by topk are read"
        )
    names = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
    weights = {names.get(name, name): value for name, value in stored.items()}
    if "W_enc" in weights:
        weights["W_enc"] = weights["W_enc"].mT  # a linear layer holds [out in]
    parts = from_config({"architecture": "topk", "k": config.get("k")}, weights, str(folder))
    found = _PLACE.fullmatch(folder.name)
    told = None
    if found and found[2] in _SITES:
        told = hook_name(_SITES[found[2]], int(found[1]))
    parts["site"], parts["layer"] = agreed(told, hook, layer, str(folder))
    parts["about"] = {"format": "sparsify", "sha256": file_hash(file)}
    return parts, None


def _dictionary_learning(folder: Path, layer: int | None, hook: str | None) -> NoReturn:
    """`ae.pt`, a pickle."""
    trainer = read_config(folder / "config.json").get("trainer") or {}
    kind = trainer.get("dict_class", "an autoencoder")
    raise SteerlabError(
        f"{folder} holds {kind} of dictionary_learning in ae.pt, a pickle, which can run anything "
        "and is not read; load it there, and give its tensors to steerlab's SAE(W_enc=..., "
        "b_enc=..., W_dec=..., b_dec=..., kind=..., site=..., layer=...)"
    )


RECORDS = {
    "sae.safetensors": Format(name="sparsify", read=_sparsify),
    "ae.pt": Format(name="dictionary_learning", read=_dictionary_learning),
}
