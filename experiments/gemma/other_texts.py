"""The same question from German, and on a corpus of news.

DiffMean with `add`, layer and strength chosen on dev, beside random directions of the same dose,
the model as it is, and prompts that ask for the language.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gemma_bed import FORM, Bed, pairs, scores, settings

import steerlab as sl
from steerlab.analysis.results import difference
from steerlab.engine.shots import with_number
from steerlab.studies.design import AT_METHOD, Control, Design, Method
from steerlab.studies.main.plan import control_fits
from steerlab.studies.protocol import choose_and_report

NAME, RANDOM = "diffmean", "random isotropic"
LAYERS, STRENGTHS = (4, 9), (0.75, 1.0)
DEV, TEST = 8, 24  # lines
GERMAN = "de"


def german(bed: Bed) -> dict[str, Any]:
    """From German to every other language, English among them."""
    return compared("german", Bed(GERMAN, bed.corpus), bed)


def news(bed: Bed, folder: Path) -> dict[str, Any]:
    """From English on a corpus in a folder, directions made of its own lines; none of its text is
    kept."""
    corpus = sl.corpus(folder, langs=[bed.source, *bed.few])
    found = compared("news", Bed(bed.source, corpus), bed)
    return {"corpus": corpus.name, "estimate lines": len(Bed(bed.source, corpus).estimate)} | found


def compared(job: str, here: Bed, bed: Bed) -> dict[str, Any]:
    """The method and its controls on the languages and lines of `here`, with the model of `bed`."""
    here.__dict__["model"] = bed.model  # loaded once
    fits = {NAME: here.diffmean}
    fits |= {
        f"{RANDOM} {seed}": sl.controls.random(here.diffmean, seed=seed, source=here.source)
        for seed in range(len(control_fits()[RANDOM]))
    }
    runner = replace(here.runner(job, fits), limits={"dev": DEV, "test": TEST})
    report = choose_and_report(runner, design(here), progress=True, log=print)
    tables = report.tables
    return {
        "source": here.source,
        "layers": list(LAYERS),
        "strengths": list(STRENGTHS),
        "dev targets": list(here.few),
        "dev lines": int(report.dev["sentence"].nunique()),
        "targets": list(here.targets),
        "test lines": int(tables[NAME]["sentence"].nunique()),
        "results": {name: scores(rows) for name, rows in tables.items()},
        "differences": {
            name: difference(tables[NAME], rows)["joint"]
            for name, rows in tables.items()
            if name != NAME
        },
        "by target": {
            target: {
                name: float(rows.loc[rows["target"] == target, "joint"].mean())
                for name, rows in tables.items()
            }
            for target in here.targets
        },
    }


def design(here: Bed) -> Design:
    random = Method(name=RANDOM, operator="add", fits=control_fits()[RANDOM])
    return Design(
        methods=(
            Method(name=NAME, operator="add", fits=(NAME,), settings=settings(LAYERS, STRENGTHS)),
        ),
        controls=(Control(method=random, chances=(AT_METHOD,)),),
        prompts={"prompt": "instructed", "fewshot": with_number("fewshot")},
        dev=pairs(here.source, here.few),
        test=pairs(here.source, here.targets),
        form=FORM,
    )
