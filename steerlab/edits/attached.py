"""Edits at work: the functions that a model attaches at the places of an edit, each of which
changes its rows and says how far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import ORDER, ROUTER
from steerlab.edits.gates import gate_tensors, need_prompt, own_tensors
from steerlab.edits.part import Part
from steerlab.edits.stats import EditStats
from steerlab.edits.windows import touched

# Where what is at a site reaches the residual stream, and how: the site there, and a function of
# what is at the site before, and of what is added to it, to what is added to the stream.
Writes = tuple[str, Callable[[Tensor, Tensor], Tensor]]


def attach(
    parts: Sequence[Part],
    stats: EditStats,
    edits: int | None,
    writes: Callable[[str, int], Writes | None],
) -> list[tuple[str, int, Any]]:
    """(site, layer, function) of what a model attaches for the parts of an edit.

    Args:
        parts: of the edit, in their order.
        stats: where it is counted.
        edits: how many rows a stack has, None if the edit is no stack.
        writes: how what is at a site of a layer reaches the stream; None where that is not known.
    """
    places: dict[tuple[int, str], list[Part]] = {}
    for part in parts:
        places.setdefault((part.layer, part.site), []).append(part)
    landings: list[tuple[str, int, Any]] = []
    attached: list[tuple[str, int, Any]] = []
    readers: list[tuple[str, int, Any]] = []
    halves = {"prompt": _First(), "generated": _First()}
    counted = None
    if len(places) > 1 and any(part.gate or not part.kinds.halves for part in parts):
        counted = _Counted()
    for layer, site in sorted(places, key=lambda place: (place[0], ORDER.index(place[1]))):
        here = places[layer, site]
        counts = {half: first.take(here, half) for half, first in halves.items()}
        landing = None
        write = None if in_stream(site) else writes(site, layer)
        if write is not None:
            landing = Landing(stats, write[1])
            landings.append((write[0], layer, landing))
        place = AttachedPlace(here, stats, edits, counts, landing, counted)
        for each in place.parts:
            if each.part.gate is not None and each.part.gate.reads is not None:
                readers.append((*each.part.gate.reads, each.look))
        if counted is not None and not attached:
            place.begins = True
        attached.append((site, layer, place))
    # Landings first: they have to see the stream before an edit of the same place changes it, and
    # so do gates that read there.
    return [*landings, *readers, *attached]


def in_stream(site: str) -> bool:
    """Whether what is at a site is the residual stream itself."""
    return site.startswith("resid_")


class _First:
    """Of each row, which place is the first of the edit that touches a half of its positions."""

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.all = False

    def take(self, parts: Sequence[Part], half: str) -> Callable[[int], bool]:
        """Whether a place of these parts is the first for a row; asked in the order in which the
        places come."""
        here = [part for part in parts if getattr(part.kinds, half)]
        before, taken = frozenset(self.rows), self.all
        named = {row for part in here if part.rows is not None for row in part.rows.tolist()}
        everyone = any(part.rows is None for part in here)
        self.rows |= named
        self.all |= everyone
        return lambda row: not taken and row not in before and (everyone or row in named)


class _Counted:
    """Which positions of the pass in flight some place has touched, where whole halves of rows do
    not tell: of edits behind gates, and of windows."""

    def __init__(self) -> None:
        self.done = torch.zeros(0, 0, dtype=torch.bool)  # [row's number, pos]

    def begin(self, text: Tensor) -> None:
        """A pass of so many positions, [row pos], begins."""
        self.done = torch.zeros(0, text.shape[1], dtype=torch.bool, device=text.device)

    def take(self, names: Tensor, mask: Tensor, rows: int) -> Tensor:
        """Those of the touched positions [row pos] that none has touched before, of rows with
        numbers below `rows`; more may join during a pass."""
        if rows > len(self.done):
            self.done = torch.nn.functional.pad(self.done, (0, 0, 0, rows - len(self.done)))
        new = mask & ~self.done[names]
        self.done = self.done.index_copy(0, names, self.done[names] | mask)
        return new


@dataclass(frozen=True)
class Move:
    """What is added in some rows of a batch at one place.

    Args:
        pick: the rows, as an index of the batch.
        mask: the positions, [row pos]; None for all.
        before: what was there, in float32.
        delta: what is added; it may have one row or one position for all.
    """

    pick: Any
    mask: Tensor | None
    before: Tensor
    delta: Tensor

    def ratio(self) -> Tensor:
        """‖Δ‖ over the length of what was there, at each position."""
        norm = torch.linalg.vector_norm
        length = norm(self.before, dim=-1)
        return (norm(self.delta, dim=-1) / length.clamp(min=1e-30)).expand_as(length)


class AttachedPlace:
    """The function that a model attaches at one site of one layer: does the parts there in their
    order, and records what they add together.

    It is called with h [row pos width] and the pass's positions, and gives the new h, or None where
    nothing changes.

    Args:
        parts: the parts of the edit here.
        stats: where it is counted.
        edits: how many rows a stack has, None if the edit is no stack.
        counts: of each half of the positions, whether this place is the first that a row's edit
            touches them at.
        landing: where what is added here reaches the stream, if the place lies outside of it.
        counted: what the places of the edit have touched, where the halves do not tell.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        stats: EditStats,
        edits: int | None,
        counts: dict[str, Callable[[int], bool]],
        landing: "Landing | None",
        counted: "_Counted | None" = None,
    ):
        self.parts = [AttachedPart(part, stats, edits) for part in parts]
        self.layer, self.site = parts[0].layer, parts[0].site
        self.stats = stats
        self.counts = counts
        self.landing = landing
        self.counted = counted
        self.begins = False  # whether it is the first place of a pass
        self.apart = _apart(parts)
        # The rows of the batch for which `first` was looked up.
        self.rows: Tensor | None = None

    def __call__(self, h: Tensor, positions: Any) -> Tensor | None:
        self.stats.passes += 1
        if self.landing is not None:
            self.landing.waiting = []
        if self.rows is not positions.rows:
            self._look_up(positions.rows, h.device)
        if self.counted is not None and self.begins:
            self.counted.begin(positions.text)
        moves, start = [], h
        for part in self.parts:
            move, h = part(h, positions)
            if move is not None and self.apart:
                self._record(move, positions)
            elif move is not None:
                moves.append(move)
        if moves:
            # Several parts may touch one row: what counts is what they add together.
            self._record(moves[0] if len(moves) == 1 else _together(start, moves), positions)
        return None if h is start else h

    def _look_up(self, rows: Tensor, device: torch.device) -> None:
        """Of which rows of the batch this place is the first."""
        names = rows.tolist()
        self.rows, self.most = rows, max(0, *names) + 1
        prompt, generated = (
            [name >= 0 and self.counts[half](name) for name in names]
            for half in ("prompt", "generated")
        )
        # [row half], as `generated` is 0 or 1.
        self.first = torch.tensor([prompt, generated], device=device).T

    def _record(self, move: Move, positions: Any) -> None:
        names = positions.rows[move.pick]
        generated = positions.generated[move.pick]
        first = self.first[move.pick]
        counts = torch.where(generated, first[:, 1:], first[:, :1])
        if self.counted is not None:
            every = torch.ones_like(generated) if move.mask is None else move.mask
            counts = self.counted.take(names, every, self.most)
        self.stats.touch(self.layer, names, move.mask, generated, counts)
        if in_stream(self.site):
            self.stats.moved(names, move.mask, move.ratio())
            return
        ratio = move.ratio()
        self.stats.moved(names, move.mask, ratio, site=self.site)
        if self.site == ROUTER:
            after = move.before + move.delta
            self.stats.reroute(self.layer, names, move.mask, move.before, after)
        if self.landing is None:
            self.stats.moved(names, move.mask, torch.full_like(ratio, torch.nan))
        else:
            self.landing.expect(move, positions.rows)


