"""Which positions of a row an edit acts on: words, numbers of positions, masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from steerlab.core.errors import SteerlabError

POSITIONS = ("all", "prompt", "generated")
WORDS = (*POSITIONS, "last", "everywhere", "image")

# What `positions=` takes: a word, several, numbers, or a mask; `window` says which.
Window = str | Sequence[Any] | Tensor

_FIRST, _ROWS = "first:", "rows:"


@dataclass(frozen=True)
class Kinds:
    """What a window says, of which a position needs one thing to be touched.

    Args:
        words: of WORDS.
        first: how many positions of the prompt from its beginning.
        numbers: of positions, from 0; negative ones count from the prompt's end.
        rows: the numbers for each row of the batch by itself.
    """

    words: frozenset[str]
    first: int
    numbers: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def prompt(self) -> bool:
        """Whether it may touch a prompt."""
        return self.words != {"generated"} or self.counted or self.first > 0

    @property
    def generated(self) -> bool:
        """Whether it may touch what is generated."""
        forward = any(number >= 0 for number in self.numbers)
        return self.every_step or forward or bool(self.rows)

    @property
    def every_step(self) -> bool:
        """Whether it touches all that is generated."""
        return bool(self.words & {"all", "generated", "everywhere"})

    @property
    def counted(self) -> bool:
        """Whether it reads the numbers of positions."""
        return bool(self.numbers or self.rows or "last" in self.words)

    @property
    def halves(self) -> bool:
        """Whether it is made of whole halves of a row, its prompt and what is generated."""
        return not (self.counted or self.first)


def window(positions: Window) -> str:
    """The name of some positions, which is what `positions=` takes too; raises for what is none.

    Words are `all`, `prompt`, `generated`, `last` (of the prompt), `first:n` (the first n of the
    prompt that count), and `everywhere`, which is `all` and how a text begins, such as BOS:
    exported control vectors are added there too; the parts of a picture are text nowhere else:
    `image` means them alone. Numbers count the tokens of a row from 0, how it
    begins among them and padding not; negative ones count from the prompt's end, so that -1 is
    `last`, and those behind the prompt are generated. Several words and numbers, in a list or
    between spaces, mean the positions of any of them. A mask of true and false is of the numbers,
    [pos], or of each row of the batch by itself, [row pos].
    """
    given: Any = positions
    if hasattr(given, "__array__") or isinstance(given, Tensor):
        mask = torch.as_tensor(given)
        if mask.dtype != torch.bool or mask.ndim not in (1, 2):
            raise SteerlabError(
                f"a mask of positions is of true and false [pos] or [row pos], not {mask.dtype} of "
                f"the shape {list(mask.shape)}; numbers of positions come in a list"
            )
        given = mask.tolist()
    elif isinstance(given, str):
        given = given.split()
    if not isinstance(given, Sequence) or not len(given):
        raise _unknown(positions)
    if all(isinstance(row, Sequence) and not isinstance(row, str) for row in given):
        rows = [_numbers_of_mask(row, positions) for row in given]
        if not any(rows):
            raise SteerlabError("the mask of positions is false everywhere; nothing is edited")
        return _ROWS + "/".join(",".join(map(str, row)) for row in rows)
    if all(isinstance(each, bool) for each in given):
        given = _numbers_of_mask(given, positions)
        if not given:
            raise SteerlabError("the mask of positions is false everywhere; nothing is edited")
    names = []
    for each in given:
        known = isinstance(each, int | str) and not isinstance(each, bool)
        if not known or (str(each).startswith(_ROWS) and len(given) > 1):
            raise _unknown(positions)
        names.append(str(each))
    name = " ".join(dict.fromkeys(names))
    kinds_of(name)  # raises for an unknown word
    return name


@lru_cache(maxsize=1024)
def kinds_of(name: str) -> Kinds:
    """What a name that `window` gave says."""
    if name.startswith(_ROWS):
        rows = name.removeprefix(_ROWS).split("/")
        try:
            each = tuple(tuple(int(one) for one in row.split(",") if one) for row in rows)
        except ValueError:
            raise _unknown(name) from None
        return Kinds(frozenset(), 0, (), each)
    words, first, numbers = set(), 0, []
    for word in name.split():
        if word in WORDS:
            words.add(word)
        elif word.startswith(_FIRST) and word.removeprefix(_FIRST).isdecimal():
            first = max(first, int(word.removeprefix(_FIRST)))
            if not first:
                raise _unknown(name)
        elif word.removeprefix("-").isdecimal():
            numbers.append(int(word))
        else:
            raise _unknown(name)
    return Kinds(frozenset(words), first, tuple(numbers), ())


def touched(kinds: Kinds, positions: Any) -> Bool[Tensor, "row pos"] | None:
    """Which positions of a pass are in a window; None for all of a step of decoding.

    `positions` are `models.positions.Positions`.
    """
    if positions.step and kinds.every_step:
        return None
    text, generated = positions.text, positions.generated
    if kinds.halves and len(kinds.words) == 1:
        return _half(next(iter(kinds.words)), positions)
    mask = torch.zeros_like(text)
    for word in kinds.words - {"last"}:
        mask = mask | _half(word, positions)
    prompt = text & ~generated
    if kinds.first:
        before = positions.chunk[0][:, None] if positions.chunk is not None else 0
        mask = mask | prompt & (prompt.cumsum(1) + before <= kinds.first)
    if not kinds.counted:
        return mask
    real = positions.real
    from_end = _from_end(positions)
    if "last" in kinds.words:
        mask = mask | prompt & (from_end == -1)
    if kinds.numbers:
        numbers = torch.tensor(kinds.numbers, device=text.device)
        backward = torch.isin(from_end, numbers[numbers < 0]) & real & ~generated
        mask = mask | backward | torch.isin(_number(positions), numbers) & real
    return mask | _of_rows(kinds, positions) & real if kinds.rows else mask


def _half(word: str, positions: Any) -> Tensor:
    if word == "everywhere":
        return positions.real
    if word == "image":
        found = positions.image
        return torch.zeros_like(positions.text) if found is None else found
    if word == "prompt":
        return positions.text & ~positions.generated
    if word == "generated":
        return positions.text & positions.generated
    return positions.text


def _number(positions: Any) -> Tensor:
    """The number of each position in its row, padding not counted, [row pos]."""
    before = 0 if positions.before is None else positions.before[:, None]
    return positions.real.cumsum(1) - 1 + before


def _from_end(positions: Any) -> Tensor:
    """The number of each position of a prompt from its end, -1 for the last, [row pos]."""
    of_prompt = (positions.real & ~positions.generated).long()
    behind = of_prompt.sum(1, keepdim=True) - of_prompt.cumsum(1)
    if positions.chunk is not None:
        behind = behind + positions.chunk[1][:, None]
    return -1 - behind


def _of_rows(kinds: Kinds, positions: Any) -> Tensor:
    """What each row's own numbers say, [row pos]."""
    names = positions.rows.tolist()
    if max(names) >= len(kinds.rows):
        raise SteerlabError(
            f"the mask of positions has {len(kinds.rows)} rows, and the batch has a row "
            f"{max(names)} (from 0); give each row one"
        )
    width = 1 + max(number for row in kinds.rows for number in row)
    table = torch.zeros(len(names), width, dtype=torch.bool)
    for index, name in enumerate(names):
        table[index, list(kinds.rows[name]) if name >= 0 else []] = True
    number = _number(positions)
    inside = (number >= 0) & (number < width)
    picked = table.to(number.device).gather(1, number.clamp(0, width - 1))
    return inside & picked


def _numbers_of_mask(row: Sequence[Any], given: Window) -> list[int]:
    if not all(each is True or each is False for each in row):
        raise _unknown(given)
    return [number for number, each in enumerate(row) if each]


def _unknown(given: Any) -> SteerlabError:
    shown = repr(given)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return SteerlabError(
        f"there are no positions {shown}; use {', '.join(WORDS)}, first:n, numbers, several of "
        "them, or a mask of true and false [pos] or [row pos]"
    )


def shortened(name: str) -> str:
    """A window's name for messages and tables: that of a mask may be long."""
    return name if len(name) <= 40 else name[:37] + "..."
