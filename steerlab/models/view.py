"""What a model says of itself."""

from typing import Any

from steerlab.core.display import View, bars, counted, shown


def view_of(model: Any) -> View:
    """The view of a `Model`."""
    count = sum(each.numel() for each in model.hf.parameters())
    return View(
        f"Model {model.name}",
        f"{counted(model.n_layers, 'layer')} of width {model.width}, "
        f"{counted(model.vocabulary, 'token')}, {counted(count, 'parameter')}, "
        f"{str(model.dtype).removeprefix('torch.')} on {model.device}",
        {
            "network": type(model.hf).__name__,
            "longest text": f"{shown(model.context)} tokens",
            "weights": model.processing,
            "revision": model.revision,
        },
        picture=lambda: bars(_sizes(model)),
        caption="parameters of each block, and of all that is outside of the blocks",
    )


def _sizes(model: Any) -> dict[str, float]:
    sizes: dict[str, float] = {
        str(layer): sum(each.numel() for each in block.parameters())
        for layer, block in enumerate(model.blocks)
    }
    inside = {id(each) for block in model.blocks for each in block.parameters()}
    outside = [each.numel() for each in model.hf.parameters() if id(each) not in inside]
    return sizes | {"rest": sum(outside)}
