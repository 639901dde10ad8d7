"""One answer as it grows: its text as far as it may be passed on, and the tokens that belong to
it."""

from collections.abc import Sequence
from dataclasses import dataclass

from steerlab.engine.talk import End, Piece
from steerlab.engine.token_scores import TokenScore
from steerlab.studies.serve.until import Until


@dataclass(frozen=True)
class Placed:
    """A token that was scored, and where it begins.

    Args:
        score: the token with its log-probabilities.
        start: the length of the text before it.
    """

    score: TokenScore
    start: int


class Reply:
    """Takes the pieces of a row, and passes on its text with its tokens up to a text to stop at.

    Args:
        stops: the texts to stop at.
    """

    def __init__(self, stops: Sequence[str]):
        self._until = Until(stops)
        self._length = 0  # of what was passed on
        self._waiting: list[Placed] = []

    def add(self, piece: Piece) -> tuple[str, tuple[Placed, ...], End | None]:
        """(what may be passed on once a piece has come, the tokens that begin in it, why the answer
        ends, if it does)."""
        text = self._until.add(piece.text)
        end = "stop" if self._until.reached else piece.end
        if end is not None:
            text += self._until.rest()
        self._length += len(text)
        if piece.score is not None:
            self._waiting.append(Placed(piece.score, piece.start))
        # At the end of the model's own nothing is cut off: the token that ended it is told too.
        whole = end is not None and not self._until.reached
        passed = [each for each in self._waiting if whole or each.start < self._length]
        self._waiting = self._waiting[len(passed) :]  # their starts only grow
        return text, tuple(passed), end
