"""Edits as values: which tensors change which rows at which layer, how they compose, and what
they did."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name, lens_hook, lens_width
from steerlab.core.tokens import has_bos
from steerlab.edits.changes import CHANGES, Tensors

POSITIONS = ("all", "prompt", "generated")


@dataclass(frozen=True, eq=False)
class Part:
    """One operator at one layer, for one row pattern: every row alike (`rows` None), or tensor
    row i for `rows[i]`."""

    operator: str
    site: str
    layer: int
    positions: str
    tensors: Tensors
    identity: bool
    rows: Tensor | None = None

    __eq__ = by_content


class EditStats:
    """What an edit did: positions per layer on prefill and on decode, and the dose ‖Δh‖/‖h‖ of
    each row."""

    def __init__(self) -> None:
        self.passes = 0
        self.prefill: dict[int, int] = {}
        self.decode: dict[int, int] = {}
        self._sums = torch.zeros(0, 2)  # of each row: its doses added up, and how many they are

    def record(
        self, layer: int, rows: Tensor, mask: Tensor | None, generated: Tensor, ratio: Tensor
    ) -> None:
        """Count positions of batch rows `rows`: those of `mask` [row pos], or all if None; `ratio`
        is their dose.

        `generated` [row pos] says which of them count as decoded.
        """
        ratio = ratio.expand_as(generated)
        if mask is None:
            self._count(self.decode, layer, ratio.numel())
            number = torch.ones_like(ratio)
        else:
            self._count(self.prefill, layer, int((mask & ~generated).sum()))
            self._count(self.decode, layer, int((mask & generated).sum()))
            ratio, number = ratio.masked_fill(~mask, 0), mask.to(ratio.dtype)
        self._sums.index_add_(0, rows, torch.stack([ratio, number], 2).sum(1))

    def make_room(self, rows: int, device: torch.device) -> None:
        """Be ready to count rows below `rows`."""
        if rows > len(self._sums):
            with torch.inference_mode(
                mode=False
            ):  # what inference mode made cannot be changed outside of it
                more = torch.zeros(rows - len(self._sums), 2, device=device)
                self._sums = torch.cat([self._sums.to(device), more])

    def mark(self) -> tuple[Any, ...]:
        """What was touched until now, for `undo`."""
        return self.passes, dict(self.prefill), dict(self.decode), self._sums.clone()

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Forget what came after a mark: a batch that failed did nothing."""
        self.passes, self.prefill, self.decode, self._sums = mark

    def _count(self, counts: dict[int, int], layer: int, number: int) -> None:
        counts[layer] = counts.get(layer, 0) + number

    def doses(self, rows: int) -> Float[Tensor, " row"]:
        """Mean dose of each row over its touched positions; 0 where nothing was touched."""
        known = self._sums[:rows].cpu()
        total, number = torch.nn.functional.pad(known, (0, 0, 0, rows - len(known))).T
        return total / number.clamp(min=1)


@runtime_checkable
class _Attachable(Protocol):
    """What an edit asks of a model: to attach functions to sites, and to say what it is."""

    fingerprint: str
    name: str

    def width_of(self, site: str) -> int: ...
    def attached(self, changes: Any) -> Any: ...
    def need_layer(self, layer: int) -> None: ...


