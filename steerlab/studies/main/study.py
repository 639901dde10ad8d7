"""The main job: find the directions, choose on dev, report on test beside the controls, draw it."""

import importlib.metadata
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

import steerlab.estimate
from steerlab.analysis.geometry import separation
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.costs import Cost, costs_of
from steerlab.core.directions import Directions
from steerlab.core.files import read_json, write_json, write_table
from steerlab.core.moments import Moments
from steerlab.engine.batching import row_bytes
from steerlab.engine.collect import collect, text_means
from steerlab.models.counting import counted
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.identifiers import agreement_on_target, second_identifier, with_opinions
from steerlab.scores.judges import DISTRACTORS, Retrieval
from steerlab.scores.judges.ready import need_ready
from steerlab.scores.langid import identifier, need_named
from steerlab.studies.design import Design
from steerlab.studies.equal_cost import AtCost, at_equal_cost
from steerlab.studies.main.drawing import figures_of, write_figures
from steerlab.studies.main.families import families_of, family_summary
from steerlab.studies.main.fitting import able_design, control_directions, named_directions
from steerlab.studies.main.form import form_of
from steerlab.studies.main.plan import MAIN, Plan, spread_layers
from steerlab.studies.main.settings import Settings
from steerlab.studies.main.summary import (
    equal_summary,
    more_rows,
    peak_bytes,
    race_summary,
    results_of,
)
from steerlab.studies.protocol import Report, choose_and_report, run_cells
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import with_cost
from steerlab.sweeps.folder import claim, need_model
from steerlab.sweeps.race import race
from steerlab.sweeps.runner import LONGEST, Runner

DEV_LINES = 16
ESTIMATE_LINES = 240  # of a large corpus, and so the next
SEPARATION_LINES = 96


