"""What a tokenizer puts before a text."""

from typing import Any


def has_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer has a beginning-of-sequence (BOS) token of its own.

    TransformerLens fills a missing BOS with the EOS token, so equal tokens alone prove nothing.
    """
    # GPT-2 also has one token for both, but its own files say so: the arguments with which the
    # tokenizer was made tell the two cases apart.
    if tokenizer.bos_token == tokenizer.eos_token:
        return bool(tokenizer.init_kwargs.get("bos_token"))
    return tokenizer.bos_token_id is not None
