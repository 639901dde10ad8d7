"""CLaS-Bench from beginning to end: directions, a choice on dev questions, answers, scores
beside controls."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock
from rich.console import Console

import steerlab.estimate.controls as controls
from steerlab.analysis.choices import choose
from steerlab.core.corpus import Corpus, corpus, texts
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import need_ending, write_json, write_table, write_text
from steerlab.core.settings import takes
from steerlab.engine.prompts import prompt, read_form
from steerlab.models.loading import load
from steerlab.scores.judges import Judge
from steerlab.scores.langid import identifier
from steerlab.studies.clas.plan import (
    RANDOM,
    SEEDS,
    UNSTEERED,
    Plan,
    Setting,
    fit_name,
    layers_of,
    pairs_of,
)
from steerlab.studies.clas.reading import questions
from steerlab.studies.clas.scoring import differences, table
from steerlab.studies.clas.settings import Settings
from steerlab.studies.clas.tables import markdown, show
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.folder import claim
from steerlab.sweeps.runner import Runner, Workers, run_locally


class Run:
    """One run in one folder; each method is a step."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        judge: Judge | None,
        command: Sequence[str],
        progress: bool,
        workers: Workers = run_locally,
    ) -> None:
        self.settings, self.folder, self.progress, self.workers = (
            settings,
            folder,
            progress,
            workers,
        )
        self.console = Console(stderr=True, quiet=not progress, markup=False, highlight=False)
        if judge is None and not settings.judge:
            raise SteerlabError(
                "CLaS-Bench needs a judge of relevance: give --judge and the URL of an "
                "OpenAI-compatible endpoint such "
                "as http://localhost:8000/v1, with --judge-model, or another judge's word"
            )
        self.questions = questions(settings.questions)
        self.identifier = identifier(settings.lid)
        pairs = pairs_of(settings, self.questions, self.identifier)
        self.texts = _texts(settings).select(dict.fromkeys(iso for pair in pairs for iso in pair))
        self.model = load(
            settings.model,
            revision=settings.revision,
            device=settings.device,
            dtype=settings.dtype,
        )
        self.plan = Plan(settings, pairs, layers_of(settings, self.model.n_layers))
        for layer in self.plan.layers:
            self.model.need_layer(layer)
        for form in (
            self.plan.controls.values()
        ):  # one that the tokenizer cannot make is told before the texts are read
            prompt(self.model.tokenizer, form, "?", source=pairs[0][0], target=pairs[0][1])
        self.judge = self._judge() if judge is None else judge
        self._claim(command)

    def run(self) -> Path:
        """All steps in order; gives the folder."""
        fits = self._fits()
        runner = Runner(
            self.model,
            self.questions,
            fits,
            self.identifier,
            {
                "dev": self.settings.dev_limit,
                "test": self.settings.limit,
                "all": self.settings.limit,
            },
            self.folder / "cells",
            self.settings.batch,
            judge=self.judge,
            new_tokens=self.settings.new_tokens,
            one_line=read_form(self.settings.prompt)[0] == "line",
            workers=self.workers,
            retry=True,
        )
        dev, choices, split = pd.DataFrame(), self.plan.choices, "all"
        if choices is None:
            dev, split = self._answer("choosing on dev", runner, self.plan.dev()), "test"
            choices = choose(dev)
        rows = self._answer(
            f"answering ({split} questions)", runner, self.plan.test(choices, split)
        )
        rows = same_language(rows, self.plan)
        self._report(dev, rows, choices, split, fits)
        return self.folder

    # ------------------------------------------------------------------------------------ the steps

    def _judge(self) -> Judge:
        from steerlab.scores.judges import judge_from

        return judge_from(
            str(self.settings.judge),
            references=self.questions,
            model=self.model,
            judge_model=self.settings.judge_model,
            cache=self.folder / "replies",
        )

    def _fits(self) -> dict[str, Directions]:
        """Directions by `fit_name`, kept in the folder and found there again, and the random
        ones of equal dose."""
        sources = list(dict.fromkeys(source for source, _ in self.plan.across))
        files = {
            fit_name(name, source): (name, source, self._file(fit_name(name, source)))
            for source in sources
            for name in self.settings.estimators
        }
        (self.folder / "directions").mkdir(exist_ok=True)
        with FileLock(self.folder / "directions" / "lock", fallback_to_soft=False):
            for source in sources:
                todo = [
                    (name, file)
                    for name, at, file in files.values()
                    if at == source and not file.exists()
                ]
                if not todo:
                    continue
                self.console.print(
                    f"{self.model.name}: reading {self.texts.name} in {len(self.texts.langs)} "
                    "languages"
                )
                options: dict[str, Any] = {
                    "layers": self.plan.layers,
                    "source": source,
                    "progress": self.progress,
                }
                for name, fit in fitted(
                    self.model, self.texts, [name for name, _ in todo], **options
                ).items():
                    fit.save(dict(todo)[name])
        fits = {told: Directions.load(file) for told, (_, _, file) in files.items()}
        for told in sorted({fit_name(self.settings.estimators[0], source) for source in sources}):
            fits |= {
                f"{RANDOM} {seed} {told}": controls.random(fits[told], seed=seed)
                for seed in range(SEEDS)
            }
        return in_units(fits, self.settings)

    def _file(self, fit: str) -> Path:
        """Where directions are kept: named by the fit and by what else decides it."""
        made = [self.model.fingerprint, str(self.model.dtype), self.texts.hash, self.plan.layers]
        told = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]
        return self.folder / "directions" / f"{fit.replace(' ', '-')}-{told}.safetensors"

    def _answer(self, title: str, runner: Runner, cells: list[Cell]) -> pd.DataFrame:
        self.console.print(f"{title}: {len(cells)} cells, judged by {self.judge.name}")
        rows = runner.run(cells, title=title, progress=self.progress)
        if failed := rows.attrs.get("failed"):
            told = next(iter(failed.values()))
            raise SteerlabError(
                f"{len(failed)} of {len(cells)} cells failed, the first with: {told}; what was "
                "finished is kept: mend "
                "it and run the same command again"
            )
        return rows

    # ---------------------------------------------------------------------------------- the results

    def _report(
        self,
        dev: pd.DataFrame,
        rows: pd.DataFrame,
        choices: dict[str, Setting],
        split: str,
        fits: dict[str, Directions],
    ) -> None:
        scored = table(rows, seed=self.settings.seed)
        first = next(iter(self.plan.methods))
        everything = pd.concat([dev, rows], ignore_index=True) if len(dev) else rows
        everything["same"] = everything["source"] == everything["target"]
        write_table(self.folder / "rows.parquet", everything)
        write_table(self.folder / "scores.csv", scored)
        summary = {
            "format": 1,
            "model": self.model.name,
            "questions": {
                "name": self.questions.name,
                "split": split,
                "n": int(rows["sentence"].nunique()),
            },
            "pairs": len(self.plan.pairs),
            "same-language pairs, unsteered": len(self.plan.pairs) - len(self.plan.across),
            "judge": self.judge.name,
            "identifier": self.identifier.name,
            "identifier reads the questions": self._ceiling(),
            "choices": {
                name: {"layer": layer, "strength": strength}
                for name, (layer, strength) in choices.items()
            },
            "unit of strength": self.plan.unit,
            "natural gap": self._gap(fits, choices[first][0]),
            "scores": scored.astype(object).where(scored.notna(), None).to_dict("records"),
            "differences": differences(rows, first, seed=self.settings.seed),
        }
        write_json(self.folder / "summary.json", summary)
        notes = self._notes(summary, rows)
        write_text(self.folder / "table.md", markdown(scored, title=self.model.name, notes=notes))
        show(scored, notes, console=self.console)

    def _ceiling(self) -> dict[str, float]:
        """How many of the questions themselves the identifier reads as their language, in
        percent."""
        langs = dict.fromkeys(target for _, target in self.plan.pairs)
        found = {iso: self.identifier.identify(self.questions[iso]) for iso in langs}
        return {
            iso: 100 * sum(name == iso for name in read) / len(read) for iso, read in found.items()
        }

    def _gap(self, fits: dict[str, Directions], layer: int) -> float:
        """The mean distance between the means of a pair's two languages at a layer."""
        gaps = []
        for source, target in self.plan.across:
            fit = fits[fit_name(self.settings.estimators[0], source)].at(layer)
            ends = [fit.means[fit.langs.index(iso), 0] for iso in (source, target)]
            gaps.append(float((ends[1] - ends[0]).norm()))
        return sum(gaps) / len(gaps)

    def _notes(self, summary: dict[str, Any], rows: pd.DataFrame) -> list[str]:
        same, questions = summary["same-language pairs, unsteered"], summary["questions"]
        chosen = "; ".join(
            f"{name} layer {told['layer']}, {told['strength']:g}"
            for name, told in summary["choices"].items()
        )
        how = (
            "given, reported on all"
            if questions["split"] == "all"
            else "chosen on dev, reported on the other"
        )
        notes = [
            f"{questions['n']} questions of {questions['name']}, {summary['pairs']} pairs; "
            f"settings {how} questions: "
            f"{chosen} (unit: {summary['unit of strength']}).",
            f"Judge: {summary['judge']}. Identifier: {summary['identifier']}.",
        ]
        if same:
            notes.append(
                f"{same} pairs are one language with itself: they have no direction, so that every "
                "method's rows there "
                "are the unsteered ones. They count in pooled, as in the paper, and not in across."
            )
        if unread := int(rows["rating"].isna().sum()):
            notes.append(
                f"{unread} of {len(rows)} ratings could not be read; OR drops them, joint counts "
                "none of them."
            )
        return notes

    # ----------------------------------------------------------------------------------- the folder

    def _claim(self, command: Sequence[str]) -> None:
        """Take a folder that is empty or that the same settings made, and write what the run is."""
        told = self.settings.model_dump(mode="json")
        claim(self.folder, told)
        packages = ("torch", "transformers", "numpy", "fasttext-predict")
        about = {
            "format": 1,
            "command": list(command),
            "settings": told,
            "model": self.model.metadata,
            "questions": {
                "name": self.questions.name,
                "hash": self.questions.hash,
                "langs": list(self.questions.langs),
            },
            "identifier": self.identifier.name,
            "judge": self.judge.name,
            "layers": list(self.plan.layers),
            "packages": {name: importlib.metadata.version(name) for name in packages},
        }
        write_json(self.folder / "manifest.json", about)


