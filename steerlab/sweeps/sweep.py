"""Sweeps over layers, languages, strengths, estimators and operators, whole or raced."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.corpus import Corpus, as_corpus, corpus
from steerlab.core.costs import costs_of
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import need_folder, read_json, write_json
from steerlab.core.progress import is_shown
from steerlab.core.settings import takes
from steerlab.engine.decoding import decode
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.langid import identifier, need_named
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import fit
from steerlab.sweeps.folder import has_rows, need_model, occupied, part
from steerlab.sweeps.grid import ALL, Grid
from steerlab.sweeps.kept import need_directions
from steerlab.sweeps.race import race
from steerlab.sweeps.runner import Runner, Workers, run_locally
from steerlab.sweeps.scoring import Scorer
from steerlab.sweeps.settings import need_name
from steerlab.sweeps.trainings import Trainer


@takes(Grid)
def sweep(
    model: Any = None,
    corpus: Corpus | str | os.PathLike[str] | None = None,
    *,
    grid: Grid | None = None,
    directions: Mapping[str, Directions] | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    out: str | Path | None = None,
    workers: Workers = run_locally,
    retry: bool = False,
    progress: bool | None = None,
    **keys: Any,
) -> pd.DataFrame:
    """Try every way of steering in a grid on every sentence of a split: a table with a row for each
    output and its scores.

    `sweep(model, corpus, layers=[3, 5], targets=["es"])` steers from English to Spanish at two
    layers, along the difference of means and at four strengths. What varies are ways to find a
    direction (`estimators`), ways to apply it (`operators`), layers, strengths and languages; each
    combination is called a cell. Directions come from the corpus' `estimate` split.

    With `out`, a folder, every finished batch is kept: a run that was stopped at any moment goes
    on, several processes may work in it at once, and all end with the same table. A cell that fails
    is left out, with its error in `rows.attrs["failed"]`, and run again with `retry`. With `race`,
    when only the best layer and strength are wanted, settings that fall behind stop early, by
    `joint` or by the score that is named, such as one of your scorers; how far each one went is in
    `rows.attrs["race"]`. What read and judged the rows is in
    `rows.attrs["made_with"]`, for `sl.cite`, and the seconds and tokens that each fit took in
    `rows.attrs["fit"]`, for `sl.table`.

    The trained methods bipo, lm, yapo and reft_r1, and grains, learn from the `estimate` split by
    themselves for each layer and target that is asked for, behind prompts of the form `prompt`,
    with the seed `seed` and the knobs in `training`; with `out` each is kept as it is done.

    Methods of your own need no name: a function from Moments to Directions stands among
    `estimators`, and an `Operator` record or a function from a Direction and a keyword to an Edit
    is the value of its name in `operators`. It may also give changed weights, as `sl.bake` and
    `sl.steer2edit` make them: rows under one such change run by themselves, `site` is "weights",
    and the dose is NaN. Raises `SteerlabError`, before the work, for keys
    that are wrong and for what the model or the corpus lacks.

    Args:
        model: a loaded model, or the name of one: a Hub id, a folder or polyglot, the default.
        corpus: a `Corpus`, or a folder of aligned <iso>.txt files; by default the sentences in the
            package.
        grid: a `Grid` in place of the keys that follow.
        directions: directions that are made already, by the names that rows call them; they are
            run beside the estimators that are asked for, or alone.
        scorers: your own scores, by the names of their columns: each a function from the outputs
            of a batch to as many numbers, more being better; one with a second parameter is given
            their targets too. `sl.table` shows them and chooses by them (`best=`).
        out: a folder that keeps what is finished, and from which the same call goes on.
        workers: who runs the batches, such as a `Ray()` cluster; by default this process.
        retry: run cells again that failed before.
        progress: show on stderr how far it is; by default in a terminal and in a notebook.
    """
    # The name of a model or a corpus is a key of the grid, so that `dtype` and `langs` hold for it.
    if isinstance(model, (str, os.PathLike)):
        keys["model"] = os.fspath(model)
        model = None
    if isinstance(corpus, (str, os.PathLike)):
        keys["corpus"] = os.fspath(corpus)
        corpus = None
    if model is not None:
        need_name(keys)
    if directions is not None:
        keys["directions"] = directions
    if scorers is not None:
        keys["scorers"] = scorers
    grid = Grid.either(grid, keys)
    runner, cells = prepare(grid, model, corpus, out=out, workers=workers, retry=retry)
    title = f"{len(cells)} cells"
    progress = is_shown(progress=progress)
    if grid.race:
        value = grid.race if isinstance(grid.race, str) else "joint"
        raced = race(runner, cells, value=value, seed=grid.seed, title=title, progress=progress)
        rows = raced.rows
        rows.attrs["race"] = raced.settings.to_dict("records")
    else:
        rows = runner.run(cells, title=title, progress=progress)
    if grid.own.scorers:  # for `sl.table`
        rows.attrs["scorers"] = list(grid.own.scorers)
    if costs := costs_of(runner.directions):
        rows.attrs["fit"] = costs  # for `sl.table`
    rows.attrs["made_with"] = {  # for `sl.cite`
        "model": {"name": runner.model.name},
        "corpus": {"name": runner.corpus.name},
        "identifier": runner.identifier.name,
        "judge": grid.judge,
    }
    return rows


def prepare(
    grid: Grid,
    model: Any = None,
    texts: Corpus | None = None,
    *,
    out: str | Path | None = None,
    workers: Workers = run_locally,
    retry: bool = False,
) -> tuple[Runner, list[Cell]]:
    """The runner and the cells of a grid, with the directions fitted.

    Args:
        grid: the settings.
        model: a loaded model; by default the grid's is loaded.
        texts: a corpus; by default the grid's is read.
        out: a folder in which directions and rows are kept; directions are fitted once for all
            processes that work in it.
        workers: who runs the batches; by default this process.
        retry: run cells again that failed before.
    """
    folder = None if out is None else need_folder(out)
    model = _loaded(grid, model)
    model.need_unedited("a sweep")
    texts = _read(grid, texts)
    cells = _cells(grid, model, texts)
    own = grid.own.digests() if folder is not None else {}
    runner = replace(_runner(grid, model, texts, folder), workers=workers, retry=retry)
    need_named(runner.identifier, {cell.target for cell in cells})
    runner.need_scores([grid.split])
    if folder is not None:
        earlier_plan = part(folder / "sweep.json", read_json(folder / "sweep.json"), "plan")
        if grid.batch is None and "rows" in earlier_plan:
            # Another machine would advise other batches, and so do all of it again.
            runner = replace(runner, batch=earlier_plan["rows"])
        _claim(folder, grid, runner, own)
        runner = replace(runner, folder=folder / "rows")
    layers = sorted({cell.layer for cell in cells} - {ALL}) or range(model.n_layers)
    directions = fit(
        model,
        texts,
        grid.estimators,
        layers=layers,
        source=grid.source,
        dictionaries=grid.saes,
        folder=folder,
        own=grid.own,
        trainer=Trainer(grid.targets, grid.prompt, grid.seed, grid.training or {}),
    )
    runner = replace(runner, directions=directions)
    if folder is not None:  # for `progress_of`, which loads no model
        table = {
            runner.key(cell): asdict(cell) | {"rows": len(runner.lines(cell))} for cell in cells
        }
        write_json(folder / "cells.json", table)
    return runner, cells


def forecast(grid: Grid, model: Any = None, texts: Corpus | None = None) -> dict[str, Any]:
    """Estimate what a sweep would take: cells, rows, batches, tokens at most, and seconds.

    The seconds follow from one batch that is run without an edit. They are for one process and the
    whole grid, also where a race will read less; fitting the directions and a judge's time come on
    top.
    """
    model = _loaded(grid, model)
    model.need_unedited("a sweep")
    texts = _read(grid, texts)
    cells = _cells(grid, model, texts)
    runner = _runner(grid, model, texts)
    batches = runner.batches({str(number): cell for number, cell in enumerate(cells)})
    rows = sum(len(batch.rows) for batch in batches)
    largest = max(batches, key=lambda batch: len(batch.rows))
    start = time.monotonic()
    decode(
        model,
        runner.prompts(largest),
        max_new_tokens=grid.new_tokens,
        one_line=grid.one_line,
        batch=runner.batch,
    )
    seconds = time.monotonic() - start
    return {
        "cells": len(cells),
        "rows": rows,
        "batches": len(batches),
        "rows of a batch": runner.batch,
        "prompt tokens": sum(runner.length(batch) for batch in batches),
        "new tokens at most": rows * grid.new_tokens,
        "seconds": seconds * rows / len(largest.rows),
    }


def _cells(grid: Grid, model: Model, texts: Corpus) -> list[Cell]:
    """The cells of a grid; raises, before any work, for what the model or the corpus lacks."""
    cells = grid.cells(texts.langs, model.n_layers)
    if not cells:
        raise SteerlabError(
            f"the corpus has no language beside {grid.source!r}; give targets that it has"
        )
    for layer in {cell.layer for cell in cells} - {ALL}:
        model.need_layer(layer)
    texts.split(grid.split).take(grid.limit)  # raises where there are too few sentences
    for name, directions in grid.own.directions.items():
        _need_own(name, directions, grid, model, texts)
    return cells


def _need_own(name: str, directions: Directions, grid: Grid, model: Model, texts: Corpus) -> None:
    """Raise where given directions lack the model, a language or a layer of the grid."""
    need_directions(name, directions, model)
    if directions.source not in (None, grid.source):
        raise SteerlabError(
            f"directions {name!r} were fitted from {directions.source!r} only, and the source is "
            f"{grid.source!r}; fit again from it, or give source={directions.source!r}"
        )
    for lang in (grid.source, *(grid.targets or texts.langs)):
        if lang not in directions.langs:
            raise SteerlabError(
                f"directions {name!r} are of {' '.join(directions.langs)}, and {lang!r} was asked "
                "for; give source= and targets= of these"
            )
    missing = [layer for layer in grid.layers or () if layer not in directions.layers]
    if missing:
        raise SteerlabError(
            f"directions {name!r} are at layers {', '.join(map(str, directions.layers))}, and "
            f"layer {missing[0]} was asked for; give layers= of these"
        )


def _loaded(grid: Grid, model: Any) -> Model:
    """The grid's model, or the one that is given: `load` makes a loaded one of the package's."""
    if model is None:
        return load(grid.model, revision=grid.revision, dtype=grid.dtype, device=grid.device)
    return load(model)


def _read(grid: Grid, texts: Corpus | None) -> Corpus:
    """The grid's corpus, or the one that is given, with the grid's languages."""
    if texts is None:
        texts = corpus(grid.corpus, grid.langs)
    else:
        texts = as_corpus(texts)  # raises for what is none
        texts = texts if grid.langs is None else texts.select(grid.langs)
    for lang in (grid.source, *(grid.targets or ())):
        texts[lang]  # raises where the corpus has no such language
    return texts


def _runner(grid: Grid, model: Model, texts: Corpus, folder: Path | None = None) -> Runner:
    """The runner of a grid, before its directions are fitted."""
    judge = None
    if grid.judge != "retrieval":
        from steerlab.scores.judges import judge_from

        judge = judge_from(
            grid.judge,
            references=texts.split(grid.split),
            model=model,
            judge_model=grid.judge_model,
            cache=None if folder is None else folder / "replies",
        )
    return Runner(
        model=model,
        corpus=texts,
        directions={},
        identifier=identifier(grid.lid),
        limits={grid.split: grid.limit},
        batch=grid.batch,
        fluency=grid.fluency,
        judge=judge,
        new_tokens=grid.new_tokens,
        one_line=grid.one_line,
        temperature=grid.temperature,
        seed=grid.seed,
        operators=grid.own.operators,
        template=grid.template,
        scorers=grid.own.scorers,
    )


def table_of(out: str | Path, grid: Grid) -> Path:
    """The file of a grid's table in the folder that it ran in: rows.parquet for the first one, and
    another name for each other grid, so that none takes the place of another's."""
    folder = Path(out)
    tables = part(folder / "sweep.json", read_json(folder / "sweep.json"), "tables")
    return folder / str(tables.get(_digest_of(grid), "rows.parquet"))


