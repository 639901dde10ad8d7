"""What an edit does to every language, not only to its own: rises of cross-entropy, and which way round is harder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

import steerlab.batches as batches
from steerlab.branching import branch
from steerlab.corpora import Corpus
from steerlab.edits import Edit, Part, stack
from steerlab.evaluation import cross_entropy
from steerlab.inference import holm, paired_test
from steerlab.intervals import by_sentence, paired_difference
from steerlab.model import load
from steerlab.prompts import encode, pad
from steerlab.scores import need_columns
from steerlab.terms import SteerlabError

__all__ = ["Dominance", "asymmetry", "dominance", "doses", "effect_matrix", "language_effects", "random_like"]

SALT = 20_261_121  # as in `controls`: no one else's generator of seed 0 draws the same numbers
EDIT, CONTROL = "edit", "control"
_EXACT = 5040  # permutations of the labels that are all tried: those of 7 languages
_TRIES = 8  # a scale fits at once where the dose is in proportion to it, as that of `add` and of one layer's `ablate`
_SAME = 1e-12  # means nearer than this agree, up to rounding
_CLOSE = 0.02  # of the dose that a control shall have


def language_effects(
    model: Any,
    corpus: Corpus,
    edits: Mapping[str, Edit],
    *,
    controls: Mapping[str, Edit] | None = None,
    batch: int | None = None,
) -> pd.DataFrame:
    """How much each edit raises the cross-entropy of each language's sentences: a row for each edit and sentence.

    `edits` and `controls`: by the language that each is meant for; a control is an edit of the same dose that knows no
    language, such as `random_like(model, texts, edits["de"])`. Columns: `edit` (that language), `kind` ("edit" or
    "control"), `language`, `sentence` (its number in the corpus), `unsteered` and `nats`, the mean nats per token
    without and under the edit, `rise` = nats - unsteered, and `dose`, the edit's ‖Δh‖ / ‖h‖ over all texts. Give text
    that the edits were not fitted on.
    """
    model = load(model)
    named = [(EDIT, name, edit) for name, edit in edits.items()]
    if not named:
        raise SteerlabError("effects were asked of no edit; give a mapping from languages to edits")
    named += [(CONTROL, name, edit) for name, edit in (controls or {}).items()]
    given = [edit for _, _, edit in named]
    dose = doses(model, [text for iso in corpus.langs for text in corpus[iso]], given, batch=batch).tolist()
    parts = []
    for iso in corpus.langs:
        plain, *steered = cross_entropy(model, corpus[iso], [Edit(()), *given], batch=batch).double()
        numbers = corpus.numbers if corpus.aligned else [f"{iso} {place}" for place in range(len(plain))]
        for (kind, name, _), nats, size in zip(named, steered, dose, strict=True):
            told = {"edit": name, "kind": kind, "language": iso, "sentence": list(numbers), "dose": size}
            parts.append(pd.DataFrame({**told, "unsteered": plain, "nats": nats, "rise": nats - plain}))
    return pd.concat(parts, ignore_index=True)


def effect_matrix(rows: pd.DataFrame, *, kind: str = EDIT, value: str = "rise") -> pd.DataFrame:
    """The mean of `language_effects`' rows, languages down and edits across, in their order.

    Where there are controls, a last column `control` has the mean over all of them; `kind="control"` shows each.
    """
    need_columns(rows, "effect_matrix", "edit", "kind", "language", value)
    known = rows[np.isfinite(rows[value].to_numpy(float))]
    chosen = known[known["kind"] == kind]
    if chosen.empty:
        raise SteerlabError(f"there are no rows of the kind {kind!r}; the kinds are {', '.join(rows['kind'].unique())}")
    table = chosen.pivot_table(index="language", columns="edit", values=value, sort=False)
    table = table.reindex(index=rows["language"].unique(), columns=chosen["edit"].unique())
    controls = known[known["kind"] == CONTROL]
    if kind == EDIT and len(controls):
        table[CONTROL] = controls.groupby("language")[value].mean()
    return table


@dataclass(frozen=True)
class Dominance:
    """Whether edits hurt their own language most.

    `share`: of the edits, those whose largest rise is that of their own language; `chance`: 1 / number of languages.
    `difference`: mean rise of own languages less that of all others, with its 95 % interval, in nats per token; `p`:
    the share of labellings of the edits whose difference is at least as large, of `labellings`.
    """

    share: float
    chance: float
    difference: float
    low: float
    high: float
    p: float
    labellings: int


def dominance(
    rows: pd.DataFrame, *, kind: str = EDIT, draws: int = 9_999, resamples: int = 2000, seed: int = 0
) -> Dominance:
    """Diagonal dominance of the edits of `language_effects`, or of the `kind="control"`, over languages that have one.

    The interval resamples sentences, each with all its languages and edits. The permutation null gives the edits'
    labels to one another: all n! ways for n of 7 or fewer, else `draws` random ones, p = (1 + hits) / (1 + draws). It
    keeps how strong each edit is and how fragile each language.
    """
    need_columns(rows, "dominance", "edit", "kind", "language", "sentence", "rise")
    isos = [iso for iso in rows.loc[rows["kind"] == kind, "edit"].unique() if iso in set(rows["language"])]
    if len(isos) < 2:
        raise SteerlabError(
            f"dominance needs two edits or more that are named by a language of the text "
            f"({', '.join(rows['language'].unique())}); the kind {kind!r} has {', '.join(isos) or 'none'}"
        )
    edits = rows[(rows["kind"] == kind) & rows["edit"].isin(isos) & rows["language"].isin(isos)]
    square = effect_matrix(edits, kind=kind).loc[isos, isos].to_numpy()
    if not np.isfinite(square).all():
        raise SteerlabError("some edit has no finite rise in some language; give every edit every language's text")
    labels, exact = _labellings(len(isos), draws, seed)
    null = square[labels, np.arange(len(isos))].mean(1)
    hits = int((null >= np.trace(square) / len(isos) - _SAME).sum())
    p = hits / len(labels) if exact else (1 + hits) / (1 + len(labels))
    share = float((square.argmax(0) == np.arange(len(isos))).mean())
    return Dominance(share, 1 / len(isos), *_diagonal(edits, resamples, seed), p, len(labels))


def _labellings(count: int, draws: int, seed: int) -> tuple[Int[np.ndarray, "labelling edit"], bool]:
    """Ways to label the edits, `[labelling edit]`, and whether these are all."""
    if math.factorial(count) <= _EXACT:
        return np.array(list(permutations(range(count)))), True
    random = np.random.default_rng(seed)
    return np.array([random.permutation(count) for _ in range(draws)]), False


def _diagonal(edits: pd.DataFrame, resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean rise of own languages less that of others, with its interval."""
    known = edits[np.isfinite(edits["rise"].to_numpy(float))]
    own = (known["edit"] == known["language"]).to_numpy()
    sides = [(part["rise"].to_numpy(float), part["sentence"].to_numpy()) for part in (known[own], known[~own])]
    strata = known.loc[own, "language"].to_numpy()
    return paired_difference(*sides[0], *sides[1], strata=strata, resamples=resamples, seed=seed)


