"""Edits as values: which functions change which rows at which layer, how they compose, and how
they are made."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.core.display import Shown, View
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import same_weights, unlike, weights_of
from steerlab.core.sites import ORDER, ROUTER, hook_name, lens_hook, lens_width
from steerlab.edits.amplified import Amplification
from steerlab.edits.attached import Writes, attach, in_stream
from steerlab.edits.gates import as_gate, is_gates
from steerlab.edits.own_function import OwnFunction
from steerlab.edits.part import ChangeFn, Part, Tensors
from steerlab.edits.plain import plain_hook, spares_first
from steerlab.edits.stats import EditStats
from steerlab.edits.view import view_of
from steerlab.edits.windows import Window, shortened, window


@runtime_checkable
class _Attachable(Protocol):
    """What an edit asks of a model: to attach functions to sites, and to say what it is and how
    what is at a site reaches the residual stream."""

    name: str

    @property
    def fingerprint(self) -> str: ...
    def width_of(self, site: str) -> int: ...
    def attached(self, changes: Any) -> Any: ...
    def need_layer(self, layer: int) -> None: ...
    def writes(self, site: str, layer: int) -> Writes | None: ...
    def experts_per_token(self) -> int: ...


@dataclass(frozen=True, eq=False, repr=False)
class Edit(Shown):
    """A frozen change of the residual stream: `a | b` does both, `edit.on(model)` attaches it
    inside a `with`.

    `parts` are done in their order; `model` says which model it was made with, as far as is known.
    """

    parts: tuple[Part, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None  # of a stack: how many rows it carries
    # What decoding makes of its logits and the plain model's (`sl.amplify`): of each row of a
    # stack, else one; empty for nothing.
    logits: tuple[Amplification | None, ...] = ()

    __eq__ = by_content

    def _view(self) -> View:
        return view_of(self.parts, self.rows, self.model)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the edit does: its parts in their order, the model that it is for.

        It is the same in any process. Nothing is kept, since a tensor can change in place.
        """
        parts = [part.digest for part in self.parts]
        hashed: list[Any] = [parts, self.rows, self.model.get("fingerprint")]
        if self.logits:  # else digests stay what they were
            hashed.append([repr(each) for each in self.logits])
        return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors whose header says what is done where; the file appears whole or not at
        all. With `force` it replaces one that steerlab did not write.

        Raises `SteerlabError` for an edit with a function of your own: a file holds no code.
        """
        from steerlab.edits.edit_file import save_edit  # it knows all operators, which make edits

        self.need_plain("no file has room for it: save the edit that it amplifies")
        return save_edit(self, file, force=force)

    @classmethod
    def load(cls, file: str | Path) -> "Edit":
        """Read what `save` wrote; raises `SteerlabError` for a missing, truncated, altered or
        foreign file."""
        from steerlab.edits.edit_file import load_edit

        return load_edit(file)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites at which it acts, in the order in which a block computes them."""
        here = {part.site for part in self.parts}
        return tuple(site for site in ORDER if site in here)

    def __or__(self, other: "Edit") -> "Edit":
        need_edit(other)
        for each in (self, other):
            each.need_plain("amplify what (a | b) makes")
        if None not in (self.rows, other.rows) and self.rows != other.rows:
            raise SteerlabError(
                f"a stack of {self.rows} edits and one of {other.rows} do not go together"
            )
        return Edit(self.parts + other.parts, _maker([self, other]), self.rows or other.rows)

    def when(self, gate: Any) -> "Edit":
        """The edit where a gate is open: what is added is multiplied by the gate's factor of each
        position, and a position with the factor 0 is not touched.

        `gate` is one of `sl.edits.gates`, such as `positive(direction)` or `after(3)`, or a
        function of (h [row pos width]) or (h, positions) that gives factors [row pos]. Gates of
        several parts are each at its own place. A gate that is always 1 changes no bit, and one
        that is always shut makes the edit raise, as one that touched nothing.
        """
        self.need_plain("give the edit its gate first, and amplify it then")
        made = as_gate(gate)
        # Its tensors become the part's, each layer's with its part.
        bare = replace(made, tensors={}, layers=None, site=None)
        if not self.parts:
            raise SteerlabError("there is nothing to put a gate before: the edit has no parts")
        parts = []
        for part in self.parts:
            if part.rows is not None:
                raise SteerlabError(
                    "a stack has no gate; give each of its edits one, and stack them"
                )
            if part.gate is not None:
                raise SteerlabError(
                    f"the edit has the gate {part.gate.name} already; give one function of both"
                )
            tensors = {**part.tensors, **made.at(part.layer, part.site)}
            parts.append(replace(part, gate=bare, tensors=tensors))
        return replace(self, parts=tuple(parts))

    @contextmanager
    def on(self, model: _Attachable) -> Iterator[EditStats]:
        """Attach to a model for the length of a `with`; a run in which no position was touched
        raises at its end."""
        stats, changes = self.changes(model)
        with model.attached(changes):
            yield stats
        stats.need_touched(*self.where)

    @property
    def where(self) -> tuple[list[str], list[str]]:
        """The kinds of positions of its parts, and the names of the gates before them."""
        gates = [part.gate.name for part in self.parts if part.gate is not None]
        return [shortened(part.positions) for part in self.parts], gates

    def changes(self, model: _Attachable) -> tuple[EditStats, list[tuple[str, int, Any]]]:
        """What `on` attaches, for one who attaches it by `model.attached` at each of several
        steps, and what counts over all of them."""
        self.need_plain("it acts where outputs are decoded, as generate(edit=) does")
        self._need(model)
        per_token = model.experts_per_token() if ROUTER in self.sites else None
        outside = [site for site in self.sites if not in_stream(site)]
        stats = EditStats(outside, experts_per_token=per_token)
        return stats, attach(self.parts, stats, self.rows, model.writes)

    def joins(self, rows: Sequence[int], end: int) -> list[int]:
        """The depth above which each row of a prompt's pass is as if unedited: a block's number,
        or `end` after all."""
        shared = [_depth(part) for part in self.parts if part.rows is None and part.kinds.prompt]
        first: dict[int, int] = {}
        for part in self.parts:
            if part.rows is not None and part.kinds.prompt:
                for row in part.rows.tolist():
                    first[row] = min(first.get(row, end), _depth(part))
        return [min(first.get(row, end), *shared, end) for row in rows]

    def rows_touched(self, count: int, half: str | None = None) -> set[int]:
        """Which of the rows 0 to `count` have a part; with `half`, prompt or generated, one that
        edits this half of the positions."""
        touched: set[int] = set()
        for part in self.parts:
            if half is None or getattr(part.kinds, half):
                touched.update(range(count) if part.rows is None else part.rows.tolist())
        return touched

    def hooks(self, model: Any = None, *, bos: bool | None = None) -> list[tuple[str, Callable]]:
        """`(name, function)` pairs for TransformerLens' `run_with_hooks` and `hooks`.

        Such a hook does not see the tokens. It takes the positions `all` and `everywhere`, a
        stack's edit i meets row i of the batch, and padding is edited like text. With `bos` the
        first position of every pass of two or more is spared: BOS, or the first token of a text
        that has none.
        `edit.on(load(your_model))` sees all of this for itself.

        Args:
            model: a HookedTransformer or TransformerBridge, or a model of ours.
            bos: whether the first position is the beginning of a text, for tokens that come from
                elsewhere or another `prepend_bos`; by default it is. A model that does not say
                raises where `bos` is not given.
        """
        self.need_plain("no hook does this: use generate(edit=)")
        if model is not None and hasattr(model, "cfg") and self.parts:
            self._need_width(lambda site: lens_width(model.cfg, site), "the model")
        if any(part.site == ROUTER for part in self.parts):
            raise SteerlabError(
                "what a plain hook returns at a router changes the logits that are shown and not "
                "where tokens go; use edit.on(model)"
            )
        if blind := sorted({part.positions for part in self.parts} - {"all", "everywhere"}):
            raise SteerlabError(
                f"a plain hook cannot know the positions {blind[0]!r}; use edit.on(model), or 'all'"
            )
        for part in self.parts:
            if isinstance(part.change, OwnFunction) and part.change.takes == 3:
                raise SteerlabError(
                    f"a plain hook has no positions to give to {part.operator}; use "
                    "edit.on(model), or a function of (h, tensors)"
                )
        bos = spares_first(model) if bos is None else bos
        return [
            (
                hook_name(part.site, part.layer),
                lens_hook(part.site, plain_hook(part, self.rows, bos=bos)),
            )
            for part in self.parts
        ]

    def need_plain(self, advice: str) -> None:
        """Raise for an amplified edit, of whose logits nothing would be made."""
        if self.logits:
            raise SteerlabError(f"this edit is amplified, which changes logits; {advice}")

    def _need(self, model: _Attachable) -> None:
        if not hasattr(model, "width_of") or not hasattr(model, "attached"):
            raise SteerlabError(
                f"an edit goes on a model, not on a {type(model).__name__}; load(...) makes one of "
                "a name, a folder, or a model of transformers with its tokenizer"
            )
        self._need_width(model.width_of, model.name)
        for part in self.parts:
            model.need_layer(part.layer)
        made, here = self.model.get("processing"), getattr(model, "processing", None)
        if made and here and made != here:
            raise SteerlabError(
                f"this edit was made with {made} of {self.model.get('name')}, and {model.name} has "
                f"{here}: their activations are not the same; collect and fit again, or load the "
                "model without processing (HookedTransformer.from_pretrained_no_processing)"
            )
        own, given = self.model.get("fingerprint"), model.fingerprint
        if own and given and not same_weights(own, given):
            raise SteerlabError(
                f"this edit was made with {self.model.get('name')} ({weights_of(own)}), not with "
                f"{model.name} ({weights_of(given)}); directions of one model mean nothing in "
                f"another: collect and fit again{unlike(own, given)}"
            )

    def _need_width(self, width_of: Callable[[str], int | None], name: str) -> None:
        widths = {site: width_of(site) for site in {part.site for part in self.parts}}
        for part in self.parts:
            width = widths[part.site]
            # A user's function may take tensors of any shape; what it returns is checked.
            if width is None or isinstance(part.change, OwnFunction):
                continue
            for key, tensor in part.tensors.items():
                if part.gate is not None and part.gate.reads is not None and is_gates(key):
                    continue  # it reads elsewhere, and has a shape of its own
                # A width of 1 is a number for each unit, not a vector.
                if tensor.ndim > 1 and tensor.shape[-1] not in (1, width):
                    where = "" if part.site.startswith("resid_") else f" at {part.site}"
                    raise SteerlabError(
                        f"{part.operator}: {key} has width {tensor.shape[-1]}, {name} has "
                        f"{width}{where}"
                    )


