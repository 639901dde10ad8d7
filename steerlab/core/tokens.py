"""What a tokenizer puts before a text."""

from typing import Any


def has_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer has a BOS of its own: TransformerLens gives one that has none its EOS."""
    if (
        tokenizer.bos_token == tokenizer.eos_token
    ):  # GPT-2's own are one token too: only its files tell
        return bool(tokenizer.init_kwargs.get("bos_token"))
    return tokenizer.bos_token_id is not None
