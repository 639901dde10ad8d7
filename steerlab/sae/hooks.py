"""Hook names of other libraries, as a site and a layer."""

import re
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES, hook_name, site_of

_HUGGING_FACE = re.compile(
    r"(?:(?:model|transformer|language_model|gpt_neox|decoder)\.)*(?:layers|h)\.(\d+)(?:\.output)?"
)


def place_of(hook: str) -> tuple[str, int]:
    """The site and layer that a hook name of TransformerLens, or a block's name in Hugging Face,
    stands for.

    `model.layers.5` and `model.layers.5.output` are the residual stream after block 5. A place
    where steerlab reads nothing raises and lists those where it does.
    """
    if (place := site_of(hook)) is not None:
        return place
    if block := _HUGGING_FACE.fullmatch(hook):
        return "resid_post", int(block[1])
    allowed = ", ".join(hook_name(site, 5) for site in SITES)
    raise SteerlabError(
        f"this autoencoder is of {hook!r}, where steerlab neither reads nor writes; it knows "
        f"{allowed} and "
        "model.layers.5: take an autoencoder of the residual stream"
    )


def agreed(told: Any, hook: str | None, layer: int | None, origin: str) -> tuple[str, int]:
    """The site and layer from what a file tells and what the caller gives; they must not
    contradict each other."""
    given = place_of(hook) if hook is not None else None
    if layer is not None:
        if given is not None and given[1] != layer:
            raise SteerlabError(
                f"hook {hook!r} is at layer {given[1]}, and layer {layer} was given; give one of "
                "them"
            )
        given = given or (place_of(told)[0] if told else "resid_post", layer)
    if told is None and given is None:
        raise SteerlabError(
            f"{origin} does not say where its autoencoder reads; give "
            "hook='blocks.5.hook_resid_post'"
        )
    stated = place_of(told) if told is not None else given
    if given is not None and given != stated:
        raise SteerlabError(
            f"{origin} is an autoencoder of {told!r}, and {hook_name(*given)!r} was asked for; "
            "drop hook and layer, or "
            "give another folder"
        )
    assert stated is not None  # for mypy: one of the two is there
    return stated
