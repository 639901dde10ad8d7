"""A cell, which is one setting of a grid on one split, and a batch, the rows that run together.

The word is that of a table: a grid spans methods, layers, strengths and pairs of languages, and
each of its cells is run on every sentence of a split. That gives one row of results a sentence.
Where rows run is another matter: the engine takes rows of many cells at once, and such a batch is
what is planned, claimed, run and filed as one piece of work.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import lcm

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, Operator, steer
from steerlab.edits.twins import Twin, twin_of
from steerlab.engine.weights.weight_edit import WeightEdit

FORMAT = 4  # of a row's columns: another number, and finished cells are run again

RUN = "run of lines"  # a form of prompt: another sentence of the language stands above the sentence

UNSTEERED = "unsteered"  # what a cell without an edit is called, unless it has a name of its own
NO_EDIT = "none"  # the operator of such a cell
NO_LAYER = -1  # and its layer: a number, so that a table's column stays one of numbers

# The column of a row's index among the lines of its split. It is called so in the folders that
# earlier versions wrote, and these can be gone on with.
INDEX = "place"

Row = tuple[str, int]  # the key of a cell, and the index of one of its lines


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting of the grid, run on every sentence of a split, or on those of the indices
    `lines` in it.

    The names of the fields are part of each cell's key (`Runner.key`): one that is called otherwise
    has every finished cell run again.

    Args:
        method: what the rows call it.
        operator: a name of `edits.OPERATORS` or of a user's own, or "none" for no edit.
        layer: where the edit is; -1 for none, and for what acts on several layers at once.
        strength: the operator's knob, in its own unit.
        source: the language of the prompt.
        target: the language that is steered towards, and that an output is judged by.
        split: the part of the corpus that the sentences are of.
        fits: names of the directions to use; sentence i takes the (i mod n)-th, so that a control
            of several seeds costs as much as one run.
        form: a form of prompt (`engine.prompts`), or `RUN`.
        lines: the indices of the sentences; by default all.
        draw: the number of the sample, at a temperature above 0.
        twins: random twins of the cell's edit, in its place; sentence i takes the (i mod n)-th.
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
    twins: tuple[Twin, ...] = ()

    @classmethod
    def unsteered(
        cls, *, source: str, target: str, split: str, method: str = UNSTEERED, form: str = "line"
    ) -> "Cell":
        """A cell without an edit: the model as it is, or, with another `form`, what a prompt
        does by itself.

        Args:
            source: the language of the prompts.
            target: the language that outputs are asked or hoped to be in.
            split: of the corpus.
            method: what rows call it.
            form: the prompt form.
        """
        return cls(
            method=method,
            operator=NO_EDIT,
            layer=NO_LAYER,
            strength=0.0,
            source=source,
            target=target,
            split=split,
            form=form,
        )

    @property
    def setting(self) -> tuple[int, float]:
        """Layer and strength: what is chosen on dev."""
        return self.layer, self.strength

    @property
    def steered(self) -> bool:
        """Whether the cell has an edit."""
        return self.operator != NO_EDIT

    @property
    def different(self) -> int:
        """After how many sentences its edits come again."""
        return lcm(max(1, len(self.fits)), max(1, len(self.twins)))

    def edit(
        self,
        directions: Mapping[str, Directions],
        sentence: int,
        operators: Mapping[str, Operator] | None = None,
    ) -> Edit:
        """The edit of activations for the i-th sentence of the split; the empty edit where none is
        made. Raises where a user's operator changes weights."""
        made = self.change(directions, sentence, operators)
        if isinstance(made, WeightEdit):
            raise SteerlabError(
                f"{self.operator} changes weights, and an edit of activations is needed here"
            )
        return made

    def change(
        self,
        directions: Mapping[str, Directions],
        sentence: int,
        operators: Mapping[str, Operator] | None = None,
    ) -> Edit | WeightEdit:
        """The edit for the i-th sentence of the split, of activations or, by an operator of a
        user's own, of weights.

        Args:
            directions: by the names that cells call them.
            sentence: the index in the split.
            operators: a user's own, by their names.
        """
        if not self.steered:
            return Edit(())
        fit = directions[self.fits[sentence % len(self.fits)]]
        edit: Edit | WeightEdit = steer(
            (operators or {}).get(self.operator, self.operator),
            fit,
            self.strength,
            source=self.source,
            target=self.target,
            layer=self.layer,
        )
        twin = self.twin(sentence)
        if twin is None:
            return edit
        if isinstance(edit, WeightEdit):
            raise SteerlabError(
                f"{self.operator} changes weights, of which there is no random twin; compare it "
                "with the same of a random direction (sl.controls.random)"
            )
        return twin_of(edit, twin, widths={fit.site: fit.width})

    def twin(self, sentence: int) -> Twin | None:
        """The random twin that the i-th sentence takes, None where the edit is its own."""
        return self.twins[sentence % len(self.twins)] if self.twins else None


@dataclass(frozen=True)
class Batch:
    """Rows that run together, as they were planned, and the cells that they are of by their keys.

    `key` is a hash of the rows: whoever plans the same grid has the same batches under the same
    keys, so that processes can share the work by claiming keys.
    """

    key: str
    cells: Mapping[str, Cell]
    rows: tuple[Row, ...]

    def keep(self, kept: Callable[[Row], bool]) -> "Batch":
        """The same batch, under the same key, with some of its rows."""
        rows = tuple(row for row in self.rows if kept(row))
        return Batch(self.key, {key: self.cells[key] for key, _ in rows}, rows)

    def of(self, cell: str) -> "Batch":
        """The batch's rows of one cell."""
        return self.keep(lambda row: row[0] == cell)