class Landing:
    """Sees the stream where what is added inside a block reaches it, and records how far it is
    moved there.

    Args:
        stats: where it is counted.
        write: from what was at the site, and what is added to it, to what is added to the stream.
    """

    def __init__(self, stats: EditStats, write: Callable[[Tensor, Tensor], Tensor]):
        self.stats = stats
        self.write = write
        self.waiting: list[tuple[Tensor, Tensor, Tensor | None, Tensor]] = []

    def expect(self, move: Move, rows: Tensor) -> None:
        """Take what a place added in rows of the batch `rows`."""
        # Rows may join the batch, and prompts leave it, until the stream is seen. Rows that were
        # there keep their order, so that each is known by its number among the real ones.
        number = ((rows >= 0).cumsum(0) - 1)[move.pick]
        added = self.write(move.before, move.delta).float()
        self.waiting.append((number, rows[move.pick], move.mask, added.detach()))

    def __call__(self, h: Tensor, positions: Any) -> None:
        norm = torch.linalg.vector_norm
        real = (positions.rows >= 0).nonzero()[:, 0]
        for number, names, mask, added in self.waiting:
            before = h[real[number]].float() - added
            ratio = norm(added, dim=-1) / norm(before, dim=-1).clamp(min=1e-30)
            self.stats.moved(names, mask, ratio)
        self.waiting = []