def need_edit(edit: Any) -> None:
    """Raise `SteerlabError` for what is no `Edit`, and say what makes one of it."""
    if isinstance(edit, Edit):
        return
    advice = "give add(directions.between('en', 'es').at(5)), or what another operator makes"
    if isinstance(edit, Direction | Directions):
        advice = "an operator makes one of it, as add(directions.between('en', 'es').at(5))"
    elif isinstance(edit, list | tuple):
        advice = "stack(edits) makes one of several"
    elif callable(edit):
        advice = "edit(function, layer=5) makes one of a function"
    raise SteerlabError(f"an edit is needed, not a {type(edit).__name__}; {advice}")


def stack(edits: Sequence[Edit]) -> Edit:
    """One edit whose row i carries edit i; parts of one function at one layer are done together."""
    if isinstance(edits, Edit) or not isinstance(edits, Iterable):
        raise SteerlabError(
            f"stack takes a list of edits, one for each row, and was given a {type(edits).__name__}"
        )
    groups: dict[tuple, list[tuple[int, Part]]] = {}
    for row, edit in enumerate(edits):
        need_edit(edit)
        # Functions do not commute: each row keeps its own order at a site.
        turns: dict[tuple[int, str], int] = {}
        for part in edit.parts:
            if part.rows is not None:
                raise SteerlabError("a stack cannot hold a stack; give one edit for each row")
            layer_site = (part.layer, part.site)
            turns[layer_site] = turns.get(layer_site, -1) + 1
            key = (
                *layer_site,
                turns[layer_site],
                part.positions,
                part.identity,
                *_function_of(part),
            )
            groups.setdefault(key, []).append((row, part))
    # Groups of one layer, site and turn are of different rows, so that their order is free: by name
    # it is the same in every run, whatever row comes first.
    keys = sorted(groups, key=lambda key: _order(key, groups[key][0][1].operator))
    parts = tuple(_together(groups[key]) for key in keys)
    logits: tuple[Amplification | None, ...] = ()
    if any(edit.logits for edit in edits):
        logits = tuple(edit.logits[0] if edit.logits else None for edit in edits)
    return Edit(parts, _maker(edits), len(edits), logits)


