"""The main job: find the directions, choose on dev, report on test beside the controls, draw it."""

import importlib.metadata
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from rich.console import Console

import steerlab.estimate
import steerlab.estimate.controls as controls
from steerlab.analysis.choices import at, choose
from steerlab.analysis.comparisons import against, by_language, together
from steerlab.analysis.dose import along
from steerlab.analysis.geometry import (
    FamilyNeighbours,
    family_neighbours,
    have_relatives,
    unigrams,
    within_script,
)
from steerlab.analysis.geometry import separation as separate
from steerlab.analysis.results import curve, difference, result, stronger
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import write_json, write_table
from steerlab.core.moments import Moments
from steerlab.engine.batching import row_bytes
from steerlab.engine.collect import collect, text_means
from steerlab.figures import (
    cophenetic,
    cosines,
    dendrogram,
    dose_curves,
    families,
    heatmap,
    separation,
)
from steerlab.models.huggingface import Model
from steerlab.models.loading import load
from steerlab.scores.judges import DISTRACTORS
from steerlab.scores.langid import identifier
from steerlab.studies.main.plan import MAIN, SEEDS, Plan, spread_layers
from steerlab.studies.main.settings import Settings
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.folder import claim
from steerlab.sweeps.race import race
from steerlab.sweeps.runner import LONGEST, NEW_TOKENS, Runner

