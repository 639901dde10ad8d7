"""Hook names of other libraries, as a site and a layer."""

import re
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES, hook_name, site_of

# Hugging Face: a block by the attributes that lead to it, or the output of one.
_HUGGING_FACE = re.compile(
    r"(?:(?:model|transformer|language_model|gpt_neox|decoder)\.)*(?:layers|h)\.(\d+)(?:\.output)?"
)


def place_of(hook: str) -> tuple[str, int]:
    """The (site, layer) that a hook name of TransformerLens, or a block's name in Hugging Face,
    stands for.

    `model.layers.5` and `model.layers.5.output` are the residual stream after block 5. Raises
    `SteerlabError` for a hook where steerlab reads nothing, and lists those where it does.
    """
    if (place := site_of(hook)) is not None:
        return place
    if block := _HUGGING_FACE.fullmatch(hook):
        return "resid_post", int(block[1])
    allowed = ", ".join(hook_name(site, 5) for site in SITES)
    raise SteerlabError(
        f"this autoencoder is of {hook!r}, where steerlab neither reads nor writes; it knows "
        f"{allowed} and model.layers.5: take an autoencoder of the residual stream"
    )


def agreed(told: Any, hook: str | None, layer: int | None, origin: str) -> tuple[str, int]:
    """The (site, layer) of an autoencoder, from what its file says and what the caller gives.

    Raises `SteerlabError` where neither says it, or where they contradict each other.

    Args:
        told: the hook name in the file; None where it has none.
        hook: the hook name that the caller gives, if any.
        layer: the layer that the caller gives, if any.
        origin: the file or folder, for the messages.
    """
    from_file = None if told is None else place_of(told)
    given = None if hook is None else place_of(hook)
    if given is not None and layer is not None and given[1] != layer:
        raise SteerlabError(
            f"hook {hook!r} is at layer {given[1]}, and layer {layer} was given; give one of them"
        )
    if given is None and layer is not None:
        # A layer alone leaves the site to the file; without one it is the residual stream.
        site = "resid_post" if from_file is None else from_file[0]
        given = (site, layer)
    if from_file is None and given is None:
        raise SteerlabError(
            f"{origin} does not say where its autoencoder reads; give "
            "hook='blocks.5.hook_resid_post'"
        )
    if from_file is not None and given is not None and given != from_file:
        raise SteerlabError(
            f"{origin} is an autoencoder of {told!r}, and {hook_name(*given)!r} was asked for; "
            "drop hook and layer, or give another folder"
        )
    agreed_on = from_file or given
    assert agreed_on is not None  # for mypy: one of the two is there
    return agreed_on
