"""Every estimator with `add` on polyglot, chosen on dev, reported on test beside the controls; and
the spectra.

`python experiments/estimators.py` writes docs/estimators.md, build/estimators/ (rows, tables, the
figure) and docs/images/spectrum.svg. Finished batches are kept in build/estimators/rows: the same
command goes on after a stop.
"""

import os
import resource
import time
from pathlib import Path

import pandas as pd
import torch
from figures.redraw import drawn

import steerlab as sl
from steerlab import estimate, figures
from steerlab.analysis.choices import Setting
from steerlab.analysis.comparisons import comparisons
from steerlab.analysis.results import result
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate import VARIANTS
from steerlab.studies.design import (
    OWN_CHOICE,
    Control,
    Design,
    Method,
    spread_over_families,
)
from steerlab.studies.main.fitting import control_directions
from steerlab.studies.main.plan import DEV_TARGETS, STRENGTHS, control_fits, spread_layers
from steerlab.studies.main.settings import TEST_LINES
from steerlab.studies.main.study import DEV_LINES
from steerlab.studies.protocol import choose_and_report
from steerlab.sweeps.runner import Runner

OUT, PAGE = Path("build/estimators"), Path("docs/estimators.md")
SOURCE, OPERATOR = "en", "add"
CONTROLS = ("random isotropic", "random covariance", "shuffled", "wrong")
SHOWN = ("de", "ru", "ja")
HEAD = """# Estimators

Every estimator and variant with the operator `add` on the packaged model: layer ({layers}) and strength ({strengths}
natural gaps) chosen by `joint` on {dev} dev lines and {targets} targets, reported on {test} test lines and {all}
targets, n = {n} outputs a row. Layers, strengths and lines are those of `make run`, whose table [Results](results.md) has; here
every control chooses on the methods' {targets} targets and is shown at that choice, there on half of them, and at the
main method's setting where it is stronger so. Brackets are 95 % intervals over sentences, rows in italics are controls.
`joint` is the share in the right language with the own sentence recognised among 32, by chrF; the dose is how far the
edit moves the residual stream where it acts, over its length. Written by `python experiments/estimators.py`.
"""
SPECTRA = """
## The spectrum of paired differences

For each target the singular values of the differences between translations, at {layers} layers: the rank that the
eigengap gives, the effective rank, the share of the squared spectrum inside the rank (mass), and the stability of that
subspace under a bootstrap of the pairs, all averaged over the window. *Deranged* pairs each source sentence with
another's translation: what stays is the difference of the means and of the sentences, not what translation keeps.

"""


def main() -> None:
    model, corpus = sl.load(), sl.corpus()
    also = sorted({need for variant in VARIANTS.values() for need in variant.needs} | {"scatter"})
    part = corpus.split("estimate")
    moments = sl.collect(model, part, source=SOURCE, also=also)
    fits, costs, refused = fitted(moments)
    targets = tuple(lang for lang in corpus.langs if lang != SOURCE)
    runner = Runner(
        model=model,
        corpus=corpus,
        directions=fits | control_directions(fits["diffmean"], moments, source=SOURCE),
        identifier=sl.scores.identifier(),
        limits={"dev": DEV_LINES, "test": TEST_LINES},
        folder=OUT / "rows",
    )
    layers = spread_layers(model.n_layers)
    few = spread_over_families(targets, DEV_TARGETS)
    report = choose_and_report(
        runner, design(fits, few, targets, layers), fluency=True, progress=True, log=print
    )
    # In the order of their names, controls among the estimators; the model as it is comes last.
    order = [*sorted(report.choices), "unsteered", "prompt"]
    rows = {name: report.tables[name] for name in order}
    pairs = [
        (name, other)
        for name in fits
        for other in ("diffmean", *CONTROLS, "unsteered", "prompt")
        if name != other
    ]
    tests = comparisons(rows, pairs, family=f"{len(pairs)} comparisons of this table")
    head = {
        "layers": ", ".join(map(str, layers)),
        "strengths": ", ".join(map(str, STRENGTHS[OPERATOR])),
        "dev": DEV_LINES,
    }
    head |= {
        "targets": len(few),
        "all": len(targets),
        "test": rows["diffmean"]["sentence"].nunique(),
        "n": len(rows["diffmean"]),
    }
    parts = [
        HEAD.format(**head),
        table(rows, fits, report.choices, costs, tests),
        notes(refused, tests),
    ]
    deranged = sl.collect(model, part, source=SOURCE, also=["pairs"], derange=0)
    parts.append(spectrum(moments, deranged))
    PAGE.write_text("\n".join(parts), "utf-8")
    print(PAGE)


