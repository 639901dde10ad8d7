"""How numbers, shares and names are written on a page: plain text, which the templates escape."""

from typing import Any, NamedTuple

from steerlab.core.languages import is_language, language

DASH, MINUS = "–", "−"
FIXED = "\N{NO-BREAK SPACE}"  # holds a number and its sign or unit on one line


class Interval(NamedTuple):
    """A value and the ends of its interval; a value without one is both ends itself."""

    value: float
    low: float
    high: float


def interval(value: Any) -> Interval | None:
    """Read a number or a list of value, low and high; nothing where one of them is no number."""
    parts = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(parts) != 3 or not all(map(_is_number, parts)):
        return None
    return Interval(*map(float, parts))


def number(value: Any) -> str:
    """Three digits, or a dash for what is no number."""
    return f"{value:.3g}" if _is_number(value) else DASH


def decimal(value: float, digits: int = 2) -> str:
    """A number with so many decimals, and with a true minus."""
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """A difference or an effect: as `decimal`, with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def probability(p: float) -> str:
    """A p-value with its sign, no finer than is worth saying."""
    if p < 0.001:
        return f"<{FIXED}0.001"
    return f"={FIXED}{p:.3f}" if p < 0.1 else f"={FIXED}{p:.2f}"


def share(value: Any) -> str:
    """A share in running text: whole percent, the interval in brackets."""
    read = interval(value)
    if read is None:
        return "an unknown share"
    middle, low, high = (f"{100 * part:.0f}" for part in read)
    ends = f" [{low},{FIXED}{high}]" if read.low != read.high else ""
    return f"{middle}{FIXED}%{ends}"


def percent(share: float) -> str:
    """A share that may be small: decimals as it needs them, none for nothing at all."""
    if share < 0.00005:
        return "under 0.01 %" if share else "0"
    return f"{100 * share:.2f} %" if share < 0.01 else f"{100 * share:.1f} %"


def language_name(lang: str) -> str:
    """The English name of a language code, or the code itself where nobody knows it."""
    return language(lang).name if is_language(lang) else lang


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value  # NaN is not equal to itself
