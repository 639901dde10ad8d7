"""How a decoder's blocks add to the residual stream, told by the sums in a pass of two tokens.

Names are not enough. `post_attention_layernorm` is before the MLP in Llama and behind the attention
in Gemma 2 and OLMo 2; GPT-NeoX has the modules of GPT-2 and may run them side by side; Bloom's
attention adds the stream to its output inside, and Granite's block scales what it adds. So names
only propose modules, and those are taken whose inputs and outputs add up.
"""

import copy
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from steerlab.core.equality import same
from steerlab.models.outputs import first_of


@dataclass(frozen=True)
class Stream:
    """How a block adds to the residual stream: names of modules inside it, None for a site that
    it does not have.

    resid_mid = resid_pre + attn_out and resid_post = resid_mid + mlp_out; in a block that runs its
    attention and its MLP side by side, resid_post = resid_pre + attn_out + mlp_out.
    """

    attn_z: str | None = None  # the site is this module's input
    attn_out: str | None = None  # the site is this module's output
    resid_mid: str | None = None  # the site is this module's input
    mlp_out: str | None = None  # the site is this module's output


@dataclass(frozen=True)
class Candidates:
    """Names of modules in a block that may be those of its `Stream`.

    Of two that give the same the first is taken. Norms stand first: where a norm gives what it
    reads, as with zeros, an edit belongs behind it.
    """

    attention: Sequence[str]
    attn_z: Sequence[str]
    attn_out: Sequence[str]
    resid_mid: Sequence[str]
    mlp_out: Sequence[str]

    @property
    def all(self) -> set[str]:
        return {*self.attention, *self.attn_z, *self.attn_out, *self.resid_mid, *self.mlp_out}


@dataclass
class Seen:
    """What went into a module and what came out of it; None where it did not run."""

    input: Tensor | None = None
    output: Tensor | None = None


def twin(hf: Any) -> Any:
    """A copy of a model that shares its weights, without the hooks that are attached just now."""
    # What the copy holds instead of an object, by the object's id.
    instead: dict[int, Any] = {id(tensor): tensor for tensor in (*hf.parameters(), *hf.buffers())}
    for module in hf.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            instead[id(hooks)] = OrderedDict()  # a hook of ours would have the copy load us anew
    made = copy.deepcopy(hf, instead)
    vars(made).pop("generate", None)  # that of an edit, which would run the model itself
    return made


def streams(hf: Any, candidates: Mapping[str, Candidates]) -> list[Stream]:
    """How the blocks of a model, by their names in it, add to its residual stream."""
    names = list(candidates)
    for block, own in candidates.items():
        names += [f"{block}.{name}" for name in own.all]
    seen = run(hf, names)
    by_block = {block: _stream(own, _inside(block, seen)) for block, own in candidates.items()}
    # An edit at resid_mid must reach the stream, and not only the module that reads it there.
    middles = {
        f"{block}.{stream.resid_mid}" for block, stream in by_block.items() if stream.resid_mid
    }
    seen = run(hf, names, halve=middles)
    return [_checked(stream, _inside(block, seen)) for block, stream in by_block.items()]


@torch.inference_mode()
def run(hf: Any, names: Iterable[str], *, halve: Collection[str] = ()) -> dict[str, Seen]:
    """What modules of a model read and give in a pass of two tokens; what those of `halve` read is
    halved, in place."""
    model = twin(hf)
    seen = {name: Seen() for name in names}

    def before(name: str) -> Any:
        def hook(_: Any, args: tuple, kwargs: dict) -> None:
            h = args[0] if args else kwargs.get("hidden_states")
            if isinstance(h, Tensor):
                seen[name].input = (h.mul_(0.5) if name in halve else h).clone()

        return hook

    def after(name: str) -> Any:
        def hook(_: Any, __: tuple, out: Any) -> None:
            h = out[0] if isinstance(out, tuple) else out
            if isinstance(h, Tensor):
                seen[name].output = h.clone()  # Falcon goes on to change it in place

        return hook

    for name in seen:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(before(name), with_kwargs=True)
        module.register_forward_hook(after(name))
    _run_two(model)
    return seen