class Study:
    """One run of the main job in one folder; each step reads what the steps before it left here."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        model: Model | None = None,
        texts: Corpus | None = None,
        command: Sequence[str] = (),
        progress: bool = True,
    ):
        """`model` and `texts` are taken in place of what the settings would load."""
        self.settings = settings
        self.folder = folder
        self.progress = progress
        self.started = time.monotonic(), time.process_time()
        self.console = Console(stderr=True, quiet=not progress, markup=False, highlight=False)
        claim(self.folder, settings.model_dump(mode="json"))
        if model is None:
            model = load(
                settings.model,
                revision=settings.revision,
                dtype=settings.dtype,
                device=settings.device,
            )
        self.model: Model = model
        model.need_unedited("a run")
        earlier = read_json(self.folder / "manifest.json").get("model", {})
        need_model(self.folder, "a run", earlier, model.metadata)
        if texts is None:
            self.corpus: Corpus = corpus(settings.corpus, settings.langs)
        else:
            self.corpus = texts if settings.langs is None else texts.select(settings.langs)
        self.source = settings.source
        self.targets = tuple(
            settings.targets or [lang for lang in self.corpus.langs if lang != self.source]
        )
        for lang in (self.source, *self.targets):
            self.corpus[lang]  # raises where the corpus has no such language
        self.layers = settings.layers or spread_layers(
            self.model.n_layers, quick=settings.quick, full=settings.full
        )
        for layer in self.layers:
            self.model.need_layer(layer)
        self.corpus.split("test").take(settings.limit)
        self.identifier = identifier(settings.lid)
        need_named(self.identifier, self.targets)
        for split in ("dev", "test"):
            need_ready(Retrieval(self.corpus.split(split)), DISTRACTORS)
        self.second = second_identifier(self.corpus.langs)
        self.form = form_of(settings.prompt, self.model, self.corpus, self.source)
        self.plan = Plan(
            self.source,
            self.targets,
            self.layers,
            self.form.name,
            wrong=len(self.corpus.langs) > 2,
            quick=settings.quick,
            full=settings.full,
            further=settings.estimators or (),
        )
        self.reading = Cost()  # of the texts, for the estimators that share it
        self.costs: dict[str, Any] = {}  # of each method's fit
        self.raced: pd.DataFrame | None = None  # of a race on dev: how far each setting went
        self.manifest = self._manifest(command)
        write_json(self.folder / "manifest.json", self.manifest)

    # ------------------------------------------------------------------------------------ the steps

    def run(self) -> Path:
        """All steps in order; gives the folder."""
        moments = self._collect()
        directions = self._fit(moments)
        runner = self._runner(directions)
        design = able_design(self.plan, directions)
        report = choose_and_report(
            runner,
            design,
            fluency=True,
            run_dev=self._race if self.settings.race else None,
            progress=self.progress,
            log=self.console.print,
        )
        # A race does not read strengths whole, between which one could be found.
        costs = [] if self.settings.race else self._at_equal_cost(runner, design, report)
        removal = run_cells(
            runner.with_fluency(),
            self.plan.removal(report.choices[MAIN][0]),
            title="removing",
            progress=self.progress,
            log=self.console.print,
        )
        report, removal = self._with_opinions(report, removal)
        self.costs = costs_of({name: directions[name] for name, _ in self.plan.methods})
        self._describe(moments, directions[MAIN], design, report, removal, costs)
        return self.folder

    def _at_equal_cost(self, runner: Runner, design: Design, report: Report) -> list[AtCost]:
        """The methods at the main one's dose and fluency."""
        report = replace(report, dev=design.completed(report.dev))
        return at_equal_cost(runner, design, report, progress=self.progress, log=self.console.print)

    def _collect(self) -> Moments:
        self.console.print(
            f"{self.model.name}: reading {len(self.corpus)} lines in {len(self.corpus.langs)} "
            "languages"
        )
        also = {"scatter"}  # for the covariance of random controls
        for name in self._of_moments:
            also |= set(steerlab.estimate.NEEDS.get(name, ()))
        with counted(self.model) as reading:
            moments = collect(
                self.model,
                self._estimate_lines(),
                layers=range(self.model.n_layers),
                also=sorted(also),
                source=self.source,
                form="line",
                progress=self.progress,
            )
        self.reading = reading.cost
        return moments

    @property
    def _of_moments(self) -> list[str]:
        """The estimators of the job itself, which share one reading."""
        names = dict.fromkeys(name for name, _ in self.plan.methods)
        return [name for name in names if name not in self.plan.named]

    def _estimate_lines(self) -> Corpus:
        return self.corpus.split("estimate").take(None if self.settings.full else ESTIMATE_LINES)

    def _fit(self, moments: Moments) -> dict[str, Directions]:
        """The directions of every method, which are kept in the folder, and of every control."""
        some = moments.at(*self.layers)
        directions = {}
        for name in self._of_moments:
            # The main method's are kept at all layers: figures show them there.
            read = moments if name == MAIN else some
            with counted(self.model) as count:
                fit = getattr(steerlab.estimate, name)(read)
            directions[name] = with_cost(fit, self.reading + count.cost)
        (self.folder / "directions").mkdir(exist_ok=True)
        for name, fit in directions.items():
            fit.save(self.folder / "directions" / f"{name}.safetensors")
        if self.plan.named:
            self.console.print(f"fitting {', '.join(self.plan.named)}")
            directions |= named_directions(
                self.model, self._estimate_lines(), self.plan, self.settings, self.folder
            )
        main = directions[MAIN].at(*self.layers)
        wrong = "wrong" in self.plan.controls
        return directions | control_directions(main, some, source=self.source, wrong=wrong)

    def _runner(self, directions: dict[str, Directions]) -> Runner:
        """The runner of all cells; how large its batches are is kept in the manifest."""
        runner = Runner(
            model=self.model,
            corpus=self.corpus,
            directions=directions,
            identifier=self.identifier,
            limits={
                "dev": None if self.settings.full else DEV_LINES,
                "test": self.settings.limit,
            },
            folder=self.folder / "cells",
            retry=True,
            new_tokens=self.settings.new_tokens,
            template=self.settings.template,
        )
        rows = runner.plan["rows"]
        longest = min(LONGEST, self.model.context)
        each = row_bytes(self.model, longest, new=self.settings.new_tokens, greedy=True)
        need = rows * each
        self.console.print(
            f"batches of {rows} rows, {need / 2**30:.1f} GiB at {longest} tokens a prompt"
        )
        batches = runner.plan | {"bytes estimated": need}
        write_json(self.folder / "manifest.json", self.manifest | {"batches": batches})
        return runner

    def _race(self, runner: Runner, cells: list[Cell]) -> pd.DataFrame:
        """The rows on dev of a race, in the place of the whole grid."""
        self.console.print(f"racing on dev: {len(cells)} cells at most")
        raced = race(runner, cells, seed=self.settings.seed, title="racing", progress=self.progress)
        write_table(self.folder / "race.csv", raced.settings)
        self.raced = raced.settings
        return raced.rows

    # ---------------------------------------------------------------------------------- the results

    def _with_opinions(self, report: Report, removal: pd.DataFrame) -> tuple[Report, pd.DataFrame]:
        """The rows with a second opinion on the language of every output, which no choice read."""
        if self.second is None:
            self.console.print("no second language identifier: pip install 'steerlab[lingua]'")
        whole = {"dev": report.dev, "test": report.test, "removal": removal}
        tables = {("table", name): rows for name, rows in report.tables.items()}
        made = with_opinions(
            {("whole", name): rows for name, rows in whole.items()} | tables,
            self.identifier,
            self.second,
        )
        report = replace(
            report,
            dev=made["whole", "dev"],
            test=made["whole", "test"],
            tables={name: made["table", name] for name in report.tables},
        )
        return report, made["whole", "removal"]

    def _describe(
        self,
        moments: Moments,
        main: Directions,
        design: Design,
        report: Report,
        removal: pd.DataFrame,
        costs: list[AtCost],
    ) -> None:
        """Write the figures, the rows and the summary.

        Args:
            moments: what the directions were found from.
            main: the main method's directions.
            design: what was compared.
            report: the rows of dev and test, and what was chosen.
            removal: the rows of texts that go on while their language is removed.
            costs: the methods at the main one's costs.
        """
        neighbours = families_of(
            self.model, moments, self._estimate_lines(), seed=self.settings.seed
        )
        dev_texts = self.corpus.split("dev").take(SEPARATION_LINES)
        apart = separation(moments, text_means(self.model, dev_texts))
        own = [report.dev, report.test, removal]
        report = replace(report, dev=design.completed(report.dev))
        figures = figures_of(
            dev=report.dev,
            removal=removal,
            apart=apart,
            directions=main,
            neighbours=neighbours,
            choices=report.choices,
            raced=self.settings.race,
        )
        write_figures(self.folder / "figures", figures, apart)
        rows = pd.concat([*own, *more_rows(report, costs)], ignore_index=True)
        summary = self._summary(rows, report) | {
            "families": family_summary(neighbours, main, seed=self.settings.seed),
            "equal": equal_summary(costs, seed=self.settings.seed),
        }
        rows.attrs["fit"] = self.costs  # for `sl.table`
        write_table(self.folder / "rows.parquet", rows)
        write_table(self.folder / "rows.csv", rows)
        # Last, since it stands for a run that is finished.
        write_json(self.folder / "summary.json", summary)

    def _summary(self, rows: pd.DataFrame, report: Report) -> dict[str, Any]:
        summary = {
            "format": 1,
            "model": self.model.name,
            "corpus": self.corpus.name,
            "prompt": self.form.name,
            "prompt_form": self.form.measured,
            "source": self.source,
            "targets": list(self.targets),
            "new_tokens": self.settings.new_tokens,
            "chance": 1 / (DISTRACTORS + 1),
            "counts": {"outputs": len(rows), "generated tokens": int(rows["tokens"].sum())},
        }
        summary["identifiers"] = {
            "first": self.identifier.name,
            "second": None if self.second is None else self.second.name,
            **agreement_on_target(list(report.tables.values()), seed=self.settings.seed),
        }
        summary |= results_of(report, self.plan, seed=self.settings.seed, raced=self.settings.race)
        fits = dict(zip(self.plan.names, self.plan.methods, strict=True))
        summary["fit"] = {
            name: self.costs[fit] for name, (fit, _) in fits.items() if fit in self.costs
        }
        if self.raced is not None:
            summary["race"] = race_summary(self.raced)
        begun, worked = self.started
        summary["seconds"] = round(time.monotonic() - begun, 1)
        summary["processor_seconds"] = round(time.process_time() - worked, 1)  # of all threads
        summary["peak_rss_bytes"] = peak_bytes()
        return summary

    # ----------------------------------------------------------------------------------- the folder

    def _manifest(self, command: Sequence[str]) -> dict[str, Any]:
        packages = ("torch", "transformers", "transformer-lens", "numpy", "scikit-learn")
        return {
            "format": 1,
            "command": list(command),
            "settings": self.settings.model_dump(mode="json"),
            "model": self.model.metadata,
            "corpus": {
                "name": self.corpus.name,
                "hash": self.corpus.hash,
                "langs": list(self.corpus.langs),
            },
            "identifier": self.identifier.name,
            "second_identifier": None if self.second is None else self.second.name,
            "prompt": self.form.metadata,
            "layers": list(self.layers),
            "new_tokens": self.settings.new_tokens,
            "distractors": DISTRACTORS,
            "packages": {name: importlib.metadata.version(name) for name in packages},
            "python": platform.python_version(),
        }