def _order(key: tuple, operator: str) -> tuple:
    """What a stack's groups are sorted by: functions, which end the keys, have no order."""
    layer, site, turn, positions, identity, *_ = key
    return (layer, site, turn, operator, positions, identity)


def _function_of(part: Part) -> tuple:
    """What parts must share to be done in one call: the function, and for a user's function the
    shapes of its tensors too.

    Tensors of different rank are filled up with rows of zeros. To an operator's function such a row
    is as if it was not there; what a user's function makes of it is not known.
    """
    if part.gate is not None:
        whose = part.gate.function
        shapes = [(name, tuple(part.tensors[name].shape)) for name in sorted(part.tensors)]
        change = part.change
        own = change.identity if isinstance(change, OwnFunction) else change
        return (own, whose, part.gate.reads, tuple(shapes))
    if not isinstance(part.change, OwnFunction):
        return (part.change,)
    shapes = [(name, tuple(part.tensors[name].shape)) for name in sorted(part.tensors)]
    return (part.change.identity, tuple(shapes))


def _together(members: Sequence[tuple[int, Part]]) -> Part:
    """One part from many that do the same, each with its own tensors, in rows of a stack."""
    first = members[0][1]
    tensors = {name: _join([part.tensors[name] for _, part in members]) for name in first.tensors}
    return replace(first, tensors=tensors, rows=torch.tensor([row for row, _ in members]))


