"""Texts at which an answer ends, found in what comes in pieces."""

from collections.abc import Sequence


class Until:
    """Passes on a text as far as it cannot belong to a text to stop at.

    Args:
        stops: the texts to stop at; none of them is passed on.
    """

    def __init__(self, stops: Sequence[str]):
        self.stops = tuple(stops)
        self.reached = False
        self._held = ""

    def add(self, text: str) -> str:
        """What may be passed on once `text` has come."""
        if self.reached:
            return ""
        held = self._held + text
        found = [place for stop in self.stops if (place := held.find(stop)) >= 0]
        if found:
            self.reached = True
            self._held = ""
            return held[: min(found)]
        keep = self._kept(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """What was held back, where nothing follows."""
        held, self._held = self._held, ""
        return held

    def _kept(self, held: str) -> int:
        """How many letters at the end may be the beginning of a text to stop at."""
        longest = 0
        for stop in self.stops:
            for size in range(min(len(stop) - 1, len(held)), longest, -1):
                if held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
