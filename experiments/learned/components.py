"""Methods that change neurons and heads, beside the trained directions: AUSteer, which scales
neurons by hooks, and Steer2Edit, which writes into the weights."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.edits import Operator
from steerlab.models.counting import counted

NUMBERS, SCALES = (100, 1000, 4000), (0.125, 0.5, 2.0, 8.0, 32.0)  # of AUSteer
RHOS, ALPHAS = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0), (0.01, 0.05, 0.2, 0.5)  # of Steer2Edit
KINDS = ("heads", "neurons", "heads and neurons")
SCORES = ["joint", "in_language", "relevant"]


@dataclass
class Atoms:
    """AUSteer's units, or a control's, by how many are chosen, and what it took to choose them."""

    of: dict[int, Directions]
    seconds: float
    tokens: int
    about: str = ""
    dev: dict[tuple[int, float], pd.Series] = field(default_factory=dict)

    def choose(self, bed: Any) -> tuple[int, float]:
        """What dev chooses: of equals the fewest units and the least factor."""
        for number, directions in self.of.items():
            rows = bed.sweep("dev", {"fit": directions}, {"scale_units": SCALES}, everywhere=True)
            for scale, some in rows.groupby("strength"):
                self.dev[number, float(scale)] = some[SCORES].mean()
        return max(self.dev, key=lambda key: self.dev[key]["joint"])


@dataclass
class Written:
    """What Steer2Edit reached on test, how it was chosen, and what it took to fit."""

    setting: str
    rows: pd.DataFrame
    seconds: float
    tokens: int
    dev: dict[tuple[str, float, float], pd.Series]


def atoms(bed: Any) -> dict[str, Atoms]:
    """AUSteer's units and its controls."""
    begun = time.process_time()
    texts = bed.corpus.split("estimate").take(bed.pairs)
    with counted(bed.model) as count:
        vectors = sl.collect_texts(bed.model, texts, site="mlp_post", read="last")
    tokens = count.tokens
    made: dict[str, dict[int, Directions]] = {"": {}, ", random units": {}, ", shuffled labels": {}}
    for number in NUMBERS:
        chosen = sl.units.austeer(vectors, source=bed.source, number=number)
        of = {
            "": chosen,
            ", random units": sl.units.random_atoms(chosen, seed=bed.seed),
            ", shuffled labels": sl.units.austeer(
                vectors, source=bed.source, number=number, shuffled=bed.seed
            ),
        }
        for name, each in of.items():
            made[name][number] = sl.units.momenta(each, vectors, source=bed.source)
    seconds = time.process_time() - begun
    about = _about(made[""][NUMBERS[0]], vectors, bed)
    return {f"austeer{name}": Atoms(each, seconds, tokens, about) for name, each in made.items()}


def _about(directions: Directions, vectors: Any, bed: Any) -> str:
    """What the chosen units are like, in numbers."""
    index = directions.langs.index(bed.target)
    rates = directions.extra["rates"][index]
    start = vectors.of(bed.source).mean(0)
    step = vectors.of(bed.target).mean(0) - start
    on = rates != 0
    away = (rates * start * step)[on] < 0
    ratio = float((step.abs() / start.abs().clamp(min=1e-30))[on].median())
    perfect = directions.provenance["settings"]["perfect"][bed.target]
    return (
        f"{perfect:,} of {rates.numel():,} units change the same way in all pairs; of the {int(on.sum())} that are "
        f"chosen first, {float(away.float().mean()):.0%} are below 0 in {bed.source}, so that the published factor moves them away "
        f"from {bed.target}, and in the median one the languages differ by {ratio:.1f} times its value in {bed.source}: a factor cannot switch on "
        "what is near 0"
    )


def written(bed: Any, means: Directions) -> Iterator[tuple[str, Written]]:
    """Steer2Edit at the setting that dev chooses, and a random direction there."""
    begun = time.process_time()
    texts = bed.corpus.split("estimate").take(bed.pairs)
    with counted(bed.model) as count:
        readings = [
            sl.collect(bed.model, texts, site=site, also=[], progress=False)
            for site in ("attn_z", "mlp_post")
        ]
    seconds = time.process_time() - begun
    tokens = count.tokens
    dev: dict[tuple[str, float, float], pd.Series] = {}
    # Of equals the first is chosen: the weaker change.
    for rho, alpha, kind in itertools.product(RHOS[::-1], ALPHAS[::-1], KINDS):
        rows = _under(bed, means, readings, "dev", (alpha, kind, rho))
        if rows is not None:
            dev[kind, alpha, rho] = rows[SCORES].mean()
    kind, alpha, rho = max(dev, key=lambda key: dev[key]["joint"])
    setting = f"{kind}, ρ {rho:g}, α {alpha:g}"
    for name, seed in (("steer2edit", None), ("steer2edit, random direction", bed.seed)):
        rows = _under(bed, means, readings, "test", (alpha, kind, rho), seed)
        if rows is not None:
            yield name, Written(setting, rows, seconds, tokens, dev)


