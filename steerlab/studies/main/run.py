"""The main job as one call: settings in, a finished run folder out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.core.corpus import Corpus
from steerlab.core.display import Shown, View, bars, counted
from steerlab.core.errors import SteerlabError
from steerlab.core.files import need_folder, read_json, read_table
from steerlab.core.settings import takes
from steerlab.figures.style import readable
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.studies.main.page import write_report
from steerlab.studies.main.settings import Settings
from steerlab.studies.main.study import Study
from steerlab.sweeps.settings import need_name


@dataclass(frozen=True, repr=False)
class RunResult(Shown):
    """The folder of a finished run, and what is in it.

    It stands for the folder's path wherever one is asked for, as in `Path(result)`.
    """

    folder: Path

    def __fspath__(self) -> str:
        return str(self.folder)

    def _view(self) -> View:
        summary = self.summary
        results = summary.get("results", {})
        joint = {name: float(found["joint"][0]) for name, found in results.items()}
        return View(
            f"Run {self.folder}",
            f"{counted(len(results), 'method and control', 'methods and controls')} on "
            f"{summary.get('model')}, "
            f"{counted(int(summary.get('n_sentences', 0)), 'test sentence')}",
            {"report": str(self.report)},
            ("method", "layer", "strength", "joint", "95 %"),
            [
                (
                    readable(name),
                    found["layer"],
                    found["strength"],
                    f"{found['joint'][0]:.2f}",
                    f"{found['joint'][1]:.2f} to {found['joint'][2]:.2f}",
                )
                for name, found in results.items()
            ],
            (lambda: bars(joint)) if joint else None,
            "joint, in the order of the table",
        )

    @property
    def report(self) -> Path:
        """The page that shows the run: report.html, which needs nothing beside it."""
        return self.folder / "report.html"

    @property
    def rows(self) -> pd.DataFrame:
        """One row for each output."""
        return read_table(self.folder / "rows.parquet")

    @property
    def summary(self) -> dict[str, Any]:
        """The table of the report, with intervals, choices and tests."""
        return read_json(self.folder / "summary.json")

    @property
    def manifest(self) -> dict[str, Any]:
        """What decided the run: settings, model, corpus, versions."""
        return read_json(self.folder / "manifest.json")


@takes(Settings)
def run(
    settings: Settings | None = None,
    *,
    out: str | os.PathLike[str],
    command: Sequence[str] = (),
    progress: bool = True,
    **keys: Any,
) -> RunResult:
    """Find directions, choose a layer and a strength on dev, report on test beside controls, draw
    it all.

    `run(model="path/to/model", corpus="path/to/sentences", langs=["en", "de"], out="runs/mine")`
    does what `steerlab run` does in the folder `out`, or finishes what was begun there. Afterwards
    it holds report.html, rows.parquet, rows.csv, summary.json, manifest.json, directions/ and
    figures/. `model` may also be a model that is loaded, and `corpus` a `Corpus`; the manifest then
    keeps their names. Keys that are wrong, and a folder of other settings or of other things, raise
    `SteerlabError` before the work.

    Args:
        settings: a `Settings` in place of the keys that follow.
        out: the run folder, which need not exist.
        command: what the manifest and the report say that the run was started by.
        progress: show on stderr what is being done.
    """
    folder = need_folder(out)
    model = _loaded(keys)
    texts = _read(keys)
    settings = Settings.either(settings, keys)
    try:
        study = Study(
            settings, folder, model=model, texts=texts, command=command, progress=progress
        )
        folder = study.run()
        write_report(folder)
    except OSError as error:
        raise SteerlabError(
            f"could not write the run folder {out} ({error}); finished cells are kept: make room "
            "and run again"
        ) from error
    return RunResult(folder)


def _loaded(keys: dict[str, Any]) -> Model | None:
    """A model among the keys that is loaded already; its name takes its place, in place."""
    if isinstance(keys.get("model", ""), (str, os.PathLike)):
        return None
    need_name(keys)
    model = load(keys["model"])
    model.need_unedited("a run")  # here, before a folder is claimed
    keys["model"] = model.name
    return model


def _read(keys: dict[str, Any]) -> Corpus | None:
    """A corpus among the keys that is read already; its name takes its place, in place."""
    if not isinstance(keys.get("corpus"), Corpus):
        return None
    texts: Corpus = keys["corpus"]
    keys["corpus"] = texts.name
    return texts
