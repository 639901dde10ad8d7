"""Caches of any make: how long one is, and which rows it keeps."""

from typing import Any

from jaxtyping import Int
from torch import Tensor


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
    return int(past.get_seq_length() if hasattr(past, "get_seq_length") else past[0].past_keys.shape[1])
