"""Autoencoders through sae-lens: its directory of releases, and its own objects. Only this file
imports it."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.sae.formats import about_of, from_config
from steerlab.sae.hooks import place_of
from steerlab.sae.reading import Parts


def fetch(release: str, sae_id: str) -> Parts:
    """The fields of an autoencoder that sae-lens knows; its files come from the Hub, or from its
    cache."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import (
        get_pretrained_saes_directory,
        get_repo_id_and_folder_name,
    )

    known = get_pretrained_saes_directory()
    if release not in known and "/" not in release:
        raise SteerlabError(f"sae-lens knows no release {release!r}; {_nearest(release, known)}")
    if release in known and sae_id not in known[release].saes_map:
        raise SteerlabError(
            f"release {release} has no id {sae_id!r}; {_nearest(sae_id, known[release].saes_map)}"
        )
    repository, path = get_repo_id_and_folder_name(release, sae_id)
    try:
        found = SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    except SteerlabError:
        raise
    except (
        Exception
    ) as error:  # each of sae-lens' loaders and of the Hub's clients has errors of its own
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise SteerlabError(
            f"could not get {release} {sae_id}: {path} of https://huggingface.co/{repository} is "
            "not in the cache and "
            f"could not be fetched or read ({told}); connect once, or give a folder with its files "
            "to SAE.load"
        ) from error
    parts = parts_of(found)
    return parts | {"about": parts["about"] | {"release": release, "id": sae_id}}


def parts_of(sae: Any) -> Parts:
    """The fields of an autoencoder object of sae-lens."""
    if not hasattr(sae, "cfg") or not hasattr(sae, "state_dict"):
        raise SteerlabError(
            f"an autoencoder of sae-lens is needed, not {type(sae).__name__}; load a folder by "
            "SAE.load"
        )
    config = sae.cfg.to_dict()
    metadata = config.get("metadata") or {}
    origin = str(metadata.get("sae_lens_release") or f"this {type(sae).__name__}")
    if metadata.get("hook_name") is None:
        raise SteerlabError(f"{origin} does not say where it reads; set its cfg.metadata.hook_name")
    parts = from_config(
        config, {name: value.detach() for name, value in sae.state_dict().items()}, origin
    )
    site, layer = place_of(metadata["hook_name"])
    return parts | {"site": site, "layer": layer, "about": about_of(metadata)}


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
    return f"the nearest of {len(names)} are {', '.join(near)}"
