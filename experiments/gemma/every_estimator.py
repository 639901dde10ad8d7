"""Every estimator with `add` and with `rotate`: layer and strength raced on dev, reported on test.

Estimators that give the same vectors on this model are run once, under the first one's name.
"""

from dataclasses import replace
from typing import Any

import torch
from gemma_bed import FORM, Bed, pairs, scores, settings

import steerlab as sl
from steerlab import estimate
from steerlab.analysis.comparisons import comparisons
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate import VARIANTS
from steerlab.studies.design import Design, Method
from steerlab.studies.protocol import choose_and_report, run_cells
from steerlab.sweeps.grid import method_name
from steerlab.sweeps.race import race

LAYERS = (4, 8)
MIDDLE = (8,)  # of these, those in the middle third of the 18
LARGEST = 100  # of 120 pairs; by default, 12, a rank could not be more than the claim allows
OPERATORS = {"add": (0.75, 1.0), "rotate": (0.75, 1.0)}
DEV, LINES = 8, 12  # sentences of dev and of test
RACED = 4  # targets of dev
MAIN = "diffmean"
AT = (8, 1.0)  # where LDA's shrinkage is looked at; set beforehand, not chosen by the result
SHRINKAGES = (0.01, 0.1, 0.5, 0.9)  # beside Ledoit and Wolf's
SAME = 1 - 1e-4  # the least cosine, over targets and layers, of vectors that count as the same


def run(bed: Bed) -> dict[str, Any]:
    needs = sorted({need for record in VARIANTS.values() for need in record.needs})
    moments = sl.collect(bed.model, bed.estimate, layers=LAYERS, also=needs, source=bed.source)
    fits, refused = fitted(moments, bed.source)
    same = alike(fits, bed.source)
    distinct = {name: fit for name, fit in fits.items() if name not in same}
    limits = {"dev": DEV, "test": LINES}
    runner = replace(bed.runner("every_estimator", distinct), limits=limits)
    report = choose_and_report(
        runner,
        design(distinct, bed),
        run_dev=lambda runner, cells: race(runner, cells, title="racing", progress=True).rows,
        progress=True,
        log=print,
    )
    names = [name for name in report.tables if name != "unsteered"]
    family = [(name, MAIN) for name in names if name != MAIN]
    tests = comparisons(report.tables, family, family="all others less DiffMean with add")
    return {
        "layers": list(LAYERS),
        "strengths": {name: list(values) for name, values in OPERATORS.items()},
        "dev lines": int(report.dev["sentence"].nunique()),
        "dev targets": list(bed.few[:RACED]),
        "targets": list(bed.few),
        "test lines": tests["sentences"],
        "outputs on dev": len(report.dev),
        "of the whole grid": outputs_of(len(distinct)),
        "same": same,
        "refused": refused,
        "comparisons": tests["comparisons"],
        "eigengap ranks": middle_ranks(moments),
        "shrinkage": by_shrinkage(moments, bed),
        "results": {
            name: scores(report.tables[name])
            | {"p_holm": tests["pairs"].get(name, {}).get(MAIN, {}).get("p_holm")}
            | {"difference": tests["pairs"].get(name, {}).get(MAIN, {}).get("difference")}
            | {"cosine": cosine(name, fits, report.choices[name][0], bed.source)}
            for name in names
        },
    }


def middle_ranks(moments: Moments) -> list[int]:
    """The eigengap's rank of every target at the layers in the middle third of the depth, looked
    for among so many values that a large one can be found."""
    found = estimate.spectra(moments.at(*MIDDLE), largest=LARGEST, bootstraps=0)
    return [each.rank for each in found]


def by_shrinkage(moments: Moments, bed: Bed) -> dict[str, Any]:
    """LDA at one layer and strength with more and more of its covariance replaced by the identity,
    at whose end it is DiffMean.

    It asks why LDA steers so badly here. Its vector is S⁻¹(mean_t - mean_s), a filter that *reads*
    a language best; what a language *adds* is S times that, the difference of the means. The two
    are one only where S is near the identity.
    """
    layer, strength = AT
    place = moments.layers.index(layer)
    values = torch.linalg.eigvalsh(moments.covariance()[place]).clamp(min=0)
    fits = {"lda": estimate.lda(moments)}
    fits |= {f"lda {a:g}": estimate.lda(moments, shrinkage=a) for a in SHRINKAGES}
    fits |= {MAIN: estimate.diffmean(moments)}
    runner = replace(bed.runner("shrinkage", fits), limits={"dev": DEV, "test": LINES})
    cells = [
        cell
        for name in fits
        for cell in Method(
            name=name, operator="add", fits=(name,), settings=((layer, strength),)
        ).cells([(layer, strength)], pairs(bed.source, bed.few), split="test", form=FORM)
    ]
    rows = run_cells(runner, cells, title="LDA by shrinkage", progress=True, log=print)
    return {
        "layer": layer,
        "strength": strength,
        "largest eigenvalue": float(values[-1] / values.sum()),
        "effective rank": float(values.sum() ** 2 / values.square().sum()),
        "results": {
            name: scores(rows[rows["method"] == name])
            | {"cosine": cosine(name, fits, layer, bed.source)}
            for name in fits
        },
    }


def outputs_of(estimators: int) -> int:
    """How many outputs every setting on every line of dev would be."""
    grid = len(LAYERS) * sum(map(len, OPERATORS.values()))
    return grid * estimators * RACED * DEV


def fitted(moments: Moments, source: str) -> tuple[dict[str, Directions], dict[str, str]]:
    """Each variant's directions, and why some cannot be had here."""
    fits, refused = {}, {}
    for name in VARIANTS:
        try:
            fits[name] = estimate.fit(name, moments, source=source)
        except SteerlabError as error:
            refused[name] = str(error)
    return fits, refused


def alike(fits: dict[str, Directions], source: str) -> dict[str, str]:
    """The names whose vectors are those of an earlier one, and its name."""
    first: dict[str, torch.Tensor] = {}
    same: dict[str, str] = {}
    for name, fit in fits.items():
        vectors = shifts(fit, source)
        for other, theirs in first.items():
            near = torch.nn.functional.cosine_similarity(vectors, theirs, dim=-1).min() > SAME
            if near and torch.allclose(vectors.norm(dim=-1), theirs.norm(dim=-1), rtol=1e-3):
                same[name] = other
                break
        else:
            first[name] = vectors
    return same


def shifts(fit: Directions, source: str) -> torch.Tensor:
    """[target layer width], what one natural gap adds."""
    made = []
    for target in fit.langs:
        if target != source:
            direction = fit.between(source, target)
            made.append(direction.unit * direction.gap[:, None])
    return torch.stack(made).double()


def cosine(name: str, fits: dict[str, Directions], layer: int, source: str) -> float:
    """The mean over targets of the cosine to DiffMean's directions at a layer."""
    estimator = name.removesuffix("_rotate")
    a, b = (shifts(fits[each].at(layer), source) for each in (estimator, MAIN))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=-1).mean())


def design(fits: dict[str, Directions], bed: Bed) -> Design:
    """Each estimator with each operator; DiffMean with `add` is first, and so the main one."""
    methods = [
        Method(
            name=method_name(name, operator),
            operator=operator,
            fits=(name,),
            settings=settings(LAYERS, strengths),
        )
        for name in fits
        for operator, strengths in OPERATORS.items()
    ]
    return Design(
        methods=tuple(methods),
        dev=pairs(bed.source, bed.few[:RACED]),
        test=pairs(bed.source, bed.few),
        form=FORM,
    )
