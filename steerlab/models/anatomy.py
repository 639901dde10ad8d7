"""Where the parts of a Hugging Face decoder are: blocks, attention, MLP, norms, head.

A part is proposed by the names that architectures give it. What a name alone cannot tell is told by
the sums of a pass (`models.stream`), and what cannot be told raises and names the module.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import NEURONS, ROUTER, need_site
from steerlab.models.model import Head, Writes, as_it_is
from steerlab.models.routers import Router, routers
from steerlab.models.stream import Candidates, Stream, adds_up, run, running, streams

_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_WRITERS = ("language_model", "text_model")  # of a model that also sees, the part that writes
_OUTPUTS = ("o_proj", "c_proj", "out_proj", "dense")  # of an attention: takes what its heads give
_MLPS = ("mlp", "feed_forward", "ffn", "ff")  # some blocks hold their projections themselves
_PROJECTIONS = (  # what goes into the non-linearity, and what comes after it
    ("gate_up_proj", "down_proj"),
    ("gate_proj", "down_proj"),
    ("up_proj", "down_proj"),
    ("w1", "w2"),
    ("c_fc", "c_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc_in", "fc_out"),
    ("fc1", "fc2"),
)
_LASTS = tuple(dict.fromkeys(last for _, last in _PROJECTIONS))


@dataclass(frozen=True)
class Projections:
    """An MLP's two ends: `first` gives what goes into the non-linearity, `last` takes what comes
    out of it.

    `width`: how many neurons there are. `fused`: `first` gives the gate and, behind it, what the
    gate multiplies.
    """

    first: torch.nn.Module
    last: torch.nn.Module
    width: int
    fused: bool


@final
class Anatomy:
    """The parts of a model with these blocks."""

    def __init__(self, hf: Any, blocks: torch.nn.ModuleList):
        self._hf = hf
        self.blocks = blocks

    def module(self, layer: int, site: str) -> torch.nn.Module:
        """The module of a block whose input is at `attn_z` or `resid_mid`, or whose output is at
        `attn_out` or `mlp_out`."""
        stream, block = self.streams[layer], self.blocks[layer]
        name = getattr(stream, site)
        if name is None:
            raise SteerlabError(_why_not(type(block).__name__, site, stream))
        return block.get_submodule(name)

    def width_of(self, site: str, stream: int) -> int:
        """How wide activations are at a site, where the residual stream is `stream` wide; raises
        unless every block has the site, or, of routers, some block."""
        need_site(site)
        if site in ("resid_pre", "resid_post"):  # every block has an input and an output
            return stream
        if site == ROUTER:
            widths = {router.experts for router in self.routers if router is not None}
        elif site in NEURONS:
            widths = {projections(block).width for block in self.blocks}
        else:
            modules = [self.module(layer, site) for layer in range(len(self.blocks))]
            widths = {_features(each)[0] for each in modules} if site == "attn_z" else {stream}
        if len(widths) > 1:
            raise SteerlabError(
                f"the blocks have different widths {sorted(widths)}, so {site} has none of its own"
            )
        return widths.pop()

    def router(self, layer: int) -> Router:
        """The router of a block; a block without one raises."""
        router = self.routers[layer]
        if router is None:
            having = [number for number, each in enumerate(self.routers) if each is not None]
            raise SteerlabError(
                f"the block of layer {layer} has no experts, so it has no site 'router'; the "
                f"layers {', '.join(map(str, having))} have"
            )
        return router

    @cached_property
    def routers(self) -> list[Router | None]:
        """The router of each block, None for one without."""
        return routers(self._hf, self.blocks)

    def neuron_outputs(self, layer: int) -> Float[Tensor, "width neuron"]:
        """What each neuron of a block's MLP writes, before any norm of it."""
        last: Any = projections(self.blocks[layer]).last
        weight = last.weight.detach()
        return weight if hasattr(last, "in_features") else weight.mT  # as GPT-2's Conv1D has it

    def writes(self, site: str, layer: int, dtype: torch.dtype) -> Writes | None:
        """How what is at a site of a block reaches the residual stream; see `Model.writes`."""
        if site == ROUTER:  # the experts lie between
            return None
        stream, block = self.streams[layer], self.blocks[layer]
        of_attention = site in ("attn_z", "attn_out")
        out = stream.attn_out if of_attention else stream.mlp_out
        if out is None or site == "mlp_pre":  # a non-linearity and a gate lie between
            return None
        there = "resid_mid" if of_attention and stream.resid_mid is not None else "resid_post"
        if site in ("attn_out", "mlp_out"):
            return there, as_it_is
        if of_attention and stream.attn_z is None:
            return None
        last = self.module(layer, "attn_z") if of_attention else projections(block).last
        norm = block.get_submodule(out) if out in _norms(block) else None
        return there, partial(_written, last, norm, dtype)

    @cached_property
    def head(self) -> Head:
        """The norm that reads what the last block gives, and the unembedding."""
        parent, last = self.path.rpartition(".")[0], f"{self.path}.{len(self.blocks) - 1}"
        beside = _norms(self._hf.get_submodule(parent))
        norms = [f"{parent}.{name}".lstrip(".") for name in beside]
        seen = run(self._hf, [*norms, last])
        # A norm beside the blocks may also be that of the embedding.
        after = [name for name in norms if adds_up(seen[name].input, seen[last].output)]
        output = self._hf.get_output_embeddings()
        if not after or output is None:
            raise SteerlabError(
                f"{type(self._hf).__name__} has no norm after its blocks, or no unembedding"
            )
        return Head(self._hf.get_submodule(after[-1]), output.weight)

    @cached_property
    def path(self) -> str:
        """The name of the list of blocks in the model."""
        return next(name for name, module in self._hf.named_modules() if module is self.blocks)

    @cached_property
    def streams(self) -> list[Stream]:
        named = {f"{self.path}.{layer}": block for layer, block in enumerate(self.blocks)}
        return streams(self._hf, {name: _candidates(block) for name, block in named.items()})


