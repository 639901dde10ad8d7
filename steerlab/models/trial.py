"""What an architecture can do beside one text at a time, found out by trying it on a few tokens.

Three things make many rows cheap, and none is true of every architecture: rows of several lengths
run together behind padding, decoding goes on from a cache, and rows join on the way through the
blocks (`models.branching`). What does not give the numbers of a text by itself is not used.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from steerlab.models.branching import Branch
from steerlab.models.layout import Layout, Seen

# Two texts of other lengths that end alike, so that their logits differ by what stands before; and
# a token that follows both.
_LONG, _SHORT, _NEXT = (9, 12, 7, 11, 8, 6), (10, 8, 6), 7
# Of a difference of the logits of the two: less is rounding.
_SLACK = {torch.float32: 1e-2, torch.float64: 1e-2}
_SLACK_HALF = 0.3

# Architectures that `experiments/architectures.py` found right with all of it, where each layer has
# attention of the plain kind: to try them again at every loading would cost time and say nothing.
_KNOWN = frozenset(
    (
        "apertus arcee biogpt codegen cohere cohere2 exaone4 falcon gemma gemma2 gemma3 "
        "gemma3_text glm glm4 gpt2 gpt_neo gpt_neox gpt_oss gptj granite helium hunyuan_v1_dense "
        "internlm3 jais2 llama ministral ministral3 mistral mixtral nemotron olmo olmo2 olmo3 "
        "olmoe opt persimmon phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 stablelm "
        "starcoder2 xglm "
    ).split()
)


@dataclass(frozen=True)
class Abilities:
    """What rows of a model may do together.

    Args:
        pads: whether rows of several lengths can run together.
        caches: whether decoding can go on from a cache.
        layout: where the rows are in what the blocks are given, if rows can join on the way.
        why: what the trial said of what is not so; empty if all is.
    """

    pads: bool = True
    caches: bool = True
    layout: Layout | None = None
    why: str = ""


def is_plain(hf: Any, config: Any) -> bool:
    """Whether a model is of an architecture of which it is known that padding and the cache change
    nothing, and each of its layers has a cache of the plain kind."""
    if getattr(hf.config, "model_type", None) not in _KNOWN:
        return False
    try:
        layers = DynamicCache(config=config).layers
    except Exception:  # a configuration that it cannot read says nothing
        return False
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    # Without `position_ids` a learned position may count the padding.
    taken = {"past_key_values", "attention_mask", "position_ids"}
    return taken <= _parameters(hf) and all(type(layer) in known for layer in layers)


def _parameters(hf: Any) -> set[str]:
    """The names that a model's forward pass takes."""
    from inspect import signature

    return set(signature(hf.forward).parameters)


@torch.inference_mode()
def try_rows(model: Any) -> Abilities:
    """Whether a model pads and caches; `model` is a view that nothing is attached to."""
    found = Abilities()
    alone = [_logits(model, [text]) for text in (_LONG, _SHORT)]
    after = [_logits(model, [(*text, _NEXT)]) for text in (_LONG, _SHORT)]
    reasons = []
    if problem := _apart(model, lambda: _logits(model, [_LONG, _SHORT]), alone):
        found = replace(found, pads=False)
        reasons.append(f"rows of several lengths ({problem})")
    together = (_LONG, _SHORT) if found.pads else (_LONG,)
    if problem := _apart(model, lambda: _stepped(model, together), after[: len(together)], after):
        found = replace(found, caches=False)
        reasons.append(f"a cache ({problem})")
    return replace(found, why=" and ".join(reasons))