# -------------------------------------------------------------------------------------------- random controls


@torch.inference_mode()
def doses(
    model: Any, texts: Sequence[str], edits: Sequence[Edit], *, batch: int | None = None
) -> Float[Tensor, " edit"]:
    """The mean dose ‖Δh‖ / ‖h‖ of each edit over all the positions of the texts that it touches; 0 for no edit."""
    model = load(model)
    ids, count, edit = encode(model.tokenizer, texts), len(edits), stack(edits)
    if not edit.parts:
        return torch.zeros(count)
    rows = [(text, number) for text in range(len(ids)) for number in range(count)]
    tokens, joins = [ids[text] for text, _ in rows], edit.joins(range(count), model.n_layers)
    depth = [joins[number] for _, number in rows]

    def work(chosen: Sequence[int]) -> None:
        names, prompts, joined = [rows[row][1] for row in chosen], [tokens[row] for row in chosen], None
        if model.branches and model.attachments == 1:  # this edit's alone: another one is of whole passes
            prompts, joined = branch(prompts, [depth[row] for row in chosen], names, model.device)
        told, mask = pad(prompts, model.tokenizer.pad_token_id, model.device)
        model.rows = torch.tensor(names, device=model.device) if joined is None else torch.full_like(told[:, 0], -1)
        try:
            model.forward(told, mask, last=True, branch=joined)
        finally:
            model.rows = None

    with edit.on(model) as touched:
        batches.run(batches.plan(model, tokens, depth, batch=batch), work, touched.mark, touched.undo)
    return touched.doses(count)


