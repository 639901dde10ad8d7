"""Which tokens are whose while Hugging Face's own `generate` runs under an edit.

A pass by itself does not say: with a static cache its mask has another shape, a prompt that is read
in chunks has a cache behind it, and without a cache what was generated looks like a prompt. The
call says it: so `generate` is followed from its beginning.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.models.kv_cache import length
from steerlab.models.positions import Positions


class Followed:
    """One call of `generate`: its prompts, and how far it is.

    Args:
        prompt: the positions of the prompts, `[row pos]`.
    """

    def __init__(self, prompt: Positions):
        self.prompt = prompt
        self.done = 0  # positions that are in the cache

    def positions(self, ids: Tensor, past: Any) -> Positions:
        """Those of a pass of these tokens behind a cache; raises where they cannot be told."""
        start = 0 if past is None else self._length(past)
        new, read = ids.shape[1], self.prompt.text.shape[1]
        copies, rest = divmod(len(ids), len(self.prompt.text))
        if rest:
            raise SteerlabError(
                f"generate runs {len(ids)} rows for {len(self.prompt.text)} prompts, so an edit "
                "cannot tell which is which; use steerlab's generate"
            )
        whole = self.prompt.text.repeat_interleave(copies, 0)
        text = whole[:, start : start + new]
        behind = torch.ones(len(ids), new - text.shape[1], dtype=torch.bool, device=ids.device)
        place = torch.arange(start, start + new, device=ids.device)
        every = self.prompt.real.repeat_interleave(copies, 0)
        more = torch.zeros_like(behind)
        image = None
        if self.prompt.image is not None:
            pictures = self.prompt.image.repeat_interleave(copies, 0)
            image = torch.cat([pictures[:, start : start + new], more], 1)
            begins = (every & ~whole & ~pictures)[:, start : start + new]
        else:
            begins = (every & ~whole)[:, start : start + new]
        before = every[:, :start].sum(1) + max(0, start - read)
        pieces = None
        if (start and start < read) or start + new < read:
            pieces = whole[:, :start].sum(1), every[:, start + new :].sum(1)
        generated = (place >= read).expand(len(ids), -1)
        self.done = start + new
        return Positions(
            torch.cat([text, behind], 1),
            generated,
            torch.arange(len(ids), device=ids.device),
            begins=torch.cat([begins, more], 1),
            before=before,
            chunk=pieces,
            image=image,
        )

    def _length(self, past: Any) -> int:
        try:
            return length(past)
        except ValueError:  # a cache of nothing but states has no length of its own
            return self.done


@contextmanager
def following(
    hf: Any, prompt_of: Callable[[Tensor, Tensor | None], Positions], note: Callable[[Any], None]
) -> Iterator[None]:
    """Follow calls of a model's `generate` for the length of a `with`.

    Args:
        hf: the model; while the `with` lasts it has a `generate` of its own.
        prompt_of: the positions of prompts, by their tokens and mask.
        note: is told of each call when it begins, by a `Followed`, and by None when it is over.
    """
    plain = hf.generate
    before = vars(hf).get("generate")  # of another edit that is on

    def generate(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(plain).bind_partial(*args, **kwargs).arguments
        named = given.get("kwargs", {})
        ids = given.get("inputs", next(iter(given.get("args", ())), None))
        ids = named.get("input_ids") if ids is None else ids
        followed = None
        if isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point():
            mask = named.get("attention_mask")
            if mask is None:
                config = given.get("generation_config") or hf.generation_config
                mask = _guessed(ids, named.get("pad_token_id", config.pad_token_id), config)
            followed = Followed(prompt_of(ids, mask))
        note(followed)
        try:
            return plain(*args, **kwargs)
        finally:
            note(None)

    hf.generate = generate
    try:
        yield
    finally:
        if before is None:
            del hf.generate
        else:
            hf.generate = before


def _guessed(ids: Tensor, padding: int | None, config: Any) -> Tensor | None:
    """The mask that `generate` makes where none is given: by the padding token, if that is no end
    of a text."""
    ends = config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if padding is None or padding in ends or not bool((ids == padding).any()):
        return None
    return (ids != padding).long()