@torch.inference_mode()
def try_joining(model: Any, found: Abilities) -> Abilities:
    """The abilities with a layout, if rows can join on the way through the blocks."""
    texts = (_LONG, _SHORT if found.pads else tuple(reversed(_LONG[:-1])) + _LONG[-1:])
    try:
        layout = _layout(model, texts, found)
    except Exception as error:
        return _without(found, _said(error))
    if layout is None:
        return _without(found, "its blocks take what has no row for each row")
    model.abilities = replace(found, layout=layout)
    alone = [_logits(model, [text]) for text in texts]
    after = [_logits(model, [(*text, _NEXT)]) for text in texts]
    depths = range(model.n_layers + 1)
    if problem := _apart(
        model,
        lambda: _joined(model, texts),
        [each for _ in depths for each in (*alone,)] + [each for _ in depths for each in (*after,)],
        alone,
    ):
        return _without(found, problem)
    return model.abilities


def _without(found: Abilities, problem: str) -> Abilities:
    why = f"rows that join on the way ({problem})"
    return replace(found, why=f"{found.why} and {why}" if found.why else why)


def _batch(model: Any, texts: Any) -> tuple[Tensor, Tensor]:
    length = max(map(len, texts))
    # Any token does as padding, behind its mask; no model has fewer than a dozen.
    tokens = torch.full((len(texts), length), _NEXT)
    mask = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        tokens[row, length - len(text) :] = torch.tensor(text)
        mask[row, length - len(text) :] = True
    return tokens.to(model.device), mask.to(model.device)


def _logits(model: Any, texts: Any) -> Tensor:
    """The last logits of each text, in one pass."""
    return model.forward(*_batch(model, texts), last=1)[0][:, -1].float()


def _stepped(model: Any, texts: Any) -> Tensor:
    """The logits after one more token, which goes on from a cache."""
    tokens, mask = _batch(model, texts)
    past = model.forward(tokens, mask, last=1, room=1)[1]
    return _step(model, mask, past)


def _step(model: Any, mask: Tensor, past: Any) -> Tensor:
    new = torch.full((len(mask), 1), _NEXT, device=mask.device)
    mask = torch.cat([mask, torch.ones_like(new, dtype=torch.bool)], 1)
    return model.forward(new, mask, past=past, last=1)[0][:, -1].float()


def _layout(model: Any, texts: Any, found: Abilities) -> Layout | None:
    """What the blocks are given for two rows and for three, with padding among them."""
    seen = []
    for batch in (texts, (*texts, texts[-1])):
        each = Seen(len(batch))
        handles = [
            block.register_forward_pre_hook(each.hook(index), with_kwargs=True)
            for index, block in enumerate(model.blocks)
        ]
        try:
            model.forward(*_batch(model, batch), last=1, room=1 if found.caches else None)
        finally:
            for handle in handles:
                handle.remove()
        seen.append(each)
    layout = Layout.of(*seen)
    if layout is None:
        return None
    hidden = [
        axis for (_, path), axis in layout.axes.items() if path in (("args", 0), ("hidden_states",))
    ]
    return layout if hidden and all(axis == (0, 1) for axis in hidden) else None


def _joined(model: Any, texts: Any) -> Tensor:
    """The logits of rows that join at every depth, and those after one more token."""
    depths = range(model.n_layers + 1)
    parent = torch.tensor([index for _ in depths for index in range(len(texts))])
    parent = parent.to(model.device)
    rows = len(parent)
    branch = Branch(
        parent,
        tuple(depth for depth in depths for _ in texts),
        torch.arange(rows, device=model.device),
        tuple(range(rows)),
        len(texts),
    )
    tokens, mask = _batch(model, texts)
    logits, past = model.forward(tokens, mask, last=1, room=1, branch=branch)
    return torch.cat([logits[:, -1].float(), _step(model, mask[parent], past)])


def _apart(model: Any, run: Any, wanted: list[Tensor], scale: list[Tensor] | None = None) -> str:
    """Why what a pass gives is not what was wanted; empty if it is."""
    try:
        given = run()
    except Exception as error:
        return _said(error)
    one, other = scale or wanted
    unit = (one - other).norm()
    off = (given - torch.cat(wanted)).norm(dim=-1).max()
    slack = _SLACK.get(model.dtype, _SLACK_HALF)
    if bool(off <= slack * unit) and bool(torch.isfinite(given).all()):
        return ""
    return "its numbers are then others"


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