DEV_LINES = 16
ESTIMATE_LINES, SEPARATION_LINES = 240, 96  # of a large corpus


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
        self.settings, self.folder, self.progress = settings, folder, progress
        self.started, self.console = (
            time.monotonic(),
            Console(stderr=True, quiet=not progress, markup=False, highlight=False),
        )
        claim(self.folder, settings.model_dump(mode="json"))
        if model is None:
            model = load(
                settings.model,
                revision=settings.revision,
                dtype=settings.dtype,
                device=settings.device,
            )
        self.model: Model = model
        if texts is None:
            self.corpus: Corpus = corpus(settings.corpus, settings.langs)
        else:
            self.corpus = texts if settings.langs is None else texts.select(settings.langs)
        self.source = settings.source
        self.targets = tuple(
            settings.targets or [iso for iso in self.corpus.langs if iso != self.source]
        )
        for iso in (self.source, *self.targets):
            self.corpus[iso]
        self.layers = settings.layers or spread_layers(
            self.model.n_layers, quick=settings.quick, full=settings.full
        )
        for layer in self.layers:
            self.model.need_layer(layer)
        self.corpus.split("test").take(settings.limit)
        self.identifier = identifier(settings.lid)
        self.plan = Plan(
            self.source,
            self.targets,
            self.layers,
            settings.prompt,
            wrong=len(self.corpus.langs) > 2,
            quick=settings.quick,
            full=settings.full,
        )
        self.manifest = self._manifest(command)
        write_json(self.folder / "manifest.json", self.manifest)

    # ------------------------------------------------------------------------------------ the steps

    def run(self) -> Path:
        """All steps in order; gives the folder."""
        moments = self._collect()
        fits = self._fit(moments)
        runner = Runner(
            self.model,
            self.corpus,
            fits,
            self.identifier,
            {"dev": None if self.settings.full else DEV_LINES, "test": self.settings.limit},
            self.folder / "cells",
            retry=True,
        )
        longest = min(LONGEST, self.model.context)
        need = runner.plan["rows"] * row_bytes(self.model, longest, new=NEW_TOKENS)
        self.console.print(
            f"batches of {runner.plan['rows']} rows, {need / 2**30:.1f} GiB at {longest} tokens a "
            "prompt"
        )
        write_json(
            self.folder / "manifest.json",
            self.manifest | {"batches": runner.plan | {"bytes estimated": need}},
        )
        dev, raced = self._choose(runner)
        choices = choose(dev)
        runner = replace(runner, fluency=True)
        test = self._run_cells("reporting on test", runner, self.plan.test(choices))
        removal = self._run_cells("removing", runner, self.plan.removal(choices[MAIN][0]))
        rows = pd.concat([dev, test, removal], ignore_index=True)
        kin = self._kinships(moments)
        self._draw(dev, test, removal, moments, fits[MAIN], kin, choices)
        self._summarise(rows, choices, kin, fits[MAIN], raced)
        return self.folder

    def _choose(self, runner: Runner) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """The rows on dev that choices are made from; of a race also how far each setting went."""
        cells = self.plan.dev()
        if not self.settings.race:
            return self._run_cells("choosing on dev", runner, cells), None
        self.console.print(f"racing on dev: {len(cells)} cells at most")
        raced = race(runner, cells, seed=self.settings.seed, title="racing", progress=self.progress)
        raced.settings.to_csv(self.folder / "race.csv", index=False)
        return raced.rows, raced.settings

    def _collect(self) -> Moments:
        self.console.print(
            f"{self.model.name}: reading {len(self.corpus)} lines in {len(self.corpus.langs)} "
            "languages"
        )
        layers = range(self.model.n_layers)
        part = self._estimate_lines()
        also = {
            need for name, _ in self.plan.methods for need in steerlab.estimate.NEEDS.get(name, ())
        } | {"scatter"}
        return collect(
            self.model,
            part,
            layers=layers,
            also=sorted(also),
            source=self.source,
            form="line",
            progress=self.progress,
        )

    def _estimate_lines(self) -> Corpus:
        return self.corpus.split("estimate").take(None if self.settings.full else ESTIMATE_LINES)

    def _fit(self, moments: Moments) -> dict[str, Directions]:
        chosen = {MAIN: steerlab.estimate.diffmean(moments)}
        some = moments.at(*self.layers)
        for name, _ in self.plan.methods:
            if name not in chosen:
                chosen[name] = getattr(steerlab.estimate, name)(some)
        (self.folder / "directions").mkdir(exist_ok=True)
        for name, fitted in chosen.items():
            fitted.save(self.folder / "directions" / f"{name}.safetensors")
        main, covariance = chosen[MAIN].at(*self.layers), some.covariance().float()
        for seed in range(SEEDS):
            if "wrong" in self.plan.controls:
                chosen[f"wrong {seed}"] = controls.wrong(main, source=self.source, seed=seed)
            chosen[f"random isotropic {seed}"] = controls.random(main, seed=seed)
            chosen[f"random covariance {seed}"] = controls.random(
                main, seed=seed, covariance=covariance
            )
            chosen[f"shuffled {seed}"] = controls.shuffled(main, seed=seed)
        return chosen

    def _run_cells(self, title: str, runner: Runner, cells: list[Cell]) -> pd.DataFrame:
        self.console.print(f"{title}: {len(cells)} cells")
        rows = runner.run(cells, title=title, progress=self.progress)
        if failed := rows.attrs.get("failed"):
            raise SteerlabError(
                f"{len(failed)} of {len(cells)} cells failed, the first with: "
                f"{next(iter(failed.values()))}; "
                "what is finished is kept: run again"
            )
        return rows

    # ---------------------------------------------------------------------------------- the results

    def _kinships(self, moments: Moments) -> dict[str, FamilyNeighbours]:
        """Family accuracy of the means, and of what shared tokens alone would give; empty if no
        two are kin."""
        part, langs = self._estimate_lines(), self.corpus.langs
        if not have_relatives(langs):
            return {}
        means = moments.mean.transpose(0, 1).numpy()
        embedded = (
            collect(self.model, part, layers=[0], site="resid_pre", also=[]).mean[:, 0].numpy()
        )
        found = {
            "main": family_neighbours(means, langs, seed=self.settings.seed),
            "token unigrams": family_neighbours(
                unigrams(part, self.model.tokenizer)[None], langs, layers=[-1]
            ),
            "embedding layer": family_neighbours(embedded[None], langs, layers=[-1]),
        }
        latin = within_script(langs)
        if have_relatives([langs[i] for i in latin]):
            found["within Latin script"] = family_neighbours(
                means[:, latin], [langs[i] for i in latin]
            )
        return found

    def _draw(
        self,
        dev: pd.DataFrame,
        test: pd.DataFrame,
        removal: pd.DataFrame,
        moments: Moments,
        directions: Directions,
        kin: dict[str, FamilyNeighbours],
        choices: dict[str, tuple[int, float]],
    ) -> None:
        main = dev[dev["method"] == MAIN]
        strength = choices[MAIN][1]
        layer = kin["main"].layers[kin["main"].best] if kin else choices[MAIN][0]
        read = "raced dev lines (n differs)" if self.settings.race else "dev lines"
        apart = separate(
            moments, text_means(self.model, self.corpus.split("dev").take(SEPARATION_LINES))
        )
        drawn: dict[str, go.Figure] = {
            "heatmap": heatmap(
                main[main["strength"] == strength], note=f"{read}, strength {strength:g}"
            ),
            "heatmap_lfs": heatmap(
                main[main["strength"] == strength],
                value="in_language",
                note=f"{read}, strength {strength:g}",
            ),
            "dose_curves": dose_curves(
                curve(dev[dev["operator"] == "add"], x="strength", value="joint", by="method"),
                chance=1 / (DISTRACTORS + 1),
                note=f"{read}, mean over layers; natural gaps",
            ),
            "removal": dose_curves(
                curve(removal, x="strength", value="in_language", by="method"),
                x_label="fraction removed",
                value_label="share still in the prompt's language",
                note="after two dev lines of a language; at 0 nothing is removed",
            ),
            "separation": separation(
                apart, chance=1 / len(moments.langs), note=f"n = {apart['n'].iloc[0]} dev lines"
            ),
            "dendrogram": dendrogram(directions.at(layer)),
            "cosines": cosines(directions.at(layer).vectors[:, 0], directions.langs, layer=layer),
        }
        if kin:
            drawn["families"] = families(self._family_table(kin))
        (self.folder / "figures").mkdir(exist_ok=True)
        for name, figure in drawn.items():
            figure.write_json(self.folder / "figures" / f"{name}.json")
        apart.to_csv(self.folder / "figures" / "separation.csv", index=False)

    def _family_table(self, kin: dict[str, FamilyNeighbours]) -> pd.DataFrame:
        main = kin["main"]
        rows = [
            {"layer": a, "value": b, "series": "language means"}
            for a, b in zip(main.layers, main.accuracy, strict=True)
        ]
        for name, other in kin.items():
            if name != "main":
                pairs = zip(other.layers, other.accuracy, strict=True)
                rows += [{"layer": a, "value": b, "series": name} for a, b in pairs]
        rows.append({"layer": -1, "value": main.null, "series": "null: 95 % of permuted labels"})
        return pd.DataFrame(rows)

    def _summarise(
        self,
        rows: pd.DataFrame,
        choices: dict[str, tuple[int, float]],
        kin: dict[str, FamilyNeighbours],
        main: Directions,
        raced: pd.DataFrame | None,
    ) -> None:
        tables, variants = self._tables(rows[rows["split"] == "test"], choices)
        ours, seed = tables[MAIN], self.settings.seed
        results = {name: result(table, seed=seed) for name, table in tables.items()}
        for name, variant in variants.items():
            results[name]["variant"] = variant
        beside = [name for name in tables if name not in self.plan.names]
        inferred = self._infer(tables, rows[rows["split"] == "dev"], choices)
        summary: dict[str, Any] = {
            "format": 1,
            "model": self.model.name,
            "corpus": self.corpus.name,
            "prompt": self.settings.prompt,
            "source": self.source,
            "targets": list(self.targets),
            "n_sentences": int(ours["sentence"].nunique()),
            "n_outputs": len(ours),
            "chance": 1 / (DISTRACTORS + 1),
            "seconds": round(time.monotonic() - self.started, 1),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
            "results": results,
            "differences": {name: difference(ours, tables[name], seed=seed) for name in beside},
            "choice": "on dev, one layer and strength for each method",
            "choices": {
                name: {"layer": layer, "strength": strength}
                for name, (layer, strength) in choices.items()
            },
            "counts": {"outputs": len(rows), "generated tokens": int(rows["tokens"].sum())},
            "families": self._families(kin, main),
            **inferred,
        }
        if raced is not None:
            summary["race"] = {"settings": len(raced), "read whole": int(raced["kept"].sum())}
            behind = raced[~raced["kept"]].drop(columns="kept").astype(object)
            summary["race"]["not read whole"] = behind.where(behind.notna(), None).to_dict(
                "records"
            )
        write_table(self.folder / "rows.parquet", rows)
        write_table(self.folder / "rows.csv", rows)
        write_json(self.folder / "summary.json", summary)

    def _tables(
        self, test: pd.DataFrame, choices: dict[str, tuple[int, float]]
    ) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
        """The test rows of each method and control, and which variant of a control is shown: the
        stronger."""
        tables, variants = {name: at(test, name, choices[name]) for name in self.plan.names}, {}
        for name in ("unsteered", *self.plan.controls, "prompt"):
            if name not in choices:
                tables[name] = test[test["method"] == name]
                continue
            both = {
                "at the method's cell": at(test, name, choices[MAIN]),
                "own choice on dev": at(test, name, choices[name]),
            }
            variants[name], tables[name] = stronger(both)
        return tables, variants

    def _infer(
        self,
        tables: dict[str, pd.DataFrame],
        dev: pd.DataFrame,
        choices: dict[str, tuple[int, float]],
    ) -> dict[str, Any]:
        """Tests of every comparison, scores along the dose, and what a choice for each language
        would gain."""
        methods, seed = self.plan.names, self.settings.seed
        found: dict[str, Any] = {"tests": {}, "by_language": {}}
        if tables[MAIN]["sentence"].nunique() > 1:
            beside = [name for name in tables if name not in methods]
            found["tests"] = against(tables, methods, beside, main=MAIN, seed=seed)
            found["tests"]["together"] = together(tables[MAIN])
        if (
            dev["sentence"].nunique() > 3 and not self.settings.race
        ):  # a race dropped what some languages would take
            found["by_language"] = by_language(dev, methods, seed=seed)
        return found | {
            "doses": along(dev, {name: choices[name] for name in methods}, main=MAIN, seed=seed)
        }

    def _families(self, kin: dict[str, FamilyNeighbours], directions: Directions) -> dict[str, Any]:
        if not kin:
            return {}
        main, best = kin["main"], kin["main"].best
        found = {
            "layer": main.layers[best],
            "nearest_neighbour": main.accuracy[best],
            "p": main.p,
            "n": main.n,
            "cophenetic": cophenetic(directions.at(main.layers[best]).vectors[:, 0]),
            "unigram_nearest_neighbour": kin["token unigrams"].accuracy[0],
            "embedding_nearest_neighbour": kin["embedding layer"].accuracy[0],
        }
        if "within Latin script" in kin:
            latin = kin["within Latin script"]
            found |= {
                "latin_nearest_neighbour": max(latin.accuracy),
                "latin_p": latin.p,
                "latin_n": latin.n,
            }
        return found

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
            "layers": list(self.layers),
            "new_tokens": NEW_TOKENS,
            "distractors": DISTRACTORS,
            "packages": {name: importlib.metadata.version(name) for name in packages},
            "python": platform.python_version(),
        }