def fitted(
    moments: Moments,
) -> tuple[dict[str, Directions], dict[str, tuple[float, float]], dict[str, str]]:
    """Each variant's directions, the seconds and bytes that its fit took, and why some cannot be
    had here."""
    fits, costs, refused = {}, {}, {}
    for name in VARIANTS:
        try:
            start = time.perf_counter()
            fits[name] = estimate.fit(name, moments, source=SOURCE)
            seconds = time.perf_counter() - start
            costs[name] = seconds, memory(name, moments)
        except SteerlabError as error:
            refused[name] = str(error)
    return fits, costs, refused


def memory(name: str, moments: Moments) -> float:
    """Bytes that a fit adds at most to the memory of a process forked for it."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            torch.set_num_threads(1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            estimate.fit(name, moments, source=SOURCE)
            os.write(
                write, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode()
            )
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as told:
        return float(told.read()) * 1024


def design(
    fits: dict[str, Directions],
    few: tuple[str, ...],
    targets: tuple[str, ...],
    layers: tuple[int, ...],
) -> Design:
    """Every estimator, and every control with a choice of its own, on the main run's grid."""
    settings = tuple((layer, strength) for layer in layers for strength in STRENGTHS[OPERATOR])
    names = control_fits()
    return Design(
        methods=tuple(
            Method(name=name, operator=OPERATOR, fits=(name,), settings=settings) for name in fits
        ),
        controls=tuple(
            Control(
                method=Method(name=name, operator=OPERATOR, fits=names[name], settings=settings),
                chances=(OWN_CHOICE,),
            )
            for name in CONTROLS
        ),
        prompts={"prompt": "instructed"},
        dev=tuple((SOURCE, target) for target in few),
        test=tuple((SOURCE, target) for target in targets),
    )


def table(
    rows: dict[str, pd.DataFrame],
    fits: dict[str, Directions],
    choices: dict[str, Setting],
    costs: dict[str, tuple[float, float]],
    tests: dict,
) -> str:
    made = []
    for name, part in rows.items():
        found, (layer, strength) = result(part), choices.get(name, (None, None))
        mine = name in fits
        told = {
            "estimator": name if mine else f"*{name}*",
        }
        told |= {
            "layer": "" if layer is None else f"{layer}",
            "strength": "" if strength is None else f"{strength:g}",
        }
        scores = {"joint": "joint", "LFS": "lfs", "relevance": "relevance", "S": "score"}
        told |= {label: spelled(found[key]) for label, key in scores.items()}
        told |= {
            "bits per byte": spelled(found["bits_per_byte_ratio"]),
            "dose": f"{found['dose']:.2f}",
        }
        pair = tests["pairs"].get(name, {}).get("diffmean")
        told["p against DiffMean"] = f"{pair['p_holm']:.2g}" if pair else ""
        told["cosine to DiffMean"] = (
            f"{cosine(fits[name], fits['diffmean'], layer):.2f}"
            if mine and layer is not None
            else ""
        )
        told["fit, s"], told["MB"] = (
            (f"{costs[name][0]:.2f}", f"{costs[name][1] / 1e6:.0f}") if mine else ("", "")
        )
        made.append(told)
    frame = pd.DataFrame(made)
    frame.to_csv(OUT / "table.csv", index=False)
    return markdown(frame)


