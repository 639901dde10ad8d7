"""The words for a difference: what they may claim follows from its adjusted p and its interval."""

from steerlab.studies.html.formats import Interval

MORE, LESS, NEITHER = "more than", "less than", "not told apart from"


def relation(difference: float, p: float, *, alpha: float, interval: Interval | None = None) -> str:
    """What a difference allows to say of its first side: `MORE`, `LESS`, or else `NEITHER`.

    It is more or less only where p is below alpha and the interval, if there is one, leaves 0 out.
    That nothing was told apart does not say that both are equal.

    Args:
        difference: of the two sides.
        p: of a difference of 0, adjusted for all that was compared.
        alpha: what p must be below.
        interval: of the difference.
    """
    outside = interval is None or interval.low > 0 or interval.high < 0
    if not p < alpha or not outside or not difference:
        return NEITHER
    return MORE if difference > 0 else LESS
