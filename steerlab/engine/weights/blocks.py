"""New blocks: a shift of the residual stream that stands behind a norm, as a block that adds one
vector to whatever it reads."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.models.anatomy import projections
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.stream import adds_up, run
from steerlab.models.writers import gain_of, oriented

Half = Literal["attention", "MLP"]

# What the MLP gives is of this size times the square of what it reads: so far above every norm's
# epsilon that this does not matter, and as far below the largest number of bfloat16 and float32.
_LARGE = 2.0**20
# A configuration's lists of tokens and names, which may be as long as the model is deep.
_NOT_OF_LAYERS = ("token_id", "architectures", "_labels")


@dataclass(frozen=True, eq=False)
class NewBlock:
    """A block that adds one vector to the residual stream, and nothing else.

    Its attention is of zeros. Its MLP has coordinates and their opposites for neurons, so that it
    gives a positive number, Σ aᵢ act(aᵢ) + (-aᵢ) act(-aᵢ) = |a|² where it is gated, along one
    vector; and the norm behind it brings that to one length.

    Args:
        layer: the block of the model at which the shift is.
        half: what of that block it stands behind. Behind the attention, the block is taken apart:
            the new MLP stands in its place, and a block of zero attention with the old MLP behind.
        shift: what is added.
        why: what it came from, in words.
    """

    layer: int
    half: Half
    shift: Float[Tensor, " width"]
    why: str = ""


@dataclass(frozen=True)
class _Parts:
    """Names of modules in a block: its MLP and the MLP's last map, what reads the stream before it,
    and the norm behind."""

    mlp: str
    last: str
    first: str
    norm: str

    def in_mlp(self, name: str) -> bool:
        """Whether a weight is of the MLP's half of the block."""
        return any(name.startswith(f"{part}.") for part in (self.mlp, self.first, self.norm))


def merged(blocks: Sequence[NewBlock]) -> tuple[NewBlock, ...]:
    """One block for each place, in the order of a pass; those whose shifts add up to nothing are
    left out."""
    found: dict[tuple[int, Half], NewBlock] = {}
    for each in blocks:
        place = (each.layer, each.half)
        if place in found:
            one = found[place]
            each = NewBlock(*place, one.shift + each.shift, f"{one.why} and {each.why}")
        found[place] = each
    order = sorted(found, key=lambda place: (place[0], place[1] == "MLP"))
    return tuple(found[place] for place in order if found[place].shift.any())


def numbers(blocks: Sequence[NewBlock]) -> list[int]:
    """In which block of the deeper model each shift is."""
    return [each.layer + (each.half == "MLP") + count for count, each in enumerate(blocks)]


def need_place(model: HuggingFaceModel, layer: int) -> None:
    """Raise where no new block can stand at a layer of a model."""
    _parts(model, layer)
    text = model.hf.config.get_text_config()
    if getattr(text, "num_kv_shared_layers", 0):
        raise SteerlabError(
            f"layers of {type(model.hf).__name__} share keys and values by their numbers, which a "
            "new block would move; add the step where weights can say it, as at resid_pre of "
            "layer 0"
        )
    if model.dtype == torch.float16:
        raise SteerlabError(
            "the MLP of a new block gives numbers too large for float16; load the model in "
            "float32 or bfloat16"
        )


def deeper(
    model: HuggingFaceModel, config: Any, state: Mapping[str, Tensor], blocks: Sequence[NewBlock]
) -> tuple[Any, dict[str, Tensor], list[int]]:
    """A configuration and weights with new blocks, and of each block of the deeper model the number
    of the one that it is, or is shaped like.

    Args:
        model: the one that gets them.
        config: of it, or with more places for biases.
        state: its weights by whole names, with the changed ones among them.
        blocks: as `merged` gives them.
    """
    start = f"{model.anatomy.path}."
    new = {(each.layer, each.half): each for each in blocks}
    layers: list[dict[str, Tensor]] = []
    origin: list[int] = []
    for layer in range(model.n_layers):
        own = {
            name.removeprefix(f"{start}{layer}."): value
            for name, value in state.items()
            if name.startswith(f"{start}{layer}.")
        }
        made = [own]
        if middle := new.get((layer, "attention")):
            parts, shifting = _parts(model, layer), _weights(model, middle, own)
            first = own | {name: shifting[name] for name in own if parts.in_mlp(name)}
            second = shifting | {name: own[name] for name in own if parts.in_mlp(name)}
            made = [first, second]
        if behind := new.get((layer, "MLP")):
            made.append(_weights(model, behind, own))
        layers += made
        origin += [layer] * len(made)
    found = {name: value for name, value in state.items() if not name.startswith(start)}
    for number, own in enumerate(layers):
        found |= {f"{start}{number}.{name}": value for name, value in own.items()}
    return _config(config, origin, model.n_layers), found, origin


