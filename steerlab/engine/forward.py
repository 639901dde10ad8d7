"""One pass of many rows through a model, each under its own edit.

    with rows_on(model, ids, edit) as rows:
        logits, _ = rows.forward(range(len(ids)))

Whatever runs many rows runs them here, so that some things are decided in one place: which rows
share a prompt, how they are padded, which edit of a stack each one carries, and what is refused.
What a loop does with the logits is its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

import steerlab.engine.batching as batches
import steerlab.engine.prefix as prefix
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, EditStats
from steerlab.edits.edit import need_edit
from steerlab.engine.displacement import Displacement
from steerlab.engine.inputs import need_room
from steerlab.engine.prompts import pad
from steerlab.models.branching import Branch, branch
from steerlab.models.kv_cache import keep_rows
from steerlab.models.model import Model
from steerlab.models.positions import HookFn, Positions, step_positions

Keep = Literal["last", "all"]


@contextmanager
def rows_on(
    model: Model,
    ids: Sequence[Sequence[int]],
    edit: Edit | None = None,
    *,
    carries: Sequence[int] | None = None,
    new: int = 0,
    unsteered: bool = False,
    displacement: bool = False,
) -> Iterator["Rows"]:
    """Rows of tokens, and an edit that is on the model for the length of a `with`.

    Raises `SteerlabError` before anything runs: for rows longer than the model was made for, edits
    that could never act, a stack without an edit for each row, and, with `unsteered`, another edit
    on the model.

    Args:
        model: what runs the rows.
        ids: the tokens of each row, BOS included.
        edit: the edit of all rows; of a stack each row carries one edit. None for the model as it
            is.
        carries: which edit of the stack each row carries; by default row i carries edit i.
        new: how many tokens will follow each row.
        unsteered: whether rows are to be read as the model is, which no other edit may then change.
        displacement: whether to measure how far the edit moves the last of the stream, in
            `Rows.displaced`; not where another edit is on already, beside which it has no
            meaning.
    """
    with model.turns.taken():
        need_rows(model, ids, edit, carries, new=new, unsteered=unsteered)
        with _attached(model, ids, edit, carries, new=new, displacement=displacement) as rows:
            yield rows


@contextmanager
def _attached(
    model: Model,
    ids: Sequence[Sequence[int]],
    edit: Edit | None,
    carries: Sequence[int] | None,
    *,
    new: int,
    displacement: bool,
) -> Iterator["Rows"]:
    """The rows with their edit on, and what watches how far it moves the stream."""
    carries = range(len(ids)) if carries is None else carries
    depth = [model.n_layers] * len(ids)
    if edit is not None:
        depth = edit.joins(carries, model.n_layers)
    # Rows can share what is below this edit. One that is on already acts on rows from a depth that
    # is not known here, so that each must then run its own prompt.
    twice = len({tuple(row) for row in ids}) < len(ids)  # asked first: the model may have to try
    shares = (twice or displacement) and not model.attachments and model.branches
    edited = edit is not None and bool(edit.parts)
    kinds = None
    if (
        new
        and len(ids) > 1
        and not model.attachments
        and prefix.common(ids) >= prefix.LEAST
        and model.branches
    ):
        longest = max(map(len, ids))
        if prefix.can_go_on(model, max(ids, key=len), longest + new):
            kinds = prefix.alike(edit, carries)
    displaced = None
    if edited and displacement and not model.attachments:
        displaced = Displacement(len(ids))
    with ExitStack() as attached:
        touched = EditStats()
        if edit is not None and edited:
            touched = attached.enter_context(edit.on(model))
        if displaced is not None:  # after the edit, whose last changes it has to see
            look = ("resid_post", model.n_layers - 1, displaced)
            attached.enter_context(model.attached([look]))
        yield Rows(model, ids, carries, depth, shares, touched, displaced, kinds)


def need_rows(
    model: Model,
    ids: Sequence[Sequence[int]],
    edit: Edit | None,
    carries: Sequence[int] | None,
    *,
    new: int,
    unsteered: bool,
) -> None:
    """Raise for what `rows_on` refuses."""
    model.need_decoder("what runs rows for their logits")
    if edit is not None:
        need_edit(edit)
    if unsteered and model.attachments:
        raise SteerlabError(
            "an edit is on the model already, so that it cannot be read as it is; leave the edit's "
            "`with` first"
        )
    if edit is not None and not new and any(not part.kinds.prompt for part in edit.parts):
        raise SteerlabError(
            "nothing is generated when texts are read; give edits of the positions 'all' or "
            "'prompt'"
        )
    need_room(model, ids, new=new)
    if carries is not None and len(carries) != len(ids):
        raise SteerlabError(
            f"there are {len(ids)} rows and {len(carries)} numbers of what each "
            "carries; give each row one"
        )
    if edit is None or edit.rows is None:
        return
    if carries is None and edit.rows != len(ids):
        raise SteerlabError(
            f"there are {len(ids)} prompts and the stack has {edit.rows} edits; give each prompt "
            "one"
        )
    # An index that is negative would silently mean an edit from the end.
    if carries and not 0 <= min(carries) <= max(carries) < edit.rows:
        raise SteerlabError(
            f"rows carry the edits {min(carries)} to {max(carries)} of a stack of {edit.rows}; "
            f"their numbers are 0 to {edit.rows - 1}"
        )


@dataclass(frozen=True)
class Rows:
    """Rows of tokens on a model whose edit is on; `rows_on` makes them.

    Args:
        model: what runs the rows.
        ids: the tokens of each row, BOS included.
        carries: which edit of a stack each row carries.
        depth: the block at which each row's edit first acts. Below it the row is as its prompt is
            without an edit.
        shares: whether rows of one prompt run it once, up to their depth.
        touched: what the edit did until now.
        displaced: how far it moves the last of the stream; None where that is not measured.
        kinds: numbers that rows of equal edits share; None where a common beginning may not run by
            itself.
    """

    model: Model
    ids: Sequence[Sequence[int]]
    carries: Sequence[int]
    depth: Sequence[int]
    shares: bool
    touched: EditStats
    displaced: Displacement | None = None
    kinds: Sequence[int] | None = None

    def run(self, work: Callable[[list[int]], None], plan: batches.Plan) -> batches.Plan:
        """Do the work batch by batch, each in the order of `as_they_run`; gives the plan as it was
        kept to.

        Where memory runs out, the batch and all that follow are halved, and what the edit had
        counted of the batch that failed is taken back. So `work` may be given a row twice.
        """

        def in_order(rows: Sequence[int]) -> None:
            work(self.as_they_run(rows))

        return batches.run(plan, in_order, self.touched.mark, self.touched.undo)

    def as_they_run(self, rows: Sequence[int]) -> list[int]:
        """Numbers of rows in the order in which one pass runs them.

        Asked for in this order, `forward` need not copy its logits and cache to put them back.
        """
        distinct = len({tuple(self.ids[row]) for row in rows})
        if not self.shares or (distinct == len(rows) and self.displaced is None):
            return list(rows)
        # `branch` lets rows join in this order; both sorts are stable.
        return sorted(rows, key=lambda row: self.depth[row])

    def forward(
        self, rows: Sequence[int], *, keep: Keep = "last", room: int | None = None
    ) -> tuple[Float[Tensor, "row out vocab"], "Pass"]:
        """Run some rows in one batch: their logits, and the pass to go on from; both in the order
        in which the rows were asked for.

        Args:
            rows: the numbers of the rows.
            keep: the logits of the `last` position, or of `all`.
            room: how many more positions will follow, for which a cache is kept; None for no cache.
        """
        if self.displaced is not None:
            self.displaced.begin(rows)
        if self.kinds is not None and keep == "last" and room is not None:
            start = prefix.pays(
                [self.ids[row] for row in rows],
                [self.depth[row] for row in rows],
                [self.kinds[row] for row in rows],
                self.model.n_layers,
            )
            if start:
                return self._from_a_beginning(rows, start, room)
        return self._whole(rows, keep=keep, room=room)

    def _whole(
        self, rows: Sequence[int], *, keep: Keep, room: int | None
    ) -> tuple[Float[Tensor, "row out vocab"], "Pass"]:
        """The prompts of rows in one pass, in which rows of one prompt share it up to their
        depth."""
        model = self.model
        prompts = [list(self.ids[row]) for row in rows]
        carries = [self.carries[row] for row in rows]
        depth = [self.depth[row] for row in rows]
        if self.displaced is not None:
            # The distinct prompts run along as they are, behind the rows: no edit is theirs.
            distinct = sorted(set(map(tuple, prompts)), key=lambda ids: (len(ids), ids))
            plain = {ids: number for number, ids in enumerate(distinct)}
            of_rows = [plain[tuple(ids)] for ids in prompts]
            prompts += [list(ids) for ids in distinct]
            carries += [-1] * len(distinct)
            depth += [model.n_layers] * len(distinct)
        joined: Branch | None = None
        if self.shares:
            prompts, joined = branch(prompts, depth, carries, model.device, kept=len(rows))
        order = tuple(range(len(rows))) if joined is None else joined.order[: len(rows)]
        if self.displaced is not None:
            compared = torch.tensor([of_rows[index] for index in order], device=model.device)
            self.displaced.expect([[rows[index]] for index in order], compared)
        tokens, mask = pad(prompts, model.padding, model.device)
        if joined is None:
            names = torch.tensor(carries, device=model.device)
            positions = model.positions(tokens, mask, rows=names)
        else:  # the positions follow from the branch, and change as its rows join
            names, positions = joined.names, None
        logits, cache = model.forward(
            tokens, mask, last=int(keep == "last"), room=room, branch=joined, positions=positions
        )
        kept = torch.arange(len(rows), device=model.device)
        if joined is None:
            done = Pass(model, tokens, mask, names, cache)
            if len(tokens) > len(rows):
                done.take(kept)
            return logits[: len(rows)], done
        # From here on each row is by itself: it takes its prompt's tokens along.
        parent = joined.parent[: len(rows)]
        done = Pass(model, tokens[parent], mask[parent], names[: len(rows)], cache)
        logits = logits[: len(rows)]
        if order != tuple(range(len(rows))):
            back = torch.tensor(order, device=model.device).argsort()
            logits = logits[back]
            done.take(back)
        return logits, done

    def _from_a_beginning(
        self, rows: Sequence[int], length: int, room: int
    ) -> tuple[Float[Tensor, "row out vocab"], "Pass"]:
        """The first tokens, which all prompts share, once for each distinct edit; then each row its
        own tokens, behind the keys and values of the row that ran for it."""
        model, kinds = self.model, self.kinds or ()
        alike_rows: dict[int, list[int]] = {}
        for row in sorted(rows, key=lambda row: self.depth[row]):
            alike_rows.setdefault(kinds[row], []).append(row)
        groups = list(alike_rows.values())
        carries = [self.carries[group[0]] for group in groups]
        depth = [self.depth[group[0]] for group in groups]
        own = [list(self.ids[row][length:]) for row in rows]
        distinct: list[tuple[int, ...]] = []
        if self.displaced is not None:
            # The prompts as they are run along, as in `_whole`.
            distinct = sorted(set(map(tuple, own)), key=lambda ids: (len(ids), ids))
            carries.append(-1)
            depth.append(model.n_layers)
            self.displaced.expect(groups, torch.zeros(len(groups), dtype=torch.long))
        start = list(self.ids[rows[0]][:length])
        members = {self.carries[group[0]]: [self.carries[row] for row in group] for group in groups}
        with self.touched.standing_for(members):
            done = self._beginning(start, carries, depth, max(map(len, own)) + room)
        group_of = {kinds[group[0]]: number for number, group in enumerate(groups)}
        behind = [group_of[kinds[row]] for row in rows] + [len(groups)] * len(distinct)
        done.take(torch.tensor(behind, device=model.device))
        if self.displaced is not None:
            plain = {ids: number for number, ids in enumerate(distinct)}
            compared = torch.tensor([plain[tuple(ids)] for ids in own], device=model.device)
            self.displaced.expect([[row] for row in rows], compared)
        names = [self.carries[row] for row in rows] + [-1] * len(distinct)
        done.carries = torch.tensor(names, device=model.device)
        tokens = [*own, *map(list, distinct)]
        logits = done.read(*pad(tokens, model.padding, model.device))
        if distinct:
            done.take(torch.arange(len(rows), device=model.device))
        return logits[: len(rows)], done

    def _beginning(
        self, start: list[int], carries: list[int], depth: list[int], room: int
    ) -> "Pass":
        """The same tokens under each of several edits, in the order of their depths."""
        model = self.model
        prompts, joined = branch([start] * len(carries), depth, carries, model.device)
        tokens, mask = pad(prompts, model.padding, model.device)
        names = torch.tensor(carries, device=model.device) if joined is None else joined.names
        positions = None if joined else model.positions(tokens, mask, rows=names)
        _, cache = model.forward(
            tokens, mask, last=1, room=room, branch=joined, positions=positions
        )
        of_each = torch.zeros(len(carries), dtype=torch.long, device=model.device)
        return Pass(model, tokens[of_each], mask[of_each], names, cache)


@dataclass
class Pass:
    """Rows whose prompts have run together, to go on from.

    Args:
        model: what ran them.
        tokens: padded on the left, `[row pos]`.
        mask: true where there is no padding, `[row total]`; it grows with what follows.
        carries: which edit of the stack each row carries, `[row]`.
        cache: keys and values, if room was asked for.
    """

    model: Model
    tokens: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]
    carries: Int[Tensor, " row"]
    cache: Any

    def take(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these of the rows, in this order."""
        self.tokens = self.tokens[rows]
        self.mask = self.mask[rows]
        self.carries = self.carries[rows]
        if self.cache is not None:
            keep_rows(self.cache, rows)

    def step(
        self, tokens: Int[Tensor, " row"], live: Bool[Tensor, " row"] | None = None
    ) -> Float[Tensor, "row vocab"]:
        """The logits after one more token in each row; edits leave alone what is not `live`."""
        new = rearrange(tokens, "row -> row 1")
        positions = step_positions(self.carries, live, self._before())
        return self._more(new, torch.ones_like(new, dtype=torch.bool), positions, last=1)[:, -1]

    def read(
        self, tokens: Int[Tensor, "row new"], real: Bool[Tensor, "row new"]
    ) -> Float[Tensor, "row 1 vocab"]:
        """The logits after the last of several more tokens of each row's prompt, which are padding
        where not `real`."""
        self.tokens = torch.cat([self.tokens, tokens], 1)
        positions = Positions(real, torch.zeros_like(real), self.carries, before=self._before())
        return self._more(tokens, real, positions, last=1)

    def follow(
        self, tokens: Int[Tensor, "row new"], real: Bool[Tensor, "row new"]
    ) -> Float[Tensor, "row new vocab"]:
        """The logits after each of several more tokens in each row, which are padding where not
        `real`."""
        positions = Positions(real, torch.ones_like(real), self.carries, before=self._before())
        return self._more(tokens, real, positions, last=0)

    def _before(self) -> Int[Tensor, " row"] | None:
        """How many tokens each row has, for edits: none asks where nothing is attached."""
        return self.mask.sum(1) if self.model.attachments else None

    def _more(self, tokens: Tensor, real: Tensor, positions: Positions, *, last: int) -> Tensor:
        """One pass of new tokens behind the cache, which grows by them."""
        self.mask = torch.cat([self.mask, real], 1)
        logits, self.cache = self.model.forward(
            tokens, self.mask, past=self.cache, last=last, positions=positions
        )
        return logits


def read(
    model: Model, ids: Sequence[Sequence[int]], looks: Sequence[tuple[str, int, HookFn]]
) -> Bool[Tensor, "row pos"]:
    """Run texts through the blocks only, as far as functions look at activations on the way.

    The result is true where there is text, neither padding nor the beginning of a text.

    Args:
        model: what runs the texts.
        ids: the tokens of each text, BOS included.
        looks: (site, layer, function) of each function that looks.
    """
    tokens, mask = pad(ids, model.padding, model.device)
    with model.turns.taken(), model.attached(looks):
        model.body(tokens, mask, through=max((layer for _, layer, _ in looks), default=None))
    return model.positions(tokens, mask).text
