"""Lines of text for training: read, normalised, and divided into those for training and those that are
held out.
"""

import hashlib
import re
import unicodedata
from pathlib import Path

HELD_OUT_SHARE = 0.004  # of near-duplicate classes
PEOPLE = set(
    "tom toms mary marys john sami layla fadil yanni ziri том тома тому томом мэри марі トム".split()
)


def normalised(line: str) -> str:
    """The line without case, punctuation and spacing: two lines that differ only there are one
    line."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", line).casefold()).strip()


def near_key(line: str) -> str:
    """One key for a class of near-duplicates: people's names, numbers, short words and word
    order do not count."""
    words = [re.sub(r"\d+", "0", w) for w in normalised(line).split() if w not in PEOPLE]
    long = sorted({w for w in words if len(w) > 3})
    return " ".join(long if len(long) > 1 else words)


def is_held_out(line: str) -> bool:
    """Whether the line's whole near-duplicate class is kept from training."""
    digest = hashlib.sha256(near_key(line).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT_SHARE


def read_lines(path: Path) -> list[str]:
    return [
        unicodedata.normalize("NFC", line.strip())
        for line in path.read_text("utf-8").split("\n")
        if line.strip()
    ]
