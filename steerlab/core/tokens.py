"""What a tokenizer puts before a text, and the bytes that a token stands for."""

import re
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's token of a byte


def has_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer has a beginning-of-sequence (BOS) token of its own.

    TransformerLens fills a missing BOS with the EOS token, so equal tokens alone prove nothing.
    """
    # GPT-2 also has one token for both, but its own files say so: the arguments with which the
    # tokenizer was made tell the two cases apart.
    if tokenizer.bos_token == tokenizer.eos_token:
        return bool(tokenizer.init_kwargs.get("bos_token"))
    return tokenizer.bos_token_id is not None


def beginning(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that a tokenizer itself puts before a text: BOS as a rule, XGLM's end of a text,
    nothing for BLOOM and Qwen, and for one whose BOS was taken away."""
    if tokenizer.bos_token_id is None and tokenizer.init_kwargs.get("bos_token"):
        return ()
    plain = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole = list(tokenizer("a").input_ids)
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    return ()


def around(tokenizer: Any) -> frozenset[int]:
    """The tokens that an encoder's texts begin and end with, and padding: those that the tokenizer
    puts around a text, and BOS, EOS, CLS and SEP. Not the one for what is unknown, which is
    text."""
    plain = set(tokenizer("a", add_special_tokens=False).input_ids)
    named = ("bos", "eos", "cls", "sep", "pad")
    found = [getattr(tokenizer, f"{name}_token_id", None) for name in named]
    added = set(tokenizer("a").input_ids) - plain
    return frozenset(added | {token for token in found if token is not None})


def specials(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that are no text: BOS, padding, those that a chat is put together with."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {number for number, token in added.items() if token.special}
    return tuple(sorted(found | set(getattr(tokenizer, "all_special_ids", ()))))


def excluded(tokenizer: Any) -> str:
    """What no statistic counts and no edit touches, in words, for headers of files."""
    if beginning(tokenizer):
        return "BOS and padding"
    return "the first token of each text, which has no BOS before it, and padding"


def bytes_behind() -> dict[str, int]:
    """The bytes behind the letters of byte-level tokenizers: printable ones are themselves,
    others follow U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


class Spelling:
    """The bytes that a tokenizer's tokens stand for within a text."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._special = frozenset(specials(tokenizer))
        self._behind = bytes_behind()
        self._known: dict[int, bytes] = {}

    def is_text(self, token: int) -> bool:
        """Whether a token is part of a text, and not one such as BOS."""
        return token not in self._special

    def of(self, token: int) -> bytes:
        """Its bytes, which may be a part of a character; of a token that is no text, its name;
        nothing for a number that has no token."""
        if token not in self._known:
            self._known[token] = self._of(token)
        return self._known[token]

    def _of(self, token: int) -> bytes:
        name = self.tokenizer.convert_ids_to_tokens(token)
        if name is None:
            return b""
        if not self.is_text(token):
            return str(name).encode()
        if one := _BYTE.fullmatch(name):
            return bytes([int(one[1], 16)])
        text = str(self.tokenizer.decode([token]))
        if "\ufffd" in text and set(name) <= set(self._behind):
            return bytes(self._behind[letter] for letter in name)
        # SentencePiece drops the space before what it takes for the beginning of a text.
        dropped = name.startswith("▁") and not text.startswith(" ")
        return f"{' ' * dropped}{text}".encode()