def blocks(hf: Any, count: int | None) -> torch.nn.ModuleList:
    """The decoder's blocks: the outermost list of modules that run one after the other on a text,
    as long as the configuration says that the model is deep.

    Of a model that also sees they are those of the part that writes, by its name: a vision tower
    may be as deep. Some configurations count other things: where the length does not tell, a pass
    of two tokens does. Raises for a model whose blocks cannot be told.
    """
    writer = _writer(hf)
    lists = {
        name: module
        for name, module in hf.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) and name.startswith(writer)
    }
    own = [name for name in lists if writer and "." not in name.removeprefix(writer)]
    if len(own) == 1:
        return lists[own[0]]
    fitting = [name for name, each in lists.items() if len(each) == count]
    if len(fitting) == 1:
        return lists[fitting[0]]
    ran = running(hf, lists)
    # Not those inside a block, which run for each block.
    outer = [name for name in ran if not any(name.startswith(f"{other}.") for other in ran)]
    chosen = [name for name in outer if name in fitting] or sorted(
        outer, key=lambda name: -len(lists[name])
    )
    if not chosen:
        raise SteerlabError(
            f"{type(hf).__name__} has no list of {count} blocks that run one after the other; it "
            "is no decoder that steerlab knows"
        )
    return lists[chosen[0]]


def _writer(hf: Any) -> str:
    """How the names of what is in the part of a model begin that writes, where it also sees or
    hears; "" where it does neither."""
    config = hf.config
    if not any(getattr(config, f"{sense}_config", None) for sense in ("vision", "audio")):
        return ""
    names = [name for name, _ in hf.named_modules() if name.rpartition(".")[2] in _WRITERS]
    return f"{min(names, key=lambda name: name.count('.'))}." if names else ""


def size_of(config: Any, name: str) -> int | None:
    """A size by its name in a configuration; None where it has none, or one for each layer."""
    try:
        size = getattr(config, name, None)
    except Exception:  # transformers' own, for a size that differs from layer to layer
        return None
    return int(size) if isinstance(size, int) else None


def width_of(hf: Any, config: Any) -> int:
    """How wide the residual stream is."""
    for name in ("hidden_size", "d_model", "n_embd"):
        if (size := size_of(config, name)) is not None:
            return size
    return int(hf.get_input_embeddings().weight.shape[-1])