@torch.inference_mode()
def running(hf: Any, lists: Mapping[str, torch.nn.ModuleList]) -> list[str]:
    """The lists of modules, by name, of which every one runs once and in order in a pass of two
    tokens, and reads what the one before it gave."""
    model = twin(hf)
    order: dict[str, list[int]] = {name: [] for name in lists}
    broken: set[str] = set()
    last: dict[str, Any] = {}

    def before(name: str, index: int) -> Any:
        def hook(_: Any, args: tuple, kwargs: dict) -> None:
            order[name].append(index)
            given = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(given, Tensor) or (
                index and not (isinstance(last[name], Tensor) and same(last[name], given))
            ):
                broken.add(name)

        return hook

    def after(name: str) -> Any:
        def hook(_: Any, __: tuple, out: Any) -> None:
            last[name] = first_of(out)

        return hook

    for name, modules in lists.items():
        for index in range(len(modules)):
            module = model.get_submodule(f"{name}.{index}")
            module.register_forward_pre_hook(before(name, index), with_kwargs=True)
            module.register_forward_hook(after(name))
    _run_two(model)
    return [
        name
        for name, modules in lists.items()
        if order[name] == list(range(len(modules))) and name not in broken
    ]


def _run_two(model: Any) -> None:
    """A pass of two tokens."""
    ids = torch.tensor([[0, 1]], device=next(model.parameters()).device)
    model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def adds_up(total: Tensor | None, *terms: Tensor | None) -> bool:
    """Whether the terms give the total but for a few roundings; not if one of them is missing."""
    if total is None or not total.is_floating_point():
        return False
    # Some architectures lay the positions of all rows in a row: [row·pos width].
    flat = [term.float().flatten() for term in terms if term is not None]
    if len(flat) < len(terms) or any(len(term) != total.numel() for term in flat):
        return False
    added = torch.stack(flat)
    slack = 8 * torch.finfo(total.dtype).eps * added.abs().sum(0)
    return bool(((total.float().flatten() - added.sum(0)).abs() <= slack).all())


def _inside(block: str, seen: Mapping[str, Seen]) -> dict[str, Seen]:
    """What was seen of a block's modules, by their names in the block; the block itself is ""."""
    start = f"{block}."
    inner = {
        name.removeprefix(start): each for name, each in seen.items() if name.startswith(start)
    }
    return inner | {"": seen[block]}


def _stream(own: Candidates, seen: Mapping[str, Seen]) -> Stream:
    before, after = seen[""].input, seen[""].output
    for middle, attention, mlp in product(own.resid_mid, own.attn_out, own.mlp_out):
        between = seen[middle].input
        first = adds_up(between, before, seen[attention].output)
        if first and adds_up(after, between, seen[mlp].output):
            return Stream(_attn_z(own, seen, attention), attention, middle, mlp)
    for attention, mlp in product(own.attn_out, own.mlp_out):
        if adds_up(after, before, seen[attention].output, seen[mlp].output):
            return Stream(_attn_z(own, seen, attention), attention, None, mlp)
    return Stream(_attn_z(own, seen, None))


def _attn_z(own: Candidates, seen: Mapping[str, Seen], attn_out: str | None) -> str | None:
    """The projection that gives what the attention gives."""
    for name in own.attn_z:
        outputs = [seen[attention].output for attention in own.attention]
        if name == attn_out or any(adds_up(output, seen[name].output) for output in outputs):
            return name
    return None


def _checked(stream: Stream, seen: Mapping[str, Seen]) -> Stream:
    """Without resid_mid if what was written there did not reach the block's output."""
    if stream.resid_mid is None or stream.mlp_out is None:
        return stream
    written, mlp_out = seen[stream.resid_mid].input, seen[stream.mlp_out].output
    return stream if adds_up(seen[""].output, written, mlp_out) else replace(stream, resid_mid=None)
