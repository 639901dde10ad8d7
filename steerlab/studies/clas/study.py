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
from safetensors.torch import load_file, save_file
from torch import Tensor

import steerlab.estimate.controls as controls
from steerlab.analysis.choices import Setting
from steerlab.core.corpus import Corpus, corpus, texts
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import (
    need_folder,
    read_json,
    replacing,
    write_json,
    write_table,
    write_text,
)
from steerlab.core.settings import takes
from steerlab.engine.collect import collect
from steerlab.engine.prompts import prompt, read_form
from steerlab.models.loading import load
from steerlab.scores.judges import DISTRACTORS, Judge
from steerlab.scores.judges.ready import need_ready
from steerlab.scores.langid import identifier
from steerlab.studies.clas.plan import (
    RANDOM,
    Plan,
    fit_name,
    layers_of,
    pairs_of,
    random_names,
)
from steerlab.studies.clas.reading import questions
from steerlab.studies.clas.scoring import differences, table
from steerlab.studies.clas.settings import Settings
from steerlab.studies.clas.tables import markdown, show
from steerlab.studies.protocol import choose_and_report
from steerlab.sweeps.cell import UNSTEERED
from steerlab.sweeps.fits import fitted
from steerlab.sweeps.folder import claim, need_model
from steerlab.sweeps.kept import keep, kept
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
        self.settings = settings
        self.folder = folder
        self.progress = progress
        self.workers = workers
        self.console = Console(stderr=True, quiet=not progress, markup=False, highlight=False)
        if judge is None and not settings.judge:
            raise SteerlabError(
                "CLaS-Bench needs a judge of relevance: give --judge and the URL of an "
                "OpenAI-compatible endpoint such as http://localhost:8000/v1, with --judge-model, "
                "or another judge's word"
            )
        self.questions = questions(settings.questions)
        self.identifier = identifier(settings.lid)
        pairs = pairs_of(settings, self.questions, self.identifier)
        self.texts = _texts(settings).select(dict.fromkeys(lang for pair in pairs for lang in pair))
        self.model = load(
            settings.model,
            revision=settings.revision,
            device=settings.device,
            dtype=settings.dtype,
        )
        self.model.need_unedited("CLaS-Bench")
        self.plan = Plan(settings, pairs, layers_of(settings, self.model.n_layers))
        for layer in self.plan.layers:
            self.model.need_layer(layer)
        for form in self.plan.forms.values():
            # One that the tokenizer cannot make raises here, before the texts are read.
            source, target = pairs[0]
            tokenizer, template = self.model.tokenizer, settings.template
            prompt(tokenizer, form, "?", source=source, target=target, template=template)
        self._claim()
        # Last, since a judge may be far away and slow to answer.
        self.judge = self._judge() if judge is None else judge
        need_ready(self.judge, DISTRACTORS)
        self._write_manifest(command)

    def run(self) -> Path:
        """All steps in order; gives the folder."""
        directions = self._directions()
        runner = Runner(
            model=self.model,
            corpus=self.questions,
            directions=directions,
            identifier=self.identifier,
            limits={
                "dev": self.settings.dev_limit,
                "test": self.settings.limit,
                "all": self.settings.limit,
            },
            folder=self.folder / "cells",
            batch=self.settings.batch,
            judge=self.judge,
            new_tokens=self.settings.new_tokens,
            template=self.settings.template,
            one_line=read_form(self.settings.prompt)[0] == "line",
            workers=self.workers,
            retry=True,
        )
        # Where nothing is chosen, no question has to be kept apart from the report.
        split = "test" if self.plan.choices is None else "all"
        self.console.print(f"judged by {self.judge.name}")
        report = choose_and_report(
            runner,
            self.plan.design,
            choices=self.plan.choices,
            split=split,
            progress=self.progress,
            log=self.console.print,
        )
        rows = same_language(report.test, self.plan)
        self._report(report.dev, rows, report.choices, split, directions)
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

    def _directions(self) -> dict[str, Directions]:
        """Directions by `fit_name`, kept in the folder and found there again, and the random
        ones of equal dose."""
        sources = list(dict.fromkeys(source for source, _ in self.plan.across))  # each once
        # What is one for all sources has one name, and so one entry: it is read with the last one.
        wanted = {
            fit_name(name, source): (name, source)
            for source in sources
            for name in self.settings.estimators
        }
        files = {fit: self._file(fit) for fit in wanted}
        (self.folder / "directions").mkdir(exist_ok=True)
        with FileLock(self.folder / "directions" / "lock", fallback_to_soft=False):
            for source in sources:
                missing = {
                    name: files[fit]
                    for fit, (name, own) in wanted.items()
                    if own == source and not files[fit].exists()
                }
                for name, fit_of_name in self._fitted(list(missing), source).items():
                    keep(fit_of_name, missing[name])
        directions = {fit: kept(file, self.model) for fit, file in files.items()}
        return in_units(directions | self._random(directions, sources), self.settings)

    def _random(
        self, directions: dict[str, Directions], sources: Sequence[str]
    ) -> dict[str, Directions]:
        """The random directions from each source, of the size of the first method's."""
        if self.plan.randoms != RANDOM:
            return {}
        covariance = self._covariance()
        estimator = self.plan.methods[self.plan.first][0]
        drawn = {}
        for source in sources:
            like = directions[fit_name(estimator, source)].at(*self.plan.layers)
            for kind, spread in zip(RANDOM, (None, covariance), strict=True):
                for seed, name in enumerate(random_names(kind, estimator, source)):
                    drawn[name] = controls.random(like, seed=seed, source=source, covariance=spread)
        return drawn

    def _covariance(self) -> Tensor:
        """That of the texts' activations at each layer, kept in the folder."""
        file = self._file("covariance")
        with FileLock(self.folder / "directions" / "lock", fallback_to_soft=False):
            if not file.exists():
                moments = collect(
                    self.model,
                    self.texts,
                    layers=self.plan.layers,
                    also=["scatter"],
                    progress=self.progress,
                )
                with replacing(file) as (fresh,):
                    save_file({"covariance": moments.covariance().float()}, fresh)
        return load_file(file)["covariance"]

    def _fitted(self, estimators: list[str], source: str) -> dict[str, Directions]:
        """Directions by estimator, from one reading of the texts."""
        if not estimators:
            return {}
        self.console.print(
            f"{self.model.name}: reading {self.texts.name} in {len(self.texts.langs)} languages"
        )
        return fitted(
            self.model,
            self.texts,
            estimators,
            layers=self.plan.layers,
            source=source,
            progress=self.progress,
        )

    def _file(self, fit: str) -> Path:
        """Where directions are kept: named by the fit and by what else decides it."""
        inputs = [self.model.fingerprint, str(self.model.dtype), self.texts.hash, self.plan.layers]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
        return self.folder / "directions" / f"{fit.replace(' ', '-')}-{digest}.safetensors"

    # ---------------------------------------------------------------------------------- the results

    def _report(
        self,
        dev: pd.DataFrame,
        rows: pd.DataFrame,
        choices: dict[str, Setting],
        split: str,
        directions: dict[str, Directions],
    ) -> None:
        scored = table(rows, seed=self.settings.seed)
        first = self.plan.first
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
            "natural gap": self._gap(directions, choices[first][0]),
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
        shares = {}
        for lang in dict.fromkeys(target for _, target in self.plan.pairs):
            labels = self.identifier.identify(self.questions[lang])
            shares[lang] = 100 * sum(label == lang for label in labels) / len(labels)
        return shares

    def _gap(self, directions: dict[str, Directions], layer: int) -> float:
        """The mean distance between the means of a pair's two languages at a layer."""
        gaps = []
        for source, target in self.plan.across:
            fit = directions[fit_name(self.settings.estimators[0], source)].at(layer)
            start = fit.means[fit.langs.index(source), 0]
            end = fit.means[fit.langs.index(target), 0]
            gaps.append(float((end - start).norm()))
        return sum(gaps) / len(gaps)

    def _notes(self, summary: dict[str, Any], rows: pd.DataFrame) -> list[str]:
        same = summary["same-language pairs, unsteered"]
        questions = summary["questions"]
        chosen = "; ".join(
            f"{name} layer {choice['layer']}, {choice['strength']:g}"
            for name, choice in summary["choices"].items()
        )
        if questions["split"] == "all":
            how = "given, reported on all"
        else:
            how = "chosen on dev, reported on the other"
        notes = [
            f"{questions['n']} questions of {questions['name']}, {summary['pairs']} pairs; "
            f"settings {how} questions: {chosen} (unit: {summary['unit of strength']}).",
            f"Judge: {summary['judge']}. Identifier: {summary['identifier']}.",
        ]
        if same:
            notes.append(
                f"{same} pairs are one language with itself: they have no direction, so that every "
                "method's rows there are the unsteered ones. They count in pooled, as in the "
                "paper, and not in across."
            )
        unread = int(rows["rating"].isna().sum())
        if unread:
            notes.append(
                f"{unread} of {len(rows)} ratings could not be read; OR drops them, joint counts "
                "none of them."
            )
        return notes

    # ----------------------------------------------------------------------------------- the folder

    def _claim(self) -> None:
        """Take a folder that is empty or that the same settings made."""
        claim(self.folder, self.settings.model_dump(mode="json"))
        earlier = read_json(self.folder / "manifest.json").get("model", {})
        need_model(self.folder, "a run", earlier, self.model.metadata)

    def _write_manifest(self, command: Sequence[str]) -> None:
        """Write what the run is."""
        packages = ("torch", "transformers", "numpy", "fasttext-predict")
        manifest = {
            "format": 1,
            "command": list(command),
            "settings": self.settings.model_dump(mode="json"),
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
        write_json(self.folder / "manifest.json", manifest)


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
    copies = []
    if len(unsteered):
        copies = [unsteered.assign(method=name) for name in (*plan.methods, *plan.randoms)]
    names = (*plan.methods, *plan.randoms, *plan.forms)
    order = {name: number for number, name in enumerate(names)}
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
    folder = need_folder(out)
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
