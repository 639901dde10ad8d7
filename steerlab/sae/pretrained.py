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
    """The fields of an autoencoder of one of sae-lens' releases, from the Hub or its cache.

    Raises `SteerlabError` for an unknown release or id, with the nearest names, and where the files
    cannot be fetched or read.
    """
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import (
        get_pretrained_saes_directory,
        get_repo_id_and_folder_name,
    )

    releases = get_pretrained_saes_directory()
    # A name with a slash may be a repository of the Hub, which no directory lists.
    if release not in releases and "/" not in release:
        raise SteerlabError(f"sae-lens knows no release {release!r}; {_nearest(release, releases)}")
    if release in releases and sae_id not in releases[release].saes_map:
        near = _nearest(sae_id, releases[release].saes_map)
        raise SteerlabError(f"release {release} has no id {sae_id!r}; {near}")
    repository, path = get_repo_id_and_folder_name(release, sae_id)
    try:
        autoencoder = SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    except SteerlabError:
        raise
    # Everything, since each of sae-lens' loaders and of the Hub's clients has errors of its own.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise SteerlabError(
            f"could not get {release} {sae_id}: {path} of https://huggingface.co/{repository} is "
            f"not in the cache and could not be fetched or read ({lines[0]}); connect once, or "
            "give a folder with its files to SAE.load"
        ) from error
    parts = parts_of(autoencoder)
    return parts | {"about": parts["about"] | {"release": release, "id": sae_id}}


def parts_of(sae: Any) -> Parts:
    """The fields of an autoencoder object of sae-lens.

    Raises `SteerlabError` for another object, and for one that does not say where it reads.
    """
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
    weights = {name: value.detach() for name, value in sae.state_dict().items()}
    parts = from_config(config, weights, origin)
    site, layer = place_of(metadata["hook_name"])
    return parts | {"site": site, "layer": layer, "about": about_of(metadata)}


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known names that are most like one, as the end of a message."""
    names = list(known)
    # Where nothing is similar, the first few still show what such names look like.
    near = get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
    return f"the nearest of {len(names)} are {', '.join(near)}"
