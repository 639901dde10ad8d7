"""A cell: one setting of a grid on one split; and a unit: the rows of cells that run together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steerlab.core.directions import Directions
from steerlab.edits import Edit, Operator, steer

FORMAT = 2  # of a row's columns: another number, and finished cells are run again

RUN = "run of lines"  # a form of prompt: another sentence of the language stands above the sentence


@dataclass(frozen=True)
class Cell:
    """One setting of the grid, run on every sentence of a split, or on those at the places `lines`
    of it.

    `fits` names the directions to use; sentence i takes the (i mod n)-th, so that a control of
    several seeds costs as much as one run. `draw` numbers the samples of a temperature above 0.
    """

    method: str
    operator: str
    layer: int
    strength: float
    source: str
    target: str
    split: str
    fits: tuple[str, ...] = ()
    form: str = "line"
    lines: tuple[int, ...] | None = None
    draw: int = 0

    def edit(
        self,
        directions: Mapping[str, Directions],
        sentence: int,
        operators: Mapping[str, Operator] | None = None,
    ) -> Edit:
        """The edit for the i-th sentence of the split; `none` is the empty edit. `operators` are a
        user's own, by their names."""
        if self.operator == "none":
            return Edit(())
        fit = directions[self.fits[sentence % len(self.fits)]]
        return steer(
            (operators or {}).get(self.operator, self.operator),
            fit,
            self.strength,
            source=self.source,
            target=self.target,
            layer=self.layer,
        )


@dataclass(frozen=True)
class Batch:
    """Rows that run together, as planned: (key of the cell, place of its line) each; `cells` by
    their keys."""

    key: str
    cells: Mapping[str, Cell]
    rows: tuple[tuple[str, int], ...]

    def keep(self, kept: Callable[[tuple[str, int]], bool]) -> "Batch":
        """The same unit with some of its rows."""
        rows = tuple(row for row in self.rows if kept(row))
        return Batch(self.key, {key: self.cells[key] for key, _ in rows}, rows)

    def of(self, cell: str) -> "Batch":
        """The unit's rows of one cell."""
        return self.keep(lambda row: row[0] == cell)