def _texts(settings: Settings) -> Corpus:
    return texts(settings.texts) if settings.texts else corpus(settings.corpus)


def in_units(fits: dict[str, Directions], settings: Settings) -> dict[str, Directions]:
    """The directions in the unit that the settings count strengths in: CLaS-Bench's alphas are
    absolute steps."""
    if not settings.alphas:
        return fits
    return {name: replace(fit, strength_unit="absolute") for name, fit in fits.items()}


def same_language(rows: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The rows, and under each steered method's name the unsteered ones of one language with
    itself.

    Such a pair has a zero DiffMean vector, whose strength would have no unit. The paper counts
    these pairs too.
    """
    unsteered = rows[(rows["method"] == UNSTEERED) & (rows["source"] == rows["target"])]
    copies = (
        [unsteered.assign(method=name) for name in (*plan.methods, RANDOM)]
        if len(unsteered)
        else []
    )
    order = {name: place for place, name in enumerate((*plan.methods, RANDOM, *plan.controls))}
    joined = pd.concat([rows, *copies], ignore_index=True)
    return joined.sort_values(
        "method", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )


@takes(Settings)
def run(
    settings: Settings | None = None,
    *,
    out: str | Path,
    judge: Judge | str | None = None,
    command: Sequence[str] = (),
    progress: bool = True,
    workers: Workers = run_locally,
    **keys: Any,
) -> Path:
    """Do the benchmark in the folder `out`, or finish what was begun there; gives the folder.

    Afterwards it holds rows.parquet (one row per answer), scores.csv, summary.json, table.md,
    manifest.json and directions/.

    Args:
        settings: a `Settings` in place of the keys that follow.
        out: the run folder, which need not exist.
        judge: a judge that is made, in place of the one that the settings name; or its word, as
            there.
        command: what the manifest says that the run was started by.
        progress: show on stderr what is being done.
        workers: who runs the batches, such as a `Ray()` cluster; by default this process.
    """
    folder = need_ending(out)
    if isinstance(judge, str):
        keys["judge"] = judge
        judge = None
    settings = Settings.either(settings, keys)
    try:
        return Run(
            settings,
            folder,
            judge=judge,
            command=command,
            progress=progress,
            workers=workers,
        ).run()
    except OSError as error:
        raise SteerlabError(
            f"could not write the run folder {out} ({error}); finished answers are kept: make room "
            "and run again"
        ) from error
