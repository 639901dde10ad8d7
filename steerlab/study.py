"""The main job: find the directions, choose on dev, report on test beside the controls, draw it."""

import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from rich.console import Console

import steerlab.controls as controls
import steerlab.estimate
from steerlab.collection import collect, text_means
from steerlab.corpora import Corpus, corpus
from steerlab.directions import Directions
from steerlab.evaluation import DISTRACTORS
from steerlab.figures import cophenetic, cosines, dendrogram, dose_curves, families, heatmap, separation
from steerlab.geometry import Kinship, kinship, unigrams, within_script
from steerlab.geometry import separation as separate
from steerlab.langid import identifier
from steerlab.model import Model, load
from steerlab.stats import Moments
from steerlab.summaries import at, choose, curve, difference, result, stronger
from steerlab.sweeps import GRIDS, NEW_TOKENS, Bench, Cell, method_name
from steerlab.terms import SteerlabError, language

MAIN = "diffmean"
METHODS = (
    ("diffmean", "add"),
    ("lda", "add"),
    ("pca", "add"),
    ("probe", "add"),
    ("eigengap", "add"),
    ("diffmean", "rotate"),
)
STRENGTHS = {"add": (1.0, 1.5, 2.0), "rotate": (0.5, 1.0, 1.5)}
SEEDS = 5
DEV_TARGETS, DEV_LINES, TEST_LINES = 8, 16, 48
ESTIMATE_LINES, SEPARATION_LINES = 240, 96  # of a large corpus


@dataclass(frozen=True)
class Settings:
    """Everything that the caller decides; it is kept in the manifest, and another run folder is needed to change it."""

    model: str = "polyglot"
    corpus: str | None = None
    langs: tuple[str, ...] | None = None
    source: str = "en"
    targets: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    prompt: str = "line"
    lid: str | None = None
    dtype: str | None = None
    device: str | None = None
    limit: int | None = TEST_LINES
    seed: int = 0
    quick: bool = False
    full: bool = False