def cosine(fit: Directions, main: Directions, layer: int) -> float:
    """The mean over targets of the cosine of two estimators' directions at a layer."""
    sides = [
        [each.between(SOURCE, iso).at(layer).unit[0] for iso in main.langs if iso != SOURCE]
        for each in (fit, main)
    ]
    return float((torch.stack(sides[0]) * torch.stack(sides[1])).sum(-1).mean())


def notes(refused: dict[str, str], tests: dict) -> str:
    seen = [
        pair["detects_holm"]
        for told in tests["pairs"].values()
        for pair in told.values()
        if pair["detects_holm"]
    ]
    told = [
        "p: paired sign-flip tests of `joint` by sentence, beside controls of several seeds at least "
        "Student's t over sentences and seeds, Holm's correction over "
        f"{tests['comparisons']} comparisons "
        "(each estimator against DiffMean, the controls and the prompt); "
        f"{tests['sentences']} sentences show a difference of {min(seen):.2f} to {max(seen):.2f} "
        "four times in five.",
        "MB: what the fit adds to a process that holds the statistics. S is CLaS-Bench's harmonic "
        "mean of LFS and "
        "relevance.",
        "Rows that agree to the digit have the same vectors by construction: `leace`, `leace target`, "
        "`ellipsoid`, `disentangle tokens` and `diffmean against` the source those of `diffmean` "
        "(the first three hold more, which operators of their own use), `disentangle` those of "
        "`diffmean last`.",
    ]
    told += [
        f"Not possible with this model's languages: {name} ({reason})."
        for name, reason in refused.items()
    ]
    return "\n" + "\n".join(f"- {line}" for line in told) + "\n"


def spectrum(moments: Moments, deranged: Moments) -> str:
    """The eigengap's spectrum per target: rank, effective rank, mass, window; beside pairs that
    are no translations."""
    sides = {"pairs": estimate.spectra(moments), "deranged": estimate.spectra(deranged)}
    tables = [estimate.spectrum_table(found, kind=kind) for kind, found in sides.items()]
    frame = pd.concat(tables, ignore_index=True)
    frame.to_csv(OUT / "spectra.csv", index=False)
    made = []
    for kind, found in sides.items():
        for iso in sorted({each.target for each in found}):
            mine = [each for each in found if each.target == iso]
            where = estimate.window(mine, target=iso)
            inside = [each for each in mine if each.layer in where]

            def mean(name, inside=inside):
                return sum(float(getattr(each, name)) for each in inside) / len(inside)

            told = {
                "target": iso,
                "pairs": "translations" if kind == "pairs" else "deranged",
                "window": span(where),
            }
            told |= {
                "rank": f"{mean('rank'):.1f}",
                "effective rank": f"{mean('effective_rank'):.1f}",
            }
            told |= {"mass": f"{mean('mass'):.2f}", "stability": f"{mean('stability'):.2f}"}
            made.append(told)
    draw(frame)
    text = SPECTRA.format(layers=len(moments.layers))
    order = sorted(made, key=lambda row: (row["target"], row["pairs"] == "deranged"))
    return (
        text + markdown(pd.DataFrame(order)) + "\n\n![The singular values](images/spectrum.svg)\n"
    )


def draw(frame: pd.DataFrame) -> None:
    """The spectra of three targets, translations beside deranged pairs."""
    figure = figures.spectrum(frame, targets=SHOWN)
    figures.write(figure, OUT / "spectrum", data=frame)
    try:
        drawn("spectrum", frame[frame["target"].isin(SHOWN)])
    except SteerlabError as error:
        print(error)


def span(layers: tuple[int, ...]) -> str:
    return f"{layers[0]}-{layers[-1]}" if layers else "none"


if __name__ == "__main__":
    main()
