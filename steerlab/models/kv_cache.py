"""Key-value caches: how long one is, which rows it keeps, and one in memory that is taken once."""

from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def keep_rows(past: Any, rows: Int[Tensor, " row"]) -> None:
    """Drop the other rows from a cache, of Hugging Face or of a `HookedTransformer`."""
    if hasattr(past, "batch_select_indices"):
        past.batch_select_indices(rows)
        return
    past.previous_attention_mask = past.previous_attention_mask[rows]
    for entry in past.entries:
        entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]


def length(past: Any) -> int:
    """Positions in a cache, of Hugging Face or of a `HookedTransformer`."""
    if past is None:
        return 0
    return int(
        past.get_seq_length() if hasattr(past, "get_seq_length") else past[0].past_keys.shape[1]
    )


class PreallocatedLayer(DynamicLayer):
    """Keys and values [row head pos dim] of one layer, with room for the positions that will
    follow."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, room: int):
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.length = keys.shape[2]
        self.keys, self.values = self._roomy(keys, room), self._roomy(values, room)

    def _roomy(self, given: Tensor, room: int) -> Tensor:
        rows, heads, _, dim = given.shape
        made = given.new_empty(rows, heads, self.length + room, dim)
        made[:, :, : self.length] = given
        return made

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new positions behind the old ones; gives views of all."""
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: Tensor) -> None:
        room = self.keys.shape[2] - self.length
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        self.keys, self.values = (
            self._roomy(keys[indices], room),
            self._roomy(values[indices], room),
        )


def preallocate(past: Any, room: int, rows: list[Tensor] | None = None) -> Any:
    """Give a prompt's cache room for what follows; `rows` names, for each layer, the cached row of
    each final row.

    A sliding layer becomes a full one, as the mask keeps to the window; a layer of another kind
    stays what it is.
    """
    for number, layer in enumerate(past.layers):
        if not layer.is_initialized:
            continue
        chosen = None if rows is None else rows[number]
        whole = (
            not getattr(layer, "is_sliding", False) or layer.keys.shape[2] == layer.get_seq_length()
        )
        if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and whole:
            keys, values = layer.keys, layer.values
            if chosen is not None:
                keys, values = keys[chosen], values[chosen]
            past.layers[number] = PreallocatedLayer(keys, values, room)
        elif chosen is not None:
            layer.batch_select_indices(chosen)
    return past