class Study:
    """One run of the main job in one folder; each step reads what the steps before it left here."""

    def __init__(self, settings: Settings, folder: Path, *, command: Sequence[str] = (), progress: bool = True):
        self.settings, self.folder, self.progress = settings, folder, progress
        self.started, self.console = time.monotonic(), Console(stderr=True, quiet=not progress)
        self._claim()
        self.model: Model = load(settings.model, dtype=settings.dtype, device=settings.device)
        self.corpus: Corpus = corpus(settings.corpus, settings.langs)
        self.source = settings.source
        self.targets = tuple(settings.targets or [iso for iso in self.corpus.langs if iso != self.source])
        for iso in (self.source, *self.targets):
            self.corpus[iso]
        if self.source in self.targets:
            raise SteerlabError(f"the source {self.source!r} is among the targets; a direction needs two languages")
        self.layers = settings.layers or self._spread_layers()
        for layer in self.layers:
            self.model.need_layer(layer)
        self.identifier = identifier(settings.lid)
        self.manifest = self._manifest(command)
        self._write("manifest.json", self.manifest)

    # ------------------------------------------------------------------------------------------------- the steps

    def run(self) -> Path:
        """All steps in order; gives the folder."""
        moments = self._collect()
        fits = self._fit(moments)
        bench = Bench(
            self.model,
            self.corpus,
            fits,
            self.identifier,
            {"dev": None if self.settings.full else DEV_LINES, "test": self.settings.limit},
            self.folder / "cells",
        )
        dev = self._say("choosing on dev", bench, self._dev_cells())
        choices = choose(dev)
        bench.fluency = True
        test = self._say("reporting on test", bench, self._test_cells(choices))
        removal = self._say("removing", bench, self._removal_cells(choices[MAIN][0]))
        rows = pd.concat([dev, test, removal], ignore_index=True)
        kin = self._kinships(moments)
        self._draw(dev, test, removal, moments, fits[MAIN], kin, choices)
        self._summarise(rows, choices, kin, fits[MAIN])
        return self.folder

    def _collect(self) -> Moments:
        self.console.print(f"{self.model.name}: reading {len(self.corpus)} lines in {len(self.corpus.langs)} languages")
        layers = range(self.model.n_layers)
        part = self._estimate_lines()
        return collect(self.model, part, layers=layers, source=self.source, form="line", progress=self.progress)

    def _estimate_lines(self) -> Corpus:
        return self.corpus.split("estimate").take(None if self.settings.full else ESTIMATE_LINES)

    def _fit(self, moments: Moments) -> dict[str, Directions]:
        chosen = {MAIN: steerlab.estimate.diffmean(moments)}
        some = moments.at(*self.layers)
        for name, _ in self._methods():
            if name not in chosen:
                chosen[name] = getattr(steerlab.estimate, name)(some)
        (self.folder / "directions").mkdir(exist_ok=True)
        for name, fitted in chosen.items():
            fitted.save(self.folder / "directions" / f"{name}.safetensors")
        main, covariance = chosen[MAIN].at(*self.layers), some.covariance().float()
        for seed in range(SEEDS):
            chosen[f"random isotropic {seed}"] = controls.random(main, seed=seed)
            chosen[f"random covariance {seed}"] = controls.random(main, seed=seed, covariance=covariance)
            chosen[f"shuffled {seed}"] = controls.shuffled(main, seed=seed)
            chosen[f"wrong {seed}"] = controls.wrong(main, source=self.source, seed=seed)
        return chosen

    def _say(self, title: str, bench: Bench, cells: list[Cell]) -> pd.DataFrame:
        self.console.print(f"{title}: {len(cells)} cells")
        return bench.run(cells, title=title, progress=self.progress)

    # ------------------------------------------------------------------------------------------------- the grid

    def _methods(self) -> tuple[tuple[str, str], ...]:
        return METHODS[:1] if self.settings.quick else METHODS

    def _spread_layers(self) -> tuple[int, ...]:
        if self.settings.full:
            return tuple(range(self.model.n_layers))
        count = min(2 if self.settings.quick else 4, self.model.n_layers)
        last = self.model.n_layers - 1
        return tuple(sorted({round(last * (i + 1) / count) for i in range(count)}))

    def _dev_targets(self) -> tuple[str, ...]:
        """Eight targets, one of each family in turn."""
        if self.settings.full:
            return self.targets
        by_family: dict[str, list[str]] = {}
        for iso in self.targets:
            by_family.setdefault(language(iso).family, []).append(iso)
        turns = max(map(len, by_family.values()))
        order = [group[turn] for turn in range(turns) for group in by_family.values() if turn < len(group)]
        return tuple(order[: 3 if self.settings.quick else DEV_TARGETS])

    def _cells(
        self, method: str, operator: str, fits: Sequence[str], settings: Any, split: str, targets: Any
    ) -> list[Cell]:
        return [
            Cell(method, operator, layer, strength, self.source, target, split, tuple(fits), self.settings.prompt)
            for layer, strength in settings
            for target in targets
        ]

    def _control_fits(self) -> dict[str, list[str]]:
        return {
            "random": [f"random {kind} {seed}" for kind in ("isotropic", "covariance") for seed in range(SEEDS)],
            "shuffled": [f"shuffled {seed}" for seed in range(SEEDS)],
            "wrong": [f"wrong {seed}" for seed in range(SEEDS)],
        }

    def _strengths(self, operator: str) -> tuple[float, ...]:
        if self.settings.full:
            return GRIDS[operator]
        return STRENGTHS[operator][:2] if self.settings.quick else STRENGTHS[operator]

    def _dev_cells(self) -> list[Cell]:
        cells, targets = [], self._dev_targets()
        for estimator, operator in self._methods():
            grid = [(layer, strength) for layer in self.layers for strength in self._strengths(operator)]
            cells += self._cells(method_name(estimator, operator), operator, [estimator], grid, "dev", targets)
        grid = [(layer, strength) for layer in self.layers for strength in self._strengths("add")]
        for name, fits in self._control_fits().items():
            cells += self._cells(name, "add", fits, grid, "dev", targets)
        return cells

    def _test_cells(self, choices: dict[str, tuple[int, float]]) -> list[Cell]:
        """Each method at its choice; each control at the main method's cell and at its own choice."""
        cells = []
        for estimator, operator in self._methods():
            name = method_name(estimator, operator)
            cells += self._cells(name, operator, [estimator], [choices[name]], "test", self.targets)
        for name, fits in self._control_fits().items():
            cells += self._cells(name, "add", fits, {choices[MAIN], choices[name]}, "test", self.targets)
        for name, form in (("unsteered", self.settings.prompt), ("prompt", "instructed")):
            cells += [Cell(name, "none", -1, 0.0, self.source, iso, "test", (), form) for iso in self.targets]
        return cells

    def _removal_cells(self, layer: int) -> list[Cell]:
        """Continue each language's own lines while its direction is removed: does the language go?"""
        cells = []
        for iso in self._dev_targets():
            cells.append(Cell("removal none", "none", -1, 0.0, iso, iso, "dev", (), self.settings.prompt))
            for fraction in GRIDS["ablate"]:
                for name, fits in (("ablate", [MAIN]), ("random", self._control_fits()["random"])):
                    cell = Cell(
                        f"removal {name}", "ablate", layer, fraction, iso, iso, "dev", tuple(fits), self.settings.prompt
                    )
                    cells.append(cell)
        return cells

    # ------------------------------------------------------------------------------------------------- the results

    def _kinships(self, moments: Moments) -> dict[str, Kinship]:
        part, langs = self._estimate_lines(), self.corpus.langs
        means = moments.mean.transpose(0, 1).numpy()
        embedded = collect(self.model, part, layers=[0], site="resid_pre", also=[]).mean[:, 0].numpy()
        found = {
            "main": kinship(means, langs, seed=self.settings.seed),
            "token unigrams": kinship(unigrams(part, self.model.tokenizer)[None], langs, layers=[-1]),
            "embedding layer": kinship(embedded[None], langs, layers=[-1]),
        }
        latin = within_script(langs)
        if len({language(langs[i]).family for i in latin}) > 1:
            found["within Latin script"] = kinship(means[:, latin], [langs[i] for i in latin])
        return found

    def _draw(
        self,
        dev: pd.DataFrame,
        test: pd.DataFrame,
        removal: pd.DataFrame,
        moments: Moments,
        directions: Directions,
        kin: dict[str, Kinship],
        choices: dict[str, tuple[int, float]],
    ) -> None:
        main = dev[dev["method"] == MAIN]
        strength = choices[MAIN][1]
        layer = kin["main"].layers[kin["main"].best]
        apart = separate(moments, text_means(self.model, self.corpus.split("dev").take(SEPARATION_LINES)))
        drawn: dict[str, go.Figure] = {
            "heatmap": heatmap(main[main["strength"] == strength], note=f"dev lines, strength {strength:g}"),
            "heatmap_lfs": heatmap(
                main[main["strength"] == strength], value="in_language", note=f"dev lines, strength {strength:g}"
            ),
            "dose_curves": dose_curves(
                curve(dev[dev["operator"] == "add"], x="strength", value="joint", by="method"),
                chance=1 / (DISTRACTORS + 1),
                note="dev lines, mean over layers; natural gaps",
            ),
            "removal": dose_curves(
                curve(removal, x="strength", value="in_language", by="method"),
                x_label="fraction removed",
                value_label="share still in the prompt's language",
                note="dev lines continued in their own language; at 0 nothing is removed",
            ),
            "separation": separation(apart, chance=1 / len(moments.langs), note=f"n = {apart['n'].iloc[0]} dev lines"),
            "families": families(self._family_table(kin)),
            "dendrogram": dendrogram(directions.at(layer)),
            "cosines": cosines(directions.at(layer).vectors[:, 0], directions.langs, layer=layer),
        }
        (self.folder / "figures").mkdir(exist_ok=True)
        for name, figure in drawn.items():
            figure.write_json(self.folder / "figures" / f"{name}.json")
        apart.to_csv(self.folder / "figures" / "separation.csv", index=False)

    def _family_table(self, kin: dict[str, Kinship]) -> pd.DataFrame:
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
        self, rows: pd.DataFrame, choices: dict[str, tuple[int, float]], kin: dict[str, Kinship], main: Directions
    ) -> None:
        test = rows[rows["split"] == "test"]
        ours = at(test, MAIN, choices[MAIN])
        results, differences = {}, {}
        for estimator, operator in self._methods():
            name = method_name(estimator, operator)
            results[name] = result(at(test, name, choices[name]), seed=self.settings.seed)
        for name in ("unsteered", *self._control_fits(), "prompt"):
            if name in choices:
                variants = {
                    "at the method's cell": at(test, name, choices[MAIN]),
                    "own choice on dev": at(test, name, choices[name]),
                }
                variant, shown = stronger(variants)
                results[name] = result(shown, seed=self.settings.seed) | {"variant": variant}
            else:
                shown = test[test["method"] == name]
                results[name] = result(shown, seed=self.settings.seed)
            differences[name] = difference(ours, shown, seed=self.settings.seed)
        best = kin["main"].best
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
            "differences": differences,
            "choices": {name: {"layer": layer, "strength": strength} for name, (layer, strength) in choices.items()},
            "counts": {"outputs": len(rows), "generated tokens": int(rows["tokens"].sum())},
            "families": {
                "layer": kin["main"].layers[best],
                "nearest_neighbour": kin["main"].accuracy[best],
                "p": kin["main"].p,
                "n": kin["main"].n,
                "cophenetic": cophenetic(main.at(kin["main"].layers[best]).vectors[:, 0]),
                "unigram_nearest_neighbour": kin["token unigrams"].accuracy[0],
                "embedding_nearest_neighbour": kin["embedding layer"].accuracy[0],
            },
        }
        if "within Latin script" in kin:
            latin = kin["within Latin script"]
            summary["families"] |= {
                "latin_nearest_neighbour": max(latin.accuracy),
                "latin_p": latin.p,
                "latin_n": latin.n,
            }
        rows.to_parquet(self.folder / "rows.parquet")
        rows.to_csv(self.folder / "rows.csv", index=False)
        self._write("summary.json", summary)

    # ------------------------------------------------------------------------------------------------- the folder

    def _manifest(self, command: Sequence[str]) -> dict[str, Any]:
        packages = ("torch", "transformers", "transformer-lens", "numpy", "scikit-learn")
        return {
            "format": 1,
            "command": list(command),
            "settings": self._told(),
            "model": self.model.about,
            "corpus": {"name": self.corpus.name, "hash": self.corpus.hash, "langs": list(self.corpus.langs)},
            "identifier": self.identifier.name,
            "layers": list(self.layers),
            "new_tokens": NEW_TOKENS,
            "distractors": DISTRACTORS,
            "packages": {name: importlib.metadata.version(name) for name in packages},
            "python": platform.python_version(),
        }

    def _told(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self.settings)))

    def _claim(self) -> None:
        """Take a folder that is empty or that the same settings made."""
        file = self.folder / "manifest.json"
        if file.exists():
            made = json.loads(file.read_text("utf-8")).get("settings", {})
            other = [key for key, value in self._told().items() if made.get(key) != value]
            if other:
                told = ", ".join(f"{key} {made.get(key)!r} there, {self._told()[key]!r} here" for key in other)
                raise SteerlabError(
                    f"{self.folder} holds a run with other settings ({told}); give another --out or delete it"
                )
        self.folder.mkdir(parents=True, exist_ok=True)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        fresh = self.folder / f"{name}.new"
        fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8")
        os.replace(fresh, self.folder / name)


def run(
    settings: Settings | None = None, *, out: str | Path, command: Sequence[str] = (), progress: bool = True
) -> Path:
    """Do the main job in the folder `out`, or finish what was begun there; gives the folder.

    Afterwards it holds rows.parquet, rows.csv, manifest.json, summary.json, directions/ and figures/;
    `report.write_report` makes the page from them.
    """
    return Study(settings or Settings(), Path(out), command=command, progress=progress).run()
