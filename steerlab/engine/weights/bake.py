"""Baking: an edit of activations as a change of weights, where there is an exact one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from steerlab.core.corpus import corpus, need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES
from steerlab.edits.edit import Edit, need_edit
from steerlab.edits.part import Part
from steerlab.edits.windows import shortened
from steerlab.engine.prompts import encode
from steerlab.engine.weights.affine import Affine, affine_of, no_change, shift_of
from steerlab.engine.weights.blocks import Half, NewBlock, merged, need_place
from steerlab.engine.weights.change import Change
from steerlab.engine.weights.nearest import apart, mean_step
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import load
from steerlab.models.writers import (
    INPUTS,
    OF_ATTENTION,
    gain_of,
    need_weights,
    root_mean_square,
    tables,
    writer,
)

TEXTS = 6  # packaged sentences on which a baked edit is compared with its hooks
CLOSE = 2e-4  # standard deviations of logits that single precision may be away
EVERYWHERE = "everywhere"


def bake(
    model: Any,
    edit: Edit,
    *,
    exact: bool = True,
    more_blocks: bool = False,
    texts: Sequence[str] | None = None,
) -> WeightEdit:
    """An edit of activations as a change of weights that does the same.

    Whatever is affine, T h = A h + c, can be written into the linear map beside it: what an output
    projection gives (W <- A W, b <- A b + c) at `attn_out`, `mlp_out`, `mlp_pre`, or what it reads
    (W <- W A, b <- b + W c) at `attn_z` and `mlp_post`. In the residual stream a shift is a bias of
    the map that wrote last, or of the embedding; a removal is exact where it starts at the
    embedding (`resid_pre` of layer 0) and goes on at every place up to its last, since a stream
    without a part needs only writers without it (directional ablation, arXiv 2406.11717).

    Weights act at every position, so that the edit has to too: `positions="everywhere"`. The
    result is compared with the hooks on some texts, in `WeightEdit.apart`. Raises for an edit that
    has no exact form, with how far the nearest one is.

    Args:
        model: what `load` takes.
        edit: of `sl.add` and the like.
        exact: whether only what is exact is made. Without, what is not affine or has no place
            becomes its mean step on the texts, and what acts at some positions acts at all.
        more_blocks: whether a shift that stands behind a norm, as in the stream of Gemma 2 and 3 or
            OLMo 2, gets a block of its own there, which adds it exactly: the result is a network
            with more layers, for `WeightEdit.save` and `build`. Each costs the time of a block. In
            bfloat16 each coordinate of the shift is right to three roundings (1.2 %), however small
            it is; a hook's has one.
        texts: what the two are compared on, and mean steps are taken of; by default sentences of
            the package.
    """
    held = need_weights(load(model), "bake")
    need_edit(edit)
    if edit.rows is not None:
        raise SteerlabError("a stack is many edits, and a model has one set of weights; bake one")
    edit.changes(held)  # raises for an edit of another model
    parts = [part for part in edit.parts if not part.identity]
    if not parts:
        raise SteerlabError("this edit changes nothing, so that there is nothing to bake")
    lines = _lines(texts)
    ids = encode(held.tokenizer, lines)
    maker = _Maker(held, ids, more_blocks=more_blocks)
    changes = maker.changes_of(parts)
    made = WeightEdit(
        changes,
        held,
        metadata={"baked": edit.digest, "edit": repr(edit)},
        blocks=merged(maker.blocks),
    )
    found = apart(held, edit, made, ids)
    if exact and maker.reasons:
        raise SteerlabError(
            f"{maker.reasons[0]}, so it has no exact form in weights; the nearest is {found} from "
            "the hooks, and exact=False gives it"
        )
    single = torch.finfo(held.dtype).eps < 1e-6
    if exact and single and found.largest > CLOSE:
        raise SteerlabError(
            f"the weights of {held.name} do not say what this edit does: they are {found} from the "
            "hooks; the architecture does something to what its maps write that steerlab does not "
            "know (exact=False gives them)"
        )
    return replace(made, apart=found)


def _lines(texts: Sequence[str] | None) -> list[str]:
    if texts is not None:
        return need_texts(texts, "bake")
    held = corpus().split("dev").select(["en", "de"]).take(TEXTS // 2)
    return [line for lang in held.langs for line in held[lang]]


class _Maker:
    """Makes the changes of one edit, and keeps the reasons for which some are not exact."""

    def __init__(self, model: HuggingFaceModel, ids: Sequence[Sequence[int]], *, more_blocks: bool):
        self.model = model
        self.ids = ids
        self.more_blocks = more_blocks
        self.blocks: list[NewBlock] = []
        self.reasons: list[str] = []
        self.before = no_change(model.width)  # what was done to the stream at the place before
        self.tables = tables(model)

    def changes_of(self, parts: Sequence[Part]) -> tuple[Change, ...]:
        """The changes of all parts, in the order in which a pass meets them."""
        made: list[Change] = []
        for layer, site in self._places(parts):
            here = [part for part in parts if (part.layer, part.site) == (layer, site)]
            here += _at_the_end_before(parts, layer, site)
            if site.startswith("resid_"):
                made += self._in_stream(layer, site, here)
            elif here:
                made += self._in_block(layer, site, here)
        return tuple(made)

    def _places(self, parts: Sequence[Part]) -> list[tuple[int, str]]:
        """Every place of the stream, and those inside blocks at which there is a part."""
        busy = {(part.layer, part.site) for part in parts}
        last = max(layer for layer, _ in busy)
        places = []
        for layer in range(last + 1):
            for site in SITES:
                middle = self.model.anatomy.streams[layer].resid_mid is not None
                passes = site == "resid_post" or (site == "resid_mid" and middle)
                if (layer, site) in busy or passes or (site == "resid_pre" and not layer):
                    places.append((layer, site))
        # What the next block reads is what this one gave.
        return [each for each in places if each[1] != "resid_pre" or not each[0]]

    def _affine(self, part: Part, width: int) -> Affine:
        """What a part does; of what is not affine, its mean step."""
        name = f"{part.operator} at {part.site} of layer {part.layer}"
        if part.positions != EVERYWHERE:
            self.reasons.append(
                f"{name} acts at the positions {shortened(part.positions)!r}, and weights act at "
                "all, how a text begins among them (give positions='everywhere')"
            )
        if part.gate is not None:
            self.reasons.append(f"{name} is behind the gate {part.gate.name}")
        found = affine_of(part, width)
        if found is None:
            self.reasons.append(f"{name} is no affine map of what is there")
            found = shift_of(mean_step(self.model, part, self.ids))
        return found

    def _together(self, parts: Sequence[Part], width: int) -> Affine:
        whole = no_change(width)
        for part in parts:
            whole = self._affine(part, width).after(whole)
        return whole

    def _in_block(self, layer: int, site: str, parts: Sequence[Part]) -> list[Change]:
        whole = self._together(parts, self.model.width_of(site))
        why = _named(parts)
        if site in INPUTS:
            place = writer(self.model, layer, site)
            return [Change(place.name, "input", whole.left, whole.right, whole.shift, why)]
        return self._output(layer, site, whole, why)

    def _output(self, layer: int, site: str, whole: Affine, why: str) -> list[Change]:
        """A map that gives T y for y, or a new block that adds a shift behind a norm."""
        place = writer(self.model, layer, site)
        if place.norm is not None:
            half: Half = "attention" if site in OF_ATTENTION else "MLP"
            if self.more_blocks and not whole.rank:
                need_place(self.model, layer)
                self.blocks.append(NewBlock(layer, half, whole.shift, why))
                return []
            hint = "" if whole.rank else " (more_blocks=True gives the shift a block of its own)"
            self.reasons.append(
                f"behind {place.name} stands a norm, and {why} acts behind that: the norm takes "
                f"away the length of what is written, and has no bias{hint}"
            )
            norm = self.model.hf.get_submodule(place.norm)
            gain = gain_of(norm, len(whole.shift), self.model.device)
            size = root_mean_square(self.model, self.ids, place.norm)
            # Of a norm y/rms(y) · g: what stands before it, with the mean of rms(y).
            whole = replace(whole, shift=whole.shift * size).scaled(gain)
        if place.fused:
            pad = torch.nn.functional.pad
            whole = Affine(
                pad(whole.left, (0, 0, 0, place.fused)),
                pad(whole.right, (0, place.fused)),
                pad(whole.shift, (0, place.fused)),
            )
        return [Change(place.name, "output", whole.left, whole.right, whole.shift, why)]

    def _in_stream(self, layer: int, site: str, parts: Sequence[Part]) -> list[Change]:
        """The changes for what is done to the stream at a place, given what was done at the one
        before.

        If the stream comes from T' and T only shifts what T' gives, T(h + y) = h + s + A y: the
        stream stays as it is, and what is written on the way is changed.
        """
        whole = self._together(parts, self.model.width)
        why = _named(parts)
        if site == "resid_pre":
            self.before = whole
            return self._embedded(whole, why) if parts else []
        if whole.rank and not whole.keeps(self.before):
            self.reasons.append(
                f"{why} changes what earlier layers wrote, and no weight reads the stream without "
                "the norm of its block; it is exact where it starts at resid_pre of layer 0 and "
                "goes on at every place of the stream (sl.edits.ablate_stream)"
            )
            step = sum(
                (mean_step(self.model, part, self.ids) for part in parts), start=torch.tensor(0.0)
            )
            whole = shift_of(step)
        shift = whole.of(self.before.shift) - self.before.shift
        self.before = whole if parts else no_change(self.model.width)
        if not parts:
            return []
        changes: list[Change] = []
        middle = self.model.anatomy.streams[layer].resid_mid is not None
        sites = ["resid_mid"] if site == "resid_mid" else ["mlp_out"]
        if site == "resid_post" and not middle and whole.rank:
            sites = ["attn_out", "mlp_out"]  # side by side
        for number, each in enumerate(sites):
            own = replace(
                whole, shift=shift if number == len(sites) - 1 else torch.zeros_like(shift)
            )
            changes += self._output(layer, each, own, why)
        return changes

    def _embedded(self, whole: Affine, why: str) -> list[Change]:
        """Embeddings whose sum is T of what it was."""
        if not self.tables:
            raise SteerlabError(
                f"what the first block of {self.model.name} reads is no sum of embeddings that "
                f"steerlab can tell, so that {why} has no place in the weights"
            )
        changes = []
        for number, table in enumerate(self.tables):
            shift = whole.shift / table.scale if not number else torch.zeros_like(whole.shift)
            changes.append(Change(table.name, "rows", whole.left, whole.right, shift, why))
        return changes


def _at_the_end_before(parts: Sequence[Part], layer: int, site: str) -> list[Part]:
    """The parts at the beginning of the next block, which is the end of this one."""
    if site != "resid_post":
        return []
    return [part for part in parts if (part.layer, part.site) == (layer + 1, "resid_pre")]


def _named(parts: Sequence[Part]) -> str:
    """Parts in words."""
    return " and ".join(f"{part.operator} at {part.site} of layer {part.layer}" for part in parts)