def _maker(edits: Sequence[Edit]) -> Mapping[str, Any]:
    """The one model that edits were made with, as far as they say."""
    makers = {
        weights_of(edit.model["fingerprint"]): edit.model
        for edit in edits
        if edit.model.get("fingerprint")
    }
    if len(makers) > 1:
        raise SteerlabError(
            f"the edits were made with different models: {', '.join(sorted(makers))}"
        )
    return next(iter(makers.values()), {})


def _join(tensors: list[Tensor]) -> Tensor:
    """Join tensors along rows; subspaces and sets of units of smaller rank are filled up with rows
    of zeros."""
    if tensors[0].ndim == 3:
        rank = max(tensor.shape[1] for tensor in tensors)
        tensors = [
            torch.nn.functional.pad(tensor, (0, 0, 0, rank - tensor.shape[1])) for tensor in tensors
        ]
    widths = {tensor.shape[-1] for tensor in tensors if tensor.ndim > 1}
    if len(widths) > 1:
        raise SteerlabError(f"the edits of a stack have different widths: {sorted(widths)}")
    return torch.cat(tensors)


def edit_along(
    direction: Direction,
    change: ChangeFn,
    tensors: Tensors,
    *,
    operator: str,
    positions: Window,
    identity: bool,
    busy: Bool[Tensor, " layer"] | None = None,
) -> Edit:
    """The edit of an operator: one function at each layer of a direction.

    Args:
        direction: says the site, the layers and the model.
        change: what is added to h (see `ChangeFn`), a function of a module, so that it pickles.
        tensors: what the function gets, each with a leading axis of the direction's layers. In a
            stack, one of three axes is filled up with rows of zeros to the largest rank: these must
            change nothing.
        operator: what messages call it.
        positions: what `window` takes.
        identity: whether the operator is set to change nothing.
        busy: at which of the layers something changes; the others are left alone. By default all.
    """
    where = window(positions)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise SteerlabError(f"{operator}: {name} holds NaN or infinity")
    parts = []
    for number, layer in enumerate(direction.layers):
        if busy is not None and not busy[number]:
            continue
        # Cut and not indexed: the leading axis stays, as that of the rows.
        of_layer = {name: tensor[number : number + 1].float() for name, tensor in tensors.items()}
        parts.append(Part(change, operator, direction.site, layer, where, of_layer, identity))
    return Edit(tuple(parts), direction.model)


