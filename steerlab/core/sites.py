"""Sites of a model, and the names that TransformerLens gives their hook points."""

from typing import Literal, get_args

from steerlab.core.errors import SteerlabError

Site = Literal["resid_pre", "resid_post", "mlp_pre", "mlp_post"]

SITES: tuple[str, ...] = get_args(Site)


def hook_name(site: str, layer: int) -> str:
    """The TransformerLens name of a site at a layer, such as `blocks.5.hook_resid_post`.

    Raises `SteerlabError` for an unknown site.
    """
    if site not in SITES:
        raise SteerlabError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")
    # Hooks inside the MLP belong to a submodule of the block, and lose the prefix.
    if site.startswith("mlp_"):
        return f"blocks.{layer}.mlp.hook_{site.removeprefix('mlp_')}"
    return f"blocks.{layer}.hook_{site}"
