"""What to cite for results: BibTeX of the methods, scores, judges and models that made them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.columns import score_records
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json, read_table
from steerlab.core.sources import Source, entry_of
from steerlab.edits import OPERATORS
from steerlab.edits.amplified import RULES
from steerlab.edits.edit import Edit
from steerlab.edits.registry import record_of
from steerlab.engine.grains import SOURCES as ATTRIBUTED
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.estimate import VARIANTS
from steerlab.estimate.units import METHODS
from steerlab.estimate.units.selection import Selection
from steerlab.scores import judges, langid
from steerlab.sweeps.trainings import TRAINED

_CLAS = Source(cites=("gurgurov2026clas",))
_RACE = Source(cites=("jamieson2016best",))
_PACKAGED = Source(no_source="comes with steerlab")
_GEMMA = Source(cites=("gemma2025gemma",))
# What has no record among estimators and operators: it makes weights, a selection alone, or reads
# preferences.
_BESIDE = {
    **ATTRIBUTED,
    "steer2edit": Source(cites=("sun2026steer2edit",)),
    "experts": Source(cites=("bandarkar2026multilingual",)),
    "amplify": RULES["kl"],
}

NAMES = {*VARIANTS, *METHODS, *TRAINED, *OPERATORS, *_BESIDE}  # of what can be cited by its name


def cite(*results: Any) -> str:
    """The BibTeX of all that made some results, with a comment for each method that says which
    entries are its, or why it has none.

    `print(sl.cite(rows))` is for the .bib file of a paper that shows these rows. A method of your
    own is named in a comment, and cites what its record's `cites` holds. Raises `SteerlabError` for
    what says nothing of methods.

    Args:
        results: rows of a sweep or a run, `Directions`, a `Direction`, an `Edit`, a `WeightEdit`,
            a `Selection`, the folder of a run, a sweep or CLaS-Bench, or the name of an estimator
            or an operator; several may be given.
    """
    if not results:
        raise SteerlabError(
            "there is nothing to cite for; give rows, Directions, an Edit or a folder"
        )
    used: dict[str, Source] = {"software steerlab": Source(cites=("steerlab",))}
    for result in results:
        used |= dict(_used(result))
    comments: list[str] = []
    found: dict[str, str] = {}
    for label, source in used.items():
        here = dict(entry_of(cited) for cited in source.cites)
        found |= here
        why = source.no_source or "no source is named"
        comments.append(f"% {label}: {', '.join(here) or f'no entry; {why}'}")
    return "\n".join(comments) + "\n\n" + "\n\n".join(found.values()) + "\n"


def source_of(name: str) -> Source:
    """Where an estimator, a method that chooses units, a training or an operator comes from.

    A variant that names no source has that of its estimator; what is not the package's has none.
    """
    record = VARIANTS.get(name) or METHODS.get(name) or OPERATORS.get(name)
    if record is None:
        unknown = Source(no_source="not of this package")
        return TRAINED.get(name) or _BESIDE.get(name, unknown)
    if name in VARIANTS and not (record.cites or record.no_source):
        record = VARIANTS.get(VARIANTS[name].estimator, record)
    return Source(cites=record.cites, no_source=record.no_source)


def _used(result: Any) -> Iterator[tuple[str, Source]]:
    """What one thing was made with: a label for each, and its source."""
    if isinstance(result, pd.DataFrame):
        yield from _of_rows(result)
    elif isinstance(result, (Directions, Selection)):
        made = result.provenance
        name = result.method if isinstance(result, Selection) else str(made.get("estimator", ""))
        yield f"estimator {name or 'unknown'}", source_of(name)
        yield from _of_read(made)
    elif isinstance(result, Direction):
        yield from _of_read({"model": result.model})
    elif isinstance(result, Edit):
        for part in result.parts:
            record = record_of(part)
            name = next((each for each, of in OPERATORS.items() if of is record), "your own")
            yield f"operator {name}", source_of(name)
        for rule in dict.fromkeys(each.rule for each in result.logits if each is not None):
            yield f"amplified by {rule}", RULES[rule]
        yield from _of_read({"model": result.model})
    elif isinstance(result, WeightEdit):
        made = result.metadata
        name = "steer2edit" if "steer2edit" in made else "bake"
        own = Source(no_source="an edit in the weights; cite what made the edit")
        yield f"weights {name}", _BESIDE.get(name, own)
        yield from _of_read({"model": result.model.metadata})
    elif isinstance(result, str) and result in NAMES:
        kind = "operator" if result in OPERATORS else "estimator"
        yield f"{kind} {result}", source_of(result)
    elif isinstance(result, (str, os.PathLike)):
        yield from _of_folder(Path(result))
    elif isinstance(folder := getattr(result, "folder", None), Path):
        yield from _of_folder(folder)
    else:
        raise SteerlabError(
            f"there is nothing to cite for {type(result).__name__}; give rows, Directions, an "
            "Edit, a Selection, the folder of a run, or the name of a method"
        )


def _of_rows(rows: pd.DataFrame) -> Iterator[tuple[str, Source]]:
    if not {"estimator", "operator"} <= set(rows.columns):
        raise SteerlabError(
            "these rows have no columns estimator and operator, which say what made them; give "
            "rows of a sweep or a run"
        )
    for kind in ("estimator", "operator"):
        for name in rows[kind].astype(str).unique():
            if name not in ("", "none", "unsteered", "prompt"):
                yield f"{kind} {name}", source_of(name)
    for name, score in score_records().items():
        if name in rows and score.cites:
            yield f"score {name}", Source(cites=score.cites)
    made = rows.attrs.get("made_with", {})
    if "race" in rows.attrs:
        yield "race of settings", _RACE
    yield from _of_read(made)


def _of_read(made: Mapping[str, Any]) -> Iterator[tuple[str, Source]]:
    """The model, the sentences, the identifier and the judge, as far as a header names them."""
    judge, identifier = made.get("judge"), made.get("identifier")
    if judge:
        yield f"judge {judge}", judges.source_of(str(judge))
    for each in (identifier, made.get("second_identifier")):
        if each:
            name = str(each).partition("@")[0]
            yield f"identifier {name}", langid.source_of(name)
    corpus = (made.get("corpus") or {}).get("name")
    if corpus:
        other = Source(no_source="cite whoever made these sentences")
        yield f"corpus {corpus}", _PACKAGED if corpus == "parallel" else other
    model = (made.get("model") or {}).get("name")
    if model:
        other = Source(no_source="cite the paper of this model")
        gemma = _GEMMA if "gemma-3" in str(model).lower() else other
        yield f"model {model}", _PACKAGED if model == "polyglot" else gemma


def _of_folder(folder: Path) -> Iterator[tuple[str, Source]]:
    """A run's folder: its rows, and what its manifest, or that of a sweep, says beside them."""
    file = next(
        (f for name in ("manifest", "sweep") if (f := folder / f"{name}.json").is_file()), None
    )
    if file is None:
        raise SteerlabError(
            f"{folder} is no method's name, and holds no run: there is no manifest.json or "
            "sweep.json; give the folder that `steerlab run`, `sweep` or `clas` wrote"
        )
    made = read_json(file)
    settings = made.get("grid") or made.get("settings") or {}
    rows = folder / "rows.parquet"
    if rows.is_file():
        yield from _of_rows(read_table(rows))
    else:
        for kind in ("estimators", "operators"):
            for name in settings.get(kind) or ():
                yield f"{kind[:-1]} {name}", source_of(str(name))
    if "questions" in made:
        yield "protocol CLaS-Bench", _CLAS
    if settings.get("race"):
        yield "race of settings", _RACE
    # Of the judge a folder of CLaS-Bench has a long name; the settings' word says which it is.
    judge = settings.get("judge") or ("retrieval" if "distractors" in made else made.get("judge"))
    yield from _of_read({**made, "judge": judge})