def _config(config: Any, origin: Sequence[int], before: int) -> Any:
    """A configuration of more layers; every list with an entry for each layer gets more of them."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    for name, value in text.to_dict().items():
        of_layers = isinstance(value, list) and len(value) == before
        if of_layers and not any(each in name for each in _NOT_OF_LAYERS):
            setattr(text, name, [value[layer] for layer in origin])
    text.num_hidden_layers = len(origin)
    return config


@torch.no_grad()
def check_shifts(model: HuggingFaceModel, hf: Any, blocks: Sequence[NewBlock]) -> None:
    """Raise unless each new block of a deeper network adds its shift, in a pass of two tokens."""
    names = [f"{model.anatomy.path}.{number}" for number in numbers(blocks)]
    norms = [
        f"{name}.{_parts(model, each.layer).norm}" for name, each in zip(names, blocks, strict=True)
    ]
    seen = run(hf, [*names, *norms])
    for name, norm, block in zip(names, norms, blocks, strict=True):
        given, shift = seen[norm].output, block.shift.float().to(model.device)
        slack = 8 * torch.finfo(model.dtype).eps * shift.norm()
        wrong = given is None or ((given.float() - shift).norm(dim=-1) > slack).any()
        if block.half == "MLP":
            wrong = wrong or not adds_up(seen[name].output, seen[name].input, given)
        if wrong:
            raise SteerlabError(
                f"a new block of {model.name} does not add the shift that {block.why} makes: "
                f"{type(hf).__name__} does more with what its MLP gives than a norm of its root "
                "mean square; leave more_blocks out"
            )


def _parts(model: HuggingFaceModel, layer: int) -> _Parts:
    """The names of what a new block needs; raises where there is none."""
    block, stream = model.blocks[layer], model.anatomy.streams[layer]
    names = {id(module): name for name, module in block.named_modules()}
    last = names[id(projections(block).last)]
    mlp = last.rpartition(".")[0]
    norm = stream.mlp_out or last
    behind = norm != last and hasattr(block.get_submodule(norm), "weight")
    if not (behind and mlp and stream.resid_mid) or norm.startswith(f"{mlp}."):
        raise SteerlabError(
            f"{type(block).__name__} has no attention, then an MLP, and a norm behind that, as a "
            "new block needs, which adds a vector to the residual stream and nothing else"
        )
    return _Parts(mlp, last, stream.resid_mid, norm)


@torch.no_grad()
def _weights(
    model: HuggingFaceModel, new: NewBlock, like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of a new block, by their names in it; of the shapes of another one's.

    What is written is `shift / gain` along the MLP's last map, in as many bits as the weights have,
    and the gain is about one number, of which every precision has what is needed: a small
    coordinate would not survive as the w of a gain 1 + w.
    """
    block, parts = model.blocks[new.layer], _parts(model, new.layer)
    made = {name: torch.zeros_like(value) for name, value in like.items()}
    for name, module in block.named_modules():
        # What norms read stays seen: only zeros of the attention tell what it writes.
        if "norm" in type(module).__name__.lower() and f"{name}.weight" in made:
            made[f"{name}.weight"].copy_(like[f"{name}.weight"])
    ends, width = projections(block), model.width
    pairs = min(width, ends.width // 2)  # any positive number will do
    both = torch.zeros(ends.width, width)
    both[:pairs, :pairs] = torch.eye(pairs)
    both[pairs : 2 * pairs, :pairs] = -torch.eye(pairs)
    for name, module in block.get_submodule(parts.mlp).named_modules():
        key = f"{parts.mlp}.{name}.weight"
        if key in made and key != f"{parts.last}.weight" and made[key].ndim == 2:
            map_ = oriented(module, made[key])  # a fused one has gate and value side by side
            map_.copy_(both.repeat(len(map_) // ends.width, 1))
    if f"{parts.first}.weight" in made and parts.first != parts.mlp:
        made[f"{parts.first}.weight"].fill_(1 - _plus(model, block.get_submodule(parts.first)))
    gain_weight = made[f"{parts.norm}.weight"]
    plus = _plus(model, block.get_submodule(parts.norm))
    weight = gain_weights(new.shift.double().cpu(), plus, gain_weight.dtype)
    gain_weight.copy_(weight)
    written = new.shift.double().cpu() / (weight + plus)
    last = oriented(ends.last, made[f"{parts.last}.weight"])
    last[:, : 2 * pairs] = (_LARGE * written)[:, None].to(last)
    return made


def _plus(model: HuggingFaceModel, norm: Any) -> int:
    """What a norm adds to its weights before it multiplies by them: Gemma's 1, or 0."""
    bare = copy.deepcopy(norm)
    for value in bare.parameters():
        value.zero_()
    return round(float(gain_of(bare, model.width, model.device)[0]))


def gain_weights(
    shift: Float[Tensor, " width"], plus: int, dtype: torch.dtype
) -> Float[Tensor, " width"]:
    """Weights w of a norm with the gains g = plus + w, exact in a precision, so that shift/g has
    the root mean square 1 that the norm gives.

    One number of the precision would miss the length by half a step of it, which of Gemma's 1 + w
    in bfloat16 is 0.002 whatever the length is; so some coordinates have the number below and the
    others the one above.
    """
    size = shift.square().mean().sqrt()
    near = (size - plus).to(dtype)
    step = torch.tensor([float("-inf"), float("inf")], dtype=dtype)
    around = torch.cat([near[None], torch.nextafter(near.expand(2), step)]).double()
    low = around[around + plus <= size].max()
    high = around[around + plus > size].min()
    if low + plus <= 0:  # a step of less than any gain: one too long
        return high.expand(len(shift)).clone()
    squares = shift.square()
    more = squares / (low + plus) ** 2 - squares / (high + plus) ** 2
    missing = len(shift) - float((squares / (high + plus) ** 2).sum())
    gains = high.expand(len(shift)).clone()
    for place in more.argsort(descending=True).tolist():  # so that the smallest fit what is left
        if more[place] <= missing:
            missing -= float(more[place])
            gains[place] = low
    return gains