class AttachedPart:
    """One part at work: finds its rows in the batch and changes them.

    `edits`: how many rows a stack has, None if the edit is no stack.
    """

    def __init__(self, part: Part, stats: EditStats, edits: int | None):
        self.part = part
        self.stats = stats
        self.edits = edits
        self.kinds, self.generated = part.kinds, part.kinds.generated
        # The rows of the batch for which `pick`, `names` and `tensors` were looked up. A model
        # gives the same tensor in every step of decoding, so that this is done once.
        self.rows: Tensor | None = None
        self.memory = torch.zeros(0)  # what a gate keeps of each row, by the row's number

    def __call__(self, h: Tensor, positions: Any) -> tuple[Move | None, Tensor]:
        """(what the part adds, None where it has no rows; h with it, the same tensor if nothing
        changes)."""
        if self.rows is not positions.rows:
            self._look_up(positions.rows, h.device)
        if not len(self.names) or (positions.step and not self.generated):
            return None, h
        edited = positions if self.whole else self._picked(positions)
        mask = touched(self.kinds, edited)
        old = h[self.pick]
        x = old.float()
        delta = self.part.change(x, self.own, edited)
        if self.part.gate is not None:
            if self.part.gate.reads is None:
                factors = self._decide(x, edited)
            else:
                factors = self._verdicts(edited)
            delta = factors[..., None] * delta
            mask = factors != 0 if mask is None else mask & (factors != 0)
        counted = mask
        if mask is not None and edited.again is not None:  # an earlier pass has counted those
            counted = mask & ~edited.again
        move = Move(self.pick, counted, x, delta)
        if self.part.identity:
            return move, h
        changed = (x + delta).to(h.dtype)
        if mask is not None:
            # A choice and no product: padding may hold NaN, and has to keep its bits.
            changed = torch.where(mask[..., None], changed, old)
        if self.whole:
            return move, changed
        new = h.clone()
        new[self.pick] = changed
        return move, new

    def look(self, h: Tensor, positions: Any) -> None:
        """See h at another place, where the part's gate reads: its verdict on the prompt holds for
        what is generated."""
        if self.rows is not positions.rows:
            self._look_up(positions.rows, h.device)
        prompt = positions.text & ~positions.generated
        if len(self.names) and not positions.step and bool(prompt.any()):
            edited = positions if self.whole else self._picked(positions)
            self._decide(h[self.pick].float(), edited)

    def _decide(self, x: Tensor, edited: Any) -> Tensor:
        """The factors [row pos] of the part's rows; what the gate keeps of them is kept."""
        gate = self.part.gate
        assert gate is not None
        factors, kept = gate.factors(x, self.of_gate, edited, self.memory[self.names])
        # Not in place: passes may be in inference mode and not.
        self.memory = self.memory.index_copy(0, self.names, kept.to(self.memory.dtype))
        return factors

    def _verdicts(self, edited: Any) -> Tensor:
        """The factors of what a gate has decided at another place."""
        kept = self.memory[self.names]
        need_prompt(kept, self.part.gate.name if self.part.gate else "")
        return torch.where(edited.real, kept[:, None], torch.zeros_like(kept[:, None]))

    def _look_up(self, rows: Tensor, device: torch.device) -> None:
        """Where this part's rows are in a batch of the rows `rows`, and the tensors of each."""
        names = rows.tolist()
        last = int(rows.max())
        if self.edits is not None and last >= self.edits:
            raise SteerlabError(
                f"the batch has {last + 1} rows or more and the stack {self.edits} edits; give "
                "each row one"
            )
        if self.part.rows is None:
            # A row of -1 is a prompt that rows are still to branch from, or that is read as it is:
            # nothing is edited there.
            numbers = [number for number, name in enumerate(names) if name >= 0]
            index = None
        else:
            tensor_row = {name: number for number, name in enumerate(self.part.rows.tolist())}
            numbers = [number for number, name in enumerate(names) if name in tensor_row]
            index = torch.tensor(
                [tensor_row[names[number]] for number in numbers], dtype=torch.long
            )
        self.rows = rows
        self.whole = len(numbers) == len(names)
        self.pick = slice(None) if self.whole else _span(numbers, device)
        self.names = rows[self.pick]
        self.tensors = {
            name: (tensor if index is None else tensor[index]).to(device)
            for name, tensor in self.part.tensors.items()
        }
        self.own, self.of_gate = own_tensors(self.tensors), gate_tensors(self.tensors)
        if len(self.memory) <= last:
            more = torch.full((last + 1 - len(self.memory),), torch.nan, device=device)
            self.memory = torch.cat([self.memory.to(device), more])
        self.stats.make_room(last + 1, device)

    def _picked(self, positions: Any) -> Any:
        """The positions of this part's rows alone."""
        return replace(
            positions,
            text=positions.text[self.pick],
            generated=positions.generated[self.pick],
            rows=self.names,
            again=None if positions.again is None else positions.again[self.pick],
            begins=None if positions.begins is None else positions.begins[self.pick],
            before=None if positions.before is None else positions.before[self.pick],
            image=None if positions.image is None else positions.image[self.pick],
            chunk=positions.chunk and tuple(each[self.pick] for each in positions.chunk),
        )


def _apart(parts: Sequence[Part]) -> bool:
    """Whether no two of the parts are of one row."""
    rows = [row for part in parts if part.rows is not None for row in part.rows.tolist()]
    everyone = sum(part.rows is None for part in parts)
    return len(set(rows)) == len(rows) and everyone + bool(rows) <= 1


def _together(h: Tensor, moves: Sequence[Move]) -> Move:
    """What several parts add to h [row pos width], as one move of all the rows."""
    total = torch.zeros(h.shape, dtype=torch.float32, device=h.device)
    mask = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
    for move in moves:
        added = move.delta.expand_as(move.before)
        if move.mask is None:
            total[move.pick] += added
            mask[move.pick] = True
        else:
            total[move.pick] += added.masked_fill(~move.mask[..., None], 0)
            mask[move.pick] |= move.mask
    rows = mask.any(1).nonzero()[:, 0]
    return Move(rows, mask[rows], h[rows].float(), total[rows])


def _span(numbers: list[int], device: torch.device) -> Any:
    """A slice where the rows follow each other, for then no copy is made."""
    if numbers and numbers[-1] - numbers[0] + 1 == len(numbers):
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, dtype=torch.long, device=device)