def of_dev(units: Atoms, weights: Written, plain: pd.DataFrame) -> list[str]:
    """What dev chose from, as tables."""
    said = [
        f"In each cell, of `dev`: joint, in language, in the sense; the unsteered model has {_cell(plain[SCORES].mean())}. The highest "
        "joint is chosen, and of equals the weaker change: fewer units and a smaller factor, a larger ρ. –: no component "
        "agrees by more than ρα.",
        "",
        f"| `austeer`: units | {' | '.join(f'× {scale:g}' for scale in SCALES)} |",
        "|---|" + "---|" * len(SCALES),
    ]
    for number in NUMBERS:
        cells = [_cell(units.dev.get((number, scale))) for scale in SCALES]
        said.append(f"| {number:,} | {' | '.join(cells)} |")
    said += [
        "",
        f"| `steer2edit`: components, α | {' | '.join(f'ρ {rho:g}' for rho in RHOS)} |",
        "|---|" + "---|" * len(RHOS),
    ]
    for kind, alpha in itertools.product(KINDS, ALPHAS):
        cells = [_cell(weights.dev.get((kind, alpha, rho))) for rho in RHOS]
        said.append(f"| {kind}, {alpha:g} | {' | '.join(cells)} |")
    return said


def _cell(scores: pd.Series | None) -> str:
    return "–" if scores is None else ", ".join(f"{scores[name]:.2f}" for name in SCORES)


def components_said(units: Atoms, weights: Written) -> list[str]:
    """What the tables of dev show, in words."""
    said: list[str] = []
    for name, dev, more in (
        ("austeer", units.dev, f" {units.about}."),
        ("steer2edit", weights.dev, f" The best joint: {_best_of_kinds(weights)}."),
    ):
        half = [each for each in dev.values() if each["joint"] >= 0.5]
        broken = [
            each for each in dev.values() if each["in_language"] >= 0.5 and each["joint"] < 0.5
        ]
        still = [
            each for each in dev.values() if each["in_language"] < 0.5 and each["relevant"] >= 0.5
        ]
        neither = len(dev) - len(half) - len(broken) - len(still)
        said.append(
            f"- `{name}` on dev: of {len(dev)} settings {len(half)} say half of the lines or more in the language and in the "
            f"sense, {len(broken)} have the language without the sense, {len(still)} the sense without the language, and "
            f"{neither} neither.{more}"
        )
    return said


def _best_of_kinds(weights: Written) -> str:
    said = []
    for kind in KINDS:
        of_kind = {key: each["joint"] for key, each in weights.dev.items() if key[0] == kind}
        best = max(of_kind, key=lambda key: of_kind[key])
        said.append(f"{of_kind[best]:.2f} of {kind} (ρ {best[2]:g}, α {best[1]:g})")
    return ", ".join(said)


def _under(
    bed: Any,
    means: Directions,
    readings: list[Any],
    split: str,
    setting: tuple[float, str, float],
    seed: int | None = None,
) -> pd.DataFrame | None:
    """What the model with changed weights says; None where no component agrees enough."""
    alpha, kind, rho = setting
    try:
        weights = sl.steer2edit(
            bed.model,
            *readings,
            source=bed.source,
            target=bed.target,
            rho_heads=rho if "heads" in kind else None,
            rho_neurons=rho if "neurons" in kind else None,
            alpha=alpha,
            random=seed,
        )
    except sl.SteerlabError:
        return None
    record = Operator(
        make=lambda direction, *, rho: weights,
        knob="rho",
        unit="1/√d",
        grid=(rho,),
        whole=True,  # it asks no direction, and is at all layers
        no_twin="its random direction is the control",
    )
    rows: pd.DataFrame = bed.sweep(split, {"fit": means}, {"steer2edit": record})
    return rows
