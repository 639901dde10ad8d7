"""The text of tokens that come one after another."""

from typing import Any

_PARTIAL = "\ufffd"  # what a part of a character decodes to


class GrowingText:
    """The text of a growing list of tokens, given out as far as no later token can change it."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self.given = ""
        self.held = False  # whether something is held back

    def add(self, token: int, *, last: bool) -> str:
        """What one more token adds."""
        self.tokens.append(token)
        whole = self._decoded()
        # Bytes that are tokens are decoded as a run: one that fits to none after it makes all of
        # the run unreadable, characters included that were whole before.
        piece = self.tokenizer.convert_ids_to_tokens(token)
        in_run = isinstance(piece, str) and piece.startswith("<0x") and len(piece) == len("<0x0A>")
        self.held = not last and (whole.endswith(_PARTIAL) or in_run)
        return "" if self.held else self._give(whole)

    def rest(self) -> str:
        """What was held back, where no token follows."""
        return self._give(self._decoded())

    def _decoded(self) -> str:
        text: str = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        return text

    def _give(self, whole: str) -> str:
        new = whole[len(self.given) :]
        self.given = whole
        return new
