"""What an edit did to the rows of its passes: the positions that it touched, and their doses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits.routed import Routed

_POSITIONS, _DOSE, _SITES = 0, 1, 2  # columns of the sums; from the third on, one for each site


class EditStats:
    """What an edit did: positions per layer on prefill and on decode, and the dose of each row.

    The dose at a position is how far the edit moves the residual stream there, over the stream's
    length: Σ ‖Δh‖ / ‖h‖ over the places (a site of a layer) that it edits. Δh is the sum over all
    parts of a place, h what comes to the place before the first of them. Of a site inside a block,
    such as `mlp_post`, Δh is what reaches the stream through the block's weights.

    `sites` are those of the edit that do not lie in the stream, which are counted by themselves
    too. `routed` says, of an edit of routers, which experts the touched positions meet and which
    they would have met; it is None of other edits.
    """

    def __init__(self, sites: Sequence[str] = (), *, experts_per_token: int | None = None) -> None:
        self.passes = 0
        self.prefill: dict[int, int] = {}
        self.decode: dict[int, int] = {}
        self.sites = tuple(sites)
        self.routed = None if experts_per_token is None else Routed(experts_per_token)
        self._sums = torch.zeros(0, _SITES + len(self.sites))  # of each row
        self._members: Mapping[int, Sequence[int]] | None = None  # see `standing_for`

    @contextmanager
    def standing_for(self, members: Mapping[int, Sequence[int]]) -> Iterator[None]:
        """For passes in which a row runs for others too, that carry an equal edit and are the same
        until then: what is counted of it is counted of each.

        `members` gives by the number of a row that runs those of all that it stands for.
        """
        self._members = members
        try:
            yield
        finally:
            self._members = None

    def _spread(self, rows: Tensor, *values: Tensor | None) -> list[Any]:
        """The rows, and values of each, with those that a row stands for in its place."""
        if self._members is None:
            return [rows, *values]
        of_each = [self._members[row] for row in rows.tolist()]
        index = [number for number, members in enumerate(of_each) for _ in members]
        names = [name for members in of_each for name in members]
        self.make_room(max(names, default=-1) + 1, rows.device)
        spread = [None if value is None else value[index] for value in values]
        return [torch.tensor(names, device=rows.device), *spread]

    def touch(
        self, layer: int, rows: Tensor, mask: Tensor | None, generated: Tensor, counts: Tensor
    ) -> None:
        """Count positions of batch rows `rows`: those of `mask` [row pos], or all if None.

        Args:
            layer: where they were touched.
            rows: the numbers of the rows.
            mask: which positions were touched.
            generated: which positions count as decoded, [row pos].
            counts: of which of them this place is the first that the row's edit touches, [row pos]:
                a position that is edited at several places is one position of a mean.
        """
        rows, mask, generated, counts = self._spread(rows, mask, generated, counts)
        if mask is None:
            self._count(self.decode, layer, generated.numel())
        else:
            self._count(self.prefill, layer, int((mask & ~generated).sum()))
            self._count(self.decode, layer, int((mask & generated).sum()))
            counts = counts & mask
        self._add(_POSITIONS, rows, counts.to(torch.float32))

    def moved(
        self, rows: Tensor, mask: Tensor | None, ratio: Tensor, *, site: str | None = None
    ) -> None:
        """Add doses at one place to those of the rows.

        Args:
            rows: the numbers of the rows.
            mask: which positions were touched, [row pos]; None for all.
            ratio: ‖Δh‖ / ‖h‖ at each position; NaN where it is not known.
            site: count it as a share of what is at this site, and not of the residual stream.
        """
        rows, mask, ratio = self._spread(rows, mask, ratio)
        if mask is not None:
            ratio = ratio.masked_fill(~mask, 0)
        self._add(_DOSE if site is None else _SITES + self.sites.index(site), rows, ratio.detach())

    def reroute(
        self, layer: int, rows: Tensor, mask: Tensor | None, before: Tensor, after: Tensor
    ) -> None:
        """Count the experts of positions by the router's logits before and after,
        [row pos expert].

        Args:
            layer: of the router.
            rows: the numbers of the rows.
            mask: which positions were touched, [row pos]; None for all.
            before: the logits as they came.
            after: what the edit made of them.
        """
        if self.routed is not None:
            _, mask, before, after = self._spread(rows, mask, before, after)
            self.routed.add(layer, before, after, mask)

    def make_room(self, rows: int, device: torch.device) -> None:
        """Be ready to count rows below `rows`."""
        if rows > len(self._sums):
            # What inference mode made cannot be changed outside of it.
            with torch.inference_mode(mode=False):
                more = torch.zeros(rows - len(self._sums), self._sums.shape[1], device=device)
                self._sums = torch.cat([self._sums.to(device), more])

    def mark(self) -> tuple[Any, ...]:
        """What was touched until now, for `undo`."""
        routed = None if self.routed is None else self.routed.copy()
        return self.passes, dict(self.prefill), dict(self.decode), self._sums.clone(), routed

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Forget what came after a mark: a batch that failed did nothing."""
        self.passes, self.prefill, self.decode, self._sums, self.routed = mark

    def need_touched(self, positions: Iterable[str], gates: Iterable[str] = ()) -> None:
        """Raise where an edit of these kinds of positions, behind these gates, touched none."""
        touched = any((*self.prefill.values(), *self.decode.values()))
        kinds, gates = sorted(set(positions)), list(gates)
        if kinds and self.passes and not touched:
            behind = f"; gates: {', '.join(sorted(set(gates)))}" if gates else ""
            raise SteerlabError(
                f"the edit touched no position (positions: {', '.join(kinds)}{behind}); the "
                "outputs are unsteered"
            )

    def doses(self, rows: int) -> Float[Tensor, " row"]:
        """Mean dose of each row over its touched positions; 0 where nothing was touched, NaN where
        it is not known what reaches the residual stream."""
        return self._means(rows, _DOSE)

    def site_doses(self, rows: int) -> dict[str, Float[Tensor, " row"]]:
        """The same as shares of what is at each site that does not lie in the stream: Σ ‖Δz‖ / ‖z‖
        over the layers."""
        return {site: self._means(rows, _SITES + i) for i, site in enumerate(self.sites)}

    def _means(self, rows: int, column: int) -> Tensor:
        counted = self._sums[:rows].cpu()
        counted = torch.nn.functional.pad(counted, (0, 0, 0, rows - len(counted)))
        return counted[:, column] / counted[:, _POSITIONS].clamp(min=1)

    def _add(self, column: int, rows: Tensor, values: Tensor) -> None:
        """Add the sums over positions of values [row pos] to a column."""
        self._sums[:, column].index_add_(0, rows, values.sum(1))

    def _count(self, counts: dict[int, int], layer: int, number: int) -> None:
        counts[layer] = counts.get(layer, 0) + number