def random_like(model: Any, texts: Sequence[str], edit: Edit, *, seed: int = 0, batch: int | None = None) -> Edit:
    """An edit like this one in random directions, of the same dose over these texts: what any push of its size does.

    Same operators, layers and ranks. `add` takes a random vector of the same length, `ablate` a random subspace,
    `rotate` a random second axis; the fraction or the angle is then scaled until the dose agrees within 2 %, since a
    random direction holds less of the activations than a language's. What cannot reach the dose raises.
    """
    model = load(model)
    if not edit.parts:
        raise SteerlabError("there is no random control of an edit that does nothing; give one with parts")
    scale = 1.0
    for _ in range(_TRIES):
        made = _randomised(edit, seed, scale)
        wanted, found = doses(model, texts, [edit, made], batch=batch).tolist()
        if abs(found - wanted) <= _CLOSE * wanted:
            return made
        scale *= wanted / found if found else math.inf
        if not math.isfinite(scale):
            break
    raise SteerlabError(
        f"no random edit reached the dose {wanted:.3g} (the last had {found:.3g}); take a weaker edit or fewer layers, "
        "or compare with controls.random"
    )


def _randomised(edit: Edit, seed: int, scale: float) -> Edit:
    random = torch.Generator().manual_seed(SALT + seed)
    return replace(edit, parts=tuple(_random_part(part, random, scale) for part in edit.parts))


def _random_part(part: Part, random: torch.Generator, scale: float) -> Part:
    old = {name: tensor.cpu() for name, tensor in part.tensors.items()}
    draw = lambda like: torch.randn(like.shape, generator=random)  # noqa: E731
    new: dict[str, Tensor] = {}
    if part.operator == "add":
        shift = draw(old["shift"])
        new = {"shift": scale * shift * old["shift"].norm(dim=-1, keepdim=True) / shift.norm(dim=-1, keepdim=True)}
    elif part.operator == "ablate":
        filled = old["basis"].any(-1, keepdim=True)  # a stack fills smaller subspaces up with zeros
        basis = torch.linalg.qr(draw(old["basis"]).mT)[0].mT * filled
        new = {"basis": basis, "fraction": scale * old["fraction"]}
    elif part.operator == "rotate":
        first, second = old["first"], draw(old["second"])
        second = second - (second * first).sum(-1, keepdim=True) * first
        new = {"first": first, "second": second / second.norm(dim=-1, keepdim=True), "angle": scale * old["angle"]}
    else:
        raise SteerlabError(f"there is no random control of the operator {part.operator!r}; use controls.random")
    return replace(part, tensors=new)


# ------------------------------------------------------------------------------------------------- asymmetry


def asymmetry(
    rows: pd.DataFrame, *, value: str = "joint", by: Sequence[str] = ("method",), seed: int = 0
) -> pd.DataFrame:
    """From a to b against from b to a: a line for each group of `by` and pair of languages that has both.

    `rows`: tidy, with `source`, `target`, `sentence` and `value`, one setting for each group and direction. `forward`
    (a to b, in alphabetical order) and `backward` with 95 % intervals; `difference` = forward - backward, on the `n`
    sentences that both have; `p` of a paired permutation test by sentence, and `p_holm` corrected over the table.
    """
    by = list(by)
    need_columns(rows, "asymmetry", "source", "target", "sentence", value, *by)
    table = []
    for names, part in rows.groupby(by, sort=False):
        ways = {(str(a), str(b)): way for (a, b), way in part.groupby(["source", "target"], sort=True)}
        pairs = [(a, b) for a, b in ways if a < b and (b, a) in ways]
        table += [
            dict(zip(by, names, strict=True)) | {"a": a, "b": b} | _pair(ways[a, b], ways[b, a], value, seed)
            for a, b in pairs
        ]
    if not table:
        told = ", ".join(sorted({f"{a} to {b}" for a, b in zip(rows["source"], rows["target"], strict=True)})[:6])
        raise SteerlabError(f"no pair of languages was run both ways ({told}); run each target as a source too")
    found = pd.DataFrame(table)
    tested = found["p"].notna()
    found.loc[tested, "p_holm"] = holm(found.loc[tested, "p"].tolist()) if tested.any() else math.nan
    return found


def _pair(forward: pd.DataFrame, backward: pd.DataFrame, value: str, seed: int) -> dict[str, Any]:
    finite = [side[np.isfinite(side[value].to_numpy(float))] for side in (forward, backward)]
    shared = set(finite[0]["sentence"]) & set(finite[1]["sentence"])
    sides = [side[side["sentence"].isin(shared)] for side in finite]
    told = [(side[value].to_numpy(float), side["sentence"].to_numpy()) for side in sides]
    nothing = (math.nan,) * 3
    found: dict[str, Any] = {"n": len(shared)}
    for name, side in zip(("forward", "backward"), told, strict=True):
        found |= _named(name, by_sentence(*side, seed=seed) if shared else nothing)
    found |= _named("difference", paired_difference(*told[0], *told[1], seed=seed) if shared else nothing)
    return found | {"p": paired_test(*told[0], *told[1], seed=seed).p if len(shared) > 1 else math.nan}


def _named(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