@dataclass(frozen=True, eq=False)
class Edit:
    """A frozen change of the residual stream: `a | b` does both, `edit.on(model)` attaches it
    inside a `with`."""

    parts: tuple[Part, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None  # of a stack: how many rows it carries

    __eq__ = by_content

    def __or__(self, other: "Edit") -> "Edit":
        if None not in (self.rows, other.rows) and self.rows != other.rows:
            raise SteerlabError(
                f"a stack of {self.rows} edits and one of {other.rows} do not go together"
            )
        return Edit(self.parts + other.parts, _maker([self, other]), self.rows or other.rows)

    @contextmanager
    def on(self, model: _Attachable) -> Iterator[EditStats]:
        """Attach to a model for the length of a `with`; a run in which no position was touched
        raises at its end."""
        self._need(model)
        touched = EditStats()
        changes = [
            (part.site, part.layer, _Change(part, touched, self.rows)) for part in self.parts
        ]
        with model.attached(changes):
            yield touched
        if (
            self.parts
            and touched.passes
            and not any((*touched.prefill.values(), *touched.decode.values()))
        ):
            kinds = ", ".join(sorted({part.positions for part in self.parts}))
            raise SteerlabError(
                f"the edit touched no position (positions: {kinds}); the outputs are unsteered"
            )

    def joins(self, rows: Sequence[int], end: int) -> list[int]:
        """The depth above which each row of a prompt's pass is as if unedited: a block's number,
        or `end` after all."""
        shared = [
            _depth(part)
            for part in self.parts
            if part.rows is None and part.positions != "generated"
        ]
        first: dict[int, int] = {}
        for part in self.parts:
            if part.rows is not None and part.positions != "generated":
                for row in part.rows.tolist():
                    first[row] = min(first.get(row, end), _depth(part))
        return [min(first.get(row, end), *shared, end) for row in rows]

    def hooks(self, model: Any = None, *, bos: bool | None = None) -> list[tuple[str, Callable]]:
        """`(name, function)` pairs for TransformerLens' `run_with_hooks` and `hooks`.

        Such a hook does not see the tokens. It takes no other positions than `all`, a stack's edit
        i meets row i of the batch, and padding is edited like text. With `bos` the first position
        of every pass of two or more is spared, as BOS. `edit.on(load(your_model))` sees all of this
        for itself.

        Args:
            model: a HookedTransformer or TransformerBridge, whose texts begin with BOS if
                `cfg.default_prepend_bos` says so (Qwen's do not), or a model of ours, whose texts
                do if the tokenizer has one.
            bos: whether the texts begin with BOS, for tokens that come from elsewhere or another
                `prepend_bos`. A model that does not say raises where `bos` is not given.
        """
        if model is not None and hasattr(model, "cfg") and self.parts:
            self._need_width(lambda site: lens_width(model.cfg, site), "the model")
        if blind := sorted({part.positions for part in self.parts} - {"all"}):
            raise SteerlabError(
                f"a plain hook cannot know the positions {blind[0]!r}; use edit.on(model), or 'all'"
            )
        bos = _begins_with_bos(model) if bos is None else bos
        return [
            (
                hook_name(part.site, part.layer),
                lens_hook(part.site, _lens_hook(part, self.rows, bos=bos)),
            )
            for part in self.parts
        ]

    def _need(self, model: _Attachable) -> None:
        self._need_width(model.width_of, model.name)
        for part in self.parts:
            model.need_layer(part.layer)
        made, here = self.model.get("fingerprint"), model.fingerprint
        if made and here and made != here:
            raise SteerlabError(
                f"this edit was made with {self.model.get('name')} ({made}), not with {model.name} "
                f"({here}); "
                "directions of one model mean nothing in another: collect and fit again"
            )

    def _need_width(self, width_of: Callable[[str], int | None], name: str) -> None:
        widths = {site: width_of(site) for site in {part.site for part in self.parts}}
        for part in self.parts:
            width = widths[part.site]
            for key, tensor in part.tensors.items():
                if (
                    width is not None and tensor.ndim > 1 and tensor.shape[-1] not in (1, width)
                ):  # 1: of a unit
                    place = "" if part.site.startswith("resid_") else f" at {part.site}"
                    raise SteerlabError(
                        f"{part.operator}: {key} has width {tensor.shape[-1]}, {name} has "
                        f"{width}{place}"
                    )


def stack(edits: Sequence[Edit]) -> Edit:
    """One edit whose row i carries edit i; parts of one operator at one layer are done together."""
    groups: dict[tuple, list[tuple[int, Part]]] = {}
    for row, edit in enumerate(edits):
        turns: dict[
            tuple, int
        ] = {}  # operators do not commute: each row keeps its own order at a site
        for part in edit.parts:
            if part.rows is not None:
                raise SteerlabError("a stack cannot hold a stack; give one edit for each row")
            here = (part.layer, part.site)
            turns[here] = turns.get(here, -1) + 1
            key = (*here, turns[here], part.operator, part.positions, part.identity)
            groups.setdefault(key, []).append((row, part))
    parts = []
    for (layer, site, _, operator, positions, identity), members in sorted(
        groups.items(), key=lambda item: item[0]
    ):
        tensors = {
            key: _join([part.tensors[key] for _, part in members]) for key in members[0][1].tensors
        }
        rows = torch.tensor([row for row, _ in members])
        parts.append(Part(operator, site, layer, positions, tensors, identity, rows))
    return Edit(tuple(parts), _maker(edits), len(edits))


def _maker(edits: Sequence[Edit]) -> Mapping[str, Any]:
    """The one model that edits were made with, as far as they say."""
    makers = {
        edit.model["fingerprint"]: edit.model for edit in edits if edit.model.get("fingerprint")
    }
    if len(makers) > 1:
        raise SteerlabError(
            f"the edits were made with different models: {', '.join(sorted(makers))}"
        )
    return next(iter(makers.values()), {})


def _join(tensors: list[Tensor]) -> Tensor:
    """Along rows; subspaces and sets of units of smaller rank are filled up with zero rows."""
    if tensors[0].ndim == 3:
        rank = max(t.shape[1] for t in tensors)
        tensors = [torch.nn.functional.pad(t, (0, 0, 0, rank - t.shape[1])) for t in tensors]
    if len(widths := {t.shape[-1] for t in tensors if t.ndim > 1}) > 1:
        raise SteerlabError(f"the edits of a stack have different widths: {sorted(widths)}")
    return torch.cat(tensors)


def made(
    operator: str, direction: Direction, positions: str, tensors: Tensors, *, identity: bool
) -> Edit:
    if positions not in POSITIONS:
        raise SteerlabError(f"there are no positions {positions!r}; use {', '.join(POSITIONS)}")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise SteerlabError(f"{operator}: {name} holds NaN or infinity")
    parts = tuple(
        Part(
            operator,
            direction.site,
            layer,
            positions,
            {k: t[i : i + 1].float() for k, t in tensors.items()},
            identity,
        )
        for i, layer in enumerate(direction.layers)
    )
    return Edit(parts, direction.model)


def finite(name: str, value: float | None) -> float:
    if value is None or not math.isfinite(value):
        raise SteerlabError(f"{name} is {value}; give a finite number")
    return float(value)


def _depth(part: Part) -> int:
    """The depth below which a part changes nothing: all sites but one lie in their block or before
    it, and a row that differs inside a block must run the block itself."""
    return part.layer + (part.site == "resid_post")


class _Change:
    """The function that a model attaches for a part: finds its rows in the batch, changes them,
    records its doses."""

    def __init__(self, part: Part, touched: EditStats, edits: int | None):
        self.part, self.touched, self.edits = part, touched, edits
        self.rows: Tensor | None = (
            None  # those of the batch for which the places below were looked up
        )

    def __call__(self, h: Tensor, where: Any) -> Tensor | None:
        self.touched.passes += 1
        if self.rows is not where.rows:
            self._look_up(where.rows, h.device)
        if not len(self.names) or (where.step and self.part.positions == "prompt"):
            return None
        found = h[self.pick]
        mask = None if where.step else self._mask(where)
        x = found.float()
        delta = CHANGES[self.part.operator](x, self.tensors)
        norm = torch.linalg.vector_norm
        ratio = norm(delta, dim=-1) / norm(x, dim=-1).clamp(min=1e-30)
        self.touched.record(
            self.part.layer, self.names, mask, where.generated[self.pick], ratio.detach()
        )
        if self.part.identity:
            return None
        changed = (x + delta).to(h.dtype)
        if mask is not None:
            changed = torch.where(mask[..., None], changed, found)
        if self.pick == slice(None):
            return changed
        new = h.clone()
        new[self.pick] = changed
        return new

    def _look_up(self, rows: Tensor, device: torch.device) -> None:
        """Where this part's rows are in a batch of the rows `rows`, and the tensors of each."""
        names, last = rows.tolist(), int(rows.max())
        if self.edits is not None and last >= self.edits:
            raise SteerlabError(
                f"the batch has {last + 1} rows or more and the stack {self.edits} edits; give "
                "each row one"
            )
        place = (
            None
            if self.part.rows is None
            else {row: i for i, row in enumerate(self.part.rows.tolist())}
        )
        here = [
            i for i, name in enumerate(names) if (name >= 0 if place is None else name in place)
        ]
        index = (
            None
            if place is None
            else torch.tensor([place[names[i]] for i in here], dtype=torch.long)
        )
        self.rows, self.pick = rows, slice(None) if len(here) == len(names) else _span(here, device)
        self.names = rows[self.pick]
        self.tensors = {
            k: (t if index is None else t[index]).to(device) for k, t in self.part.tensors.items()
        }
        self.touched.make_room(last + 1, device)

    def _mask(self, where: Any) -> Tensor:
        text, generated = where.text[self.pick], where.generated[self.pick]
        if self.part.positions == "prompt":
            return text & ~generated
        return text & generated if self.part.positions == "generated" else text


def _span(places: list[int], device: torch.device) -> Any:
    """A slice where the places follow each other, for then no copy is made."""
    if places and places[-1] - places[0] + 1 == len(places):
        return slice(places[0], places[-1] + 1)
    return torch.tensor(places, dtype=torch.long, device=device)


def _begins_with_bos(model: Any) -> bool:
    """Whether the texts of a model begin with BOS: of ours if there is one, TransformerLens says
    so in its `cfg`."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise SteerlabError(
            "a plain hook does not see the tokens, and what begins a text is not known without a "
            "model that has a "
            "tokenizer; give the model, as in edit.hooks(model), or bos=True or bos=False"
        )
    if not hasattr(model, "cfg"):
        return tokenizer.bos_token_id is not None
    if not model.cfg.default_prepend_bos and has_bos(tokenizer):
        raise SteerlabError(
            "TransformerLens puts no BOS before this model's texts (cfg.default_prepend_bos is "
            "False), but its "
            f"tokenizer has one, {tokenizer.bos_token!r}; give bos=True if your texts begin with "
            "it, or bos=False"
        )
    return bool(model.cfg.default_prepend_bos)


def _lens_hook(part: Part, edits: int | None, *, bos: bool) -> Callable:
    def hook(h: Tensor, hook: Any = None) -> Tensor | None:
        if part.identity:
            return None
        tensors = {k: t.to(h.device) for k, t in part.tensors.items()}
        rows: Tensor | slice = slice(None)
        if part.rows is not None:
            rows = part.rows.to(h.device)
            if edits != len(h):
                raise SteerlabError(
                    f"the batch has {len(h)} rows and the stack {edits} edits; give each row one"
                )
        new, first = h.clone(), 1 if bos and h.shape[1] > 1 else 0
        x = h[rows, first:].float()
        new[rows, first:] = (x + CHANGES[part.operator](x, tensors)).to(h.dtype)
        return new

    return hook