def edit(
    function: Callable[..., Tensor],
    *,
    site: str = "resid_post",
    layer: int | None = None,
    layers: Sequence[int] | None = None,
    tensors: Mapping[str, Tensor | float] | None = None,
    positions: Window = "all",
    name: str | None = None,
    identity: bool = False,
) -> Edit:
    """An edit of your own function: h becomes h + function(h), (h, tensors) or (h, tensors,
    positions).

    `h` is [row pos width] in float32, without regard to what the model computes in. The function
    returns what is added to h, of h's shape or with 1 in the place of row or pos; other shapes,
    other types and NaN raise. What it closes over is the same for all rows. What differs between
    the edits of a `stack` goes into `tensors`: rows of one function and of tensors of one shape are
    then computed together. A number reaches the function as [row 1 1], a vector as [row 1 width]
    and a matrix as [row a b], so that `s * h`, `v + h` and `h @ m` mean the same in a stack as
    alone.

    Padding lies on the left, and rows of one prompt are computed once up to their edits: a function
    that mixes positions reads `positions.text`.

    Args:
        function: of a module, if the edit is to be pickled, as on a Ray cluster.
        site: where h is read and changed.
        layer: the layer; or
        layers: several, at each of which the function does the same.
        tensors: numbers and tensors that the function gets, by name.
        positions: what `sl.edits.window` takes; BOS is edited only "everywhere" or by its number,
            and padding never.
        name: what messages call the function. The digest is of its source, and of the defaults,
            closure and global values that it uses; where these cannot be read, as at a prompt, it
            is of the name, which must then be another one for each function.
        identity: whether it changes nothing with these values, so that h keeps its last bit.
    """
    change = OwnFunction.of(function, name)
    given = dict(tensors or {})
    if given and change.takes == 1:
        raise SteerlabError(
            f"{change.name} takes h alone and would never see the tensors {', '.join(given)}; "
            "let it take (h, tensors)"
        )
    numbers = [number for number in (layer, *(layers or ())) if number is not None]
    if (layer is None) == (layers is None) or not numbers:
        raise SteerlabError(
            f"the edit of {change.name} takes layer= or, for several, layers=; give one of the two"
        )
    hook_name(site, 0)  # an unknown site raises
    where = window(positions)
    for_rows = {key: _for_rows(change.name, key, value) for key, value in given.items()}
    parts = [
        Part(change, change.name, site, number, where, for_rows, identity) for number in numbers
    ]
    return Edit(tuple(parts))


def _for_rows(function: str, name: str, value: Tensor | float) -> Tensor:
    """A number, vector or tensor with the axes of a batch: [1 1 1], [1 1 width] or [1 ...].

    It gets an axis of rows in front, and more where it has fewer axes than h [row pos width].
    """
    tensor = torch.as_tensor(value)
    if not torch.isfinite(tensor).all():
        raise SteerlabError(f"{function}: {name} holds NaN or infinity")
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor[(None,) * max(1, 3 - tensor.ndim)]


def _depth(part: Part) -> int:
    """The depth below which a part neither changes nor reads anything: all sites but one lie in
    their block or before it, and a row that differs inside a block must run the block itself."""
    places = [(part.site, part.layer)]
    if part.gate is not None and part.gate.reads is not None:
        places.append(part.gate.reads)
    return min(layer + (site == "resid_post") for site, layer in places)
