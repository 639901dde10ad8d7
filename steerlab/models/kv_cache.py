"""Key-value caches: how long one is, which rows it keeps, and a kind whose memory is allocated
once, instead of being copied at every step."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)  # which hold keys and values, and nothing else


def keep_rows(past: Any, rows: Int[Tensor, " row"]) -> None:
    """Keep only these rows of a cache, in this order and in place; the cache may be one of Hugging
    Face or of a `HookedTransformer`."""
    if isinstance(past, Rerun):
        past.batch_select_indices(rows)
        return
    if hasattr(past, "batch_select_indices"):
        for layer in layers_of(past):
            _select(layer, rows)
        return
    past.previous_attention_mask = past.previous_attention_mask[rows]
    for entry in past.entries:
        entry.past_keys = entry.past_keys[rows]
        entry.past_values = entry.past_values[rows]


def length(past: Any) -> int:
    """How many positions are in a cache of Hugging Face or of a `HookedTransformer`; 0 without a
    cache."""
    if past is None:
        return 0
    if hasattr(past, "get_seq_length"):
        return int(past.get_seq_length())
    return int(past[0].past_keys.shape[1])


def layers_of(past: Any) -> list[Any]:
    """The layers of a cache of Hugging Face: for a decoder that could also read an encoder, those
    of its own texts."""
    own = getattr(past, "self_attention_cache", past)
    layers: list[Any] = own.layers
    return layers


def only_keys(past: Any) -> bool:
    """Whether a cache of Hugging Face holds keys and values of every layer, and nothing else."""
    layers = getattr(past, "layers", [])
    return bool(layers) and all(
        isinstance(layer, PreallocatedLayer) or type(layer) in _PLAIN for layer in layers
    )


def _select(layer: Any, rows: Tensor) -> None:
    """Keep only these rows of a layer, in this order.

    By its method for beams, where it has more than keys and values: some layers with a state, as
    those of state-space models, leave it out of `batch_select_indices`.
    """
    if isinstance(layer, PreallocatedLayer) or type(layer) in _PLAIN:
        layer.batch_select_indices(rows)
    else:
        layer.reorder_cache(rows)


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, `[row head pos dim]`, with room for the positions that will
    follow.

    transformers' own layer makes a longer copy of all keys and values at every step.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, room: int, rows: Tensor | None = None):
        """`rows` says which of the given rows to keep, in which order; by default all."""
        super().__init__()
        # What the parent sets when it sees its first keys.
        self.dtype = keys.dtype
        self.device = keys.device
        self.is_initialized = True
        self.length = keys.shape[2]  # of the positions that are filled
        self.keys = _with_room(keys, room, rows)
        self.values = _with_room(values, room, rows)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new positions behind the old ones; the result is views of all that are filled."""
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """How many positions are filled."""
        return self.length

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows, in this order, with the same room."""
        room = self.keys.shape[2] - self.length
        # Only what is filled is copied.
        self.keys = _with_room(self.keys[:, :, : self.length], room, indices)
        self.values = _with_room(self.values[:, :, : self.length], room, indices)


def _with_room(given: Tensor, room: int, rows: Tensor | None) -> Tensor:
    """A copy of some rows, or of all, with room for so many more positions, which are not filled
    yet."""
    count, heads, filled, dim = given.shape
    longer = given.new_empty(count if rows is None else len(rows), heads, filled + room, dim)
    if rows is None:
        longer[:, :, :filled] = given
    else:
        rows = rows.to(given.device)
        if given.requires_grad:  # through which `out=` has no gradient
            longer[:, :, :filled] = given.index_select(0, rows)
        else:
            # Straight to its place: `given[rows]` would be a copy more, and takes five times as
            # long.
            torch.index_select(given, 0, rows, out=longer[:, :, :filled])
    return longer


def preallocate(past: Any, room: int, rows: list[Tensor] | None = None) -> Any:
    """Give a prompt's cache, in place, room for what follows.

    A sliding layer becomes a full one, since the mask keeps attention to its window. A layer of
    another kind stays what it is.

    Args:
        past: the cache.
        room: for how many positions.
        rows: for each layer, which cached row each final row takes; None for all as they are.
    """
    layers = layers_of(past)
    for index, layer in enumerate(layers):
        if not getattr(layer, "is_initialized", True):
            continue  # a layer that has cached nothing
        chosen = None if rows is None else rows[index]
        if type(layer) in _PLAIN and _is_whole(layer):
            layers[index] = PreallocatedLayer(layer.keys, layer.values, room, chosen)
        elif chosen is not None:
            _select(layer, chosen)
    return past


def _is_whole(layer: Any) -> bool:
    """Whether a layer has all its positions: a sliding one that has seen more than its window has
    dropped some already."""
    sliding = getattr(layer, "is_sliding", False)
    return not sliding or layer.keys.shape[2] == layer.get_seq_length()


class Rerun:
    """In the place of a cache where a model has none to go on from: the tokens so far, which run
    again at every step.

    Args:
        ids: the tokens so far.
        positions: the `Positions` of the pass of these, if something is attached.
    """

    def __init__(self, ids: Int[Tensor, "row pos"], positions: Any = None):
        self.ids = ids
        self.positions = positions
        self.layers: list[Any] = []  # nothing to preallocate

    def get_seq_length(self) -> int:
        """How many tokens there are."""
        return self.ids.shape[1]

    def batch_select_indices(self, indices: Int[Tensor, " kept"]) -> None:
        """Keep only these rows, in this order."""
        self.ids = self.ids[indices]
        if self.positions is not None:
            self.positions = self.positions.of(indices)