def projections(block: torch.nn.Module) -> Projections:
    """The projections of a block's MLP, by their names and widths; experts and unknown MLPs
    raise."""
    mlp = next((getattr(block, name) for name in _present(block, _MLPS)), block)
    if hasattr(mlp, "experts"):
        raise SteerlabError(
            f"{type(mlp).__name__} is a mixture of experts: which neurons a token meets differs "
            "from token to token, so it has no site 'mlp_pre' or 'mlp_post'; use resid_pre or "
            "resid_post"
        )
    for names in _PROJECTIONS:
        first, last = (getattr(mlp, name, None) for name in names)
        if first is None or last is None:
            continue
        width, given = _features(last)[0], _features(first)[1]
        if given in (width, 2 * width):
            return Projections(first, last, width, given == 2 * width)
    known = ", ".join(" and ".join(names) for names in _PROJECTIONS)
    raise SteerlabError(
        f"{type(block).__name__} has no MLP that steerlab knows, so no site 'mlp_pre' or "
        f"'mlp_post': the projections into and out of it are named {known}; use resid_pre or "
        "resid_post"
    )


def _written(
    last: Any, norm: Any, dtype: torch.dtype, before: Tensor, added: Tensor
) -> Float[Tensor, "row pos width"]:
    """What a projection, and a norm behind it if there is one, make of what is added to their
    input.

    Their `forward` is called, and not they themselves, whose hooks are those of the edit.
    """
    if norm is None:  # linear: no difference of two large numbers has to be taken
        bias = last.forward(torch.zeros_like(added[:1, :1]).to(dtype))
        return (last.forward(added.to(dtype)) - bias).expand(*before.shape[:2], -1)
    old = norm.forward(last.forward(before.to(dtype)))
    return norm.forward(last.forward((before + added).to(dtype))) - old


def _candidates(block: torch.nn.Module) -> Candidates:
    """The modules of a block that may be a part of its stream, by their names."""
    norms, attentions, mlps = _norms(block), _present(block, _ATTENTIONS), _present(block, _MLPS)
    # GPT-Neo's attention holds the real one: the projection may lie deeper.
    inner = [name.split(".") for name, _ in block.named_modules()]
    outputs = [".".join(p) for p in inner if p[0] in attentions and p[-1] in _OUTPUTS]
    ends = [".".join(p) for p in inner if len(p) == 2 and p[0] in mlps and p[1] in _LASTS]
    return Candidates(
        attention=attentions,
        attn_z=outputs,
        attn_out=[*norms, *attentions, *outputs],
        resid_mid=[*norms, *mlps],
        mlp_out=[*norms, *mlps, *(ends or _present(block, _LASTS))],
    )


def _why_not(block: str, site: str, stream: Stream) -> str:
    """Why a block has no such site."""
    if site == "attn_z":
        why = (
            f"{block} has no attention ({', '.join(_ATTENTIONS)}) with one projection after its "
            f"heads ({', '.join(_OUTPUTS)}) that steerlab can tell"
        )
    elif site == "resid_mid" and stream.attn_out is not None:
        why = (
            f"{block} runs its attention and its MLP side by side, or hands its MLP a copy of the "
            "residual stream, which therefore has no middle that can be read and changed"
        )
    else:
        why = (
            f"what {block} adds to the residual stream is no output of its attention, its MLP or a "
            "norm of theirs that steerlab can tell; it may scale them first, as Granite's does"
        )
    return f"{why}: there is no site {site!r}; use resid_pre or resid_post"


def _present(module: torch.nn.Module, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if isinstance(getattr(module, name, None), torch.nn.Module)]


def _norms(module: torch.nn.Module) -> list[str]:
    """The names of a module's own norms, told by their classes."""
    children = module.named_children()
    return [name for name, child in children if "norm" in type(child).__name__.lower()]


def _features(linear: Any) -> tuple[int, int]:
    """Features in and out of a linear layer, or of GPT-2's `Conv1D`."""
    if hasattr(linear, "in_features"):
        return int(linear.in_features), int(linear.out_features)
    return int(linear.weight.shape[0]), int(linear.weight.shape[1])