def _tables(file: Path, earlier: Mapping[str, Any], grid: Grid) -> dict[str, str]:
    """The names of the tables in a folder by the digest of their grids, with this one's."""
    tables = dict(part(file, earlier, "tables"))
    if not tables and "grid" in earlier:  # of before the tables had names
        tables[_digest(earlier["grid"])] = "rows.parquet"
    own = _digest_of(grid)
    return tables | {own: tables.get(own, f"rows-{own}.parquet" if tables else "rows.parquet")}


def _digest_of(grid: Grid) -> str:
    content = grid.model_dump(mode="json")
    if content["training"] is None:  # so that folders of before this key keep their tables
        del content["training"]
    return _digest(content)


def _digest(grid: Any) -> str:
    return hashlib.sha256(json.dumps(grid, sort_keys=True).encode()).hexdigest()[:8]


def _claim(folder: Path, grid: Grid, runner: Runner, own: Mapping[str, str]) -> None:
    """Take a folder that is empty, or that a sweep of the same model made.

    Raises also where a user's function or directions stand under the name of other ones there.
    `own` are their digests by name.
    """
    file = folder / "sweep.json"
    earlier = read_json(file)
    earlier_own = part(file, earlier, "own")
    changed = [name for name in own if earlier_own.get(name, own[name]) != own[name]]
    if changed:
        raise SteerlabError(
            f"{folder} holds rows of another {changed[0]!r}; give yours another name, or another "
            "folder"
        )
    model = runner.model.metadata
    need_model(folder, "a sweep", part(file, earlier, "model"), model)
    # In this order: another process may have come first meanwhile.
    foreign = occupied(folder)
    if foreign and not file.exists() and not has_rows(folder / "rows"):
        raise SteerlabError(f"{folder} holds files, but no sweep; give an empty or a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    corpus = {
        "name": runner.corpus.name,
        "hash": runner.corpus.hash,
        "langs": list(runner.corpus.langs),
    }
    content = {
        "format": 1,
        "grid": grid.model_dump(mode="json"),
        "model": model,
        "corpus": corpus,
        "identifier": runner.identifier.name,
        "plan": runner.plan,
        "tables": _tables(file, earlier, grid),
    }
    all_own = {**earlier_own, **own}
    if all_own:
        content["own"] = all_own
    write_json(file, content)
