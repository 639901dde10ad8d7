"""A run folder with made-up numbers, complete in form: what the tests of the report read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerlab import figures

TARGETS = "de nl sv es fr it pt ru uk bg pl hu tr hi ja".split()
METHODS = {
    "diffmean": 0.33,
    "lda": 0.36,
    "pca": 0.2,
    "probe": 0.14,
    "eigengap": 0.27,
    "diffmean_rotate": 0.3,
}
NULLS = {
    "unsteered": 0.0,
    "random": 0.01,
    "shuffled": 0.06,
    "wrong": 0.02,
    "prompt": 0.41,
    "fewshot": 0.5,
}
ASKING = ("prompt", "fewshot")
LAYERS, STRENGTHS, SENTENCES = (2, 4, 5, 6), (0.5, 1.0, 1.5), 48
PARALLEL = Path(figures.__file__).parent.parent / "data" / "parallel"
EVIL = "<script>alert('out')</script> & <img src=\"https://example.org/x.png\">"


def synthetic_rows() -> pd.DataFrame:
    """Random rows in the schema of a run: dev grids of every method, test rows at layer 5,
    strength 1."""
    random = np.random.default_rng(0)
    text = {
        iso: (PARALLEL / f"{iso}.txt").read_text(encoding="utf-8").splitlines()
        for iso in ["en", *TARGETS]
    }
    rows = []
    for method, rate in {**METHODS, **NULLS}.items():
        grid = [("test", 5, 1.0, target) for target in TARGETS]
        if method not in NULLS:
            grid += [
                ("dev", lay, s, target)
                for lay in LAYERS
                for s in STRENGTHS
                for target in TARGETS[::2]
            ]
        for split, layer, strength, target in grid:
            for sentence in range(SENTENCES if split == "test" else 16):
                rows.append(
                    _row(random, text, method, rate, split, layer, strength, target, sentence)
                )
    return pd.DataFrame(rows)


def _row(
    random: np.random.Generator,
    text: dict[str, list[str]],
    method: str,
    rate: float,
    split: str,
    layer: int,
    strength: float,
    target: str,
    sentence: int,
) -> dict[str, Any]:
    near = rate * np.exp(-((layer - 5) ** 2) / 4) * np.exp(-((strength - 1) ** 2))
    joint = bool(random.random() < near)
    spoken = joint or bool(
        random.random() < (0.9 if method not in NULLS or method in ASKING else 0.03)
    )
    language = target if spoken else str(random.choice(["en", "none", target]))
    output = (
        text[target][sentence]
        if joint
        else text.get(language, text["en"])[int(random.integers(0, 200))]
    )
    return {
        "method": method,
        "estimator": method.removesuffix("_rotate"),
        "operator": "none"
        if method in ("unsteered", "prompt")
        else "rotate"
        if "rotate" in method
        else "add",
        "layer": layer if method not in ("unsteered", "prompt") else -1,
        "strength": strength,
        "split": split,
        "source": "en",
        "target": target,
        "sentence": sentence,
        "seed": 0,
        "cell": f"{abs(hash((method, layer, strength, target))):016x}",
        "prompt": text["en"][sentence] + "\n",
        "output": "" if language == "none" else EVIL if random.random() < 0.05 else output,
        "language": language,
        "in_language": language == target,
        "relevant": joint or bool(random.random() < 0.05),
        "joint": joint,
        "chrf": float(random.uniform(5, 70)),
        "bits_per_byte_ratio": float(random.uniform(0.9, 2)),
        "repetition": 0.1,
        "dose": 0.4 * strength,
        "tokens": int(random.integers(4, 32)),
    }


def synthetic_summary() -> dict[str, Any]:
    def around(value: float, half: float = 0.04) -> list[float]:
        return [value, value - half, value + half]

    results: dict[str, dict[str, Any]] = {}
    for name, rate in {**METHODS, **NULLS}.items():
        none = name in ("unsteered", "prompt")
        results[name] = {
            "operator": "none" if none else "rotate" if "rotate" in name else "add",
            "layer": -1 if none else 5,
            "strength": 0.0 if none else 1.0,
            "dose": 0.0 if none else 0.41,
            "joint": around(rate),
            "lfs": around(0.92 if name in METHODS or name in ASKING else 0.03, 0.02),
            "relevance": around(rate + 0.1),
            "score": around(rate + 0.2, 0.05),
            "bits_per_byte_ratio": around(1.3, 0.1),
            "lfs_probable": around(0.81 if name in METHODS else 0.02, 0.02),
            "lfs_second": around(0.87 if name in METHODS else 0.04, 0.02),
            "joint_second": around(0.9 * rate),
        }
    results["random"]["variant"] = "its own setting, chosen on dev"
    results["shuffled"]["variant"] = "at DiffMean's cell"
    return {
        "format": 1,
        "model": "polyglot",
        "corpus": "embedded",
        "prompt": "echo:5",
        "prompt_form": {"tried": "echo:5", "copied": 47, "of": 48, "level": 0.9, "above": True},
        "source": "en",
        "targets": TARGETS,
        "n_sentences": SENTENCES,
        "n_outputs": SENTENCES * len(TARGETS),
        "chance": 1 / 32,
        "seconds": 211.0,
        "peak_rss_bytes": 2_100_000_000,
        "results": results,
        "differences": {
            name: {"joint": around(0.33 - rate), "lfs": around(0.89 if name not in ASKING else 0.0)}
            for name, rate in NULLS.items()
        },
        "identifiers": {
            "first": "lid.176.ftz@0123",
            "second": "lingua@2 among de en",
            "n": 7920,
            "equal": 0.95,
            "kappa": [0.89, 0.87, 0.91],
            "pairs": [["pt", "es", 33], ["none", "de", 12]],
        },
        "families": {
            "layer": 5,
            "nearest_neighbour": 0.83,
            "p": 0.0003,
            "n": 12,
            "cophenetic": 0.81,
            "cophenetic_null": [0.57, 0.63],
            "beyond": {
                "unigram": {"difference": 0.23, "gained": 3, "lost": 0, "p_holm": 0.03},
                "embedding": {"difference": 0.33, "gained": 5, "lost": 1, "p_holm": 0.11},
            },
            "unigram_nearest_neighbour": 0.6,
            "embedding_nearest_neighbour": 0.5,
            "latin_nearest_neighbour": 0.7,
            "latin_p": 0.004,
        },
        "choice": "on dev, one layer and strength for each method",
        "tests": synthetic_tests(),
        "doses": {
            "level": 0.9,
            "range": [0.3, 0.6],
            "dose": 0.41,
            "curves": synthetic_curves(around),
        },
        "by_language": {
            "alpha": 0.05,
            "comparisons": len(METHODS),
            "methods": {
                name: {
                    "per method": around(0.2),
                    "per method and language": around(0.27),
                    "test": compared(0.07, 0.02),
                }
                | {"choices": {iso: [5, 1.5] for iso in TARGETS[::2]}}
                for name in METHODS
            },
        },
        "counts": {"outputs": 1, "generated tokens": 2, "cells": 77},
        "choices": {name: {"layer": 5, "strength": 1.0, "joint_dev": 0.3} for name in METHODS},
    }


def compared(difference: float, p_holm: float) -> dict[str, float | None]:
    return {
        "difference": difference,
        "p": p_holm / 35,
        "p_holm": p_holm,
        "detects": 0.05,
        "detects_holm": 0.074,
    }


def synthetic_tests() -> dict[str, Any]:
    pairs = {
        name: {
            null: compared(rate - other, 0.0004 if null != "prompt" else 0.0321)
            for null, other in NULLS.items()
        }
        for name, rate in METHODS.items()
    }
    pairs["lda"]["diffmean"] = compared(-0.03, 0.456) | {"detects": None, "detects_holm": 0.0912}
    facts = {
        "score": "joint",
        "family": "<6> methods less 6 controls",
        "comparisons": 31,
        "sentences": SENTENCES,
    }
    worth = {"outputs": 720.0, "effective": 345.9, "intraclass": 0.077, "design": 2.08}
    facts["two_best"] = {"best": "lda", "next": "diffmean", "difference": 0.03, "needed": 1234.0}
    return facts | {"least": 1e-4, "alpha": 0.05, "power": 0.8, "pairs": pairs, "together": worth}


def synthetic_curves(around: Callable[[float], list[float]]) -> dict[str, Any]:
    curve = {"layer": 5, "doses": [0.2, 0.4, 0.6], "area": around(0.28), "at": around(0.31)}
    least = {
        "diffmean": {"dose": 0.55, "said": "interpolated", "highest": 0.95},
        "lda": {"dose": 0.2, "said": "at the smallest dose", "highest": 0.98},
        "pca": {"dose": None, "said": "not reached", "highest": 0.73},
    }
    return {name: curve | {"least": item} for name, item in least.items()}


def synthetic_figures(rows: pd.DataFrame) -> dict[str, Any]:
    random = np.random.default_rng(0)
    langs = ["en", *TARGETS]
    families = "GGGG RRRR SSSS U T I J".replace(" ", "")
    order = [
        "en",
        "de",
        "nl",
        "sv",
        "es",
        "fr",
        "it",
        "pt",
        "ru",
        "uk",
        "bg",
        "pl",
        "hu",
        "tr",
        "hi",
        "ja",
    ]
    centres = {letter: random.normal(size=64) for letter in dict.fromkeys(families)}
    group = dict(zip(order, families, strict=True))
    vectors = np.stack([centres[group[iso]] + 0.6 * random.normal(size=64) for iso in langs])
    dev = rows[rows["split"] == "dev"]
    best = (
        dev[dev["layer"] == 5]
        .groupby(["method", "strength"])["joint"]
        .mean()
        .rename("value")
        .reset_index()
    )
    curve = best.assign(
        x=best["strength"], by=best["method"], low=best["value"] - 0.05, high=best["value"] + 0.05
    )
    level = pd.DataFrame(
        {
            "layer": [np.nan, np.nan],
            "value": [0.6, 0.5],
            "series": ["token unigrams", "embedding layer"],
        }
    )
    layers = np.arange(8)
    by_layer = [
        pd.DataFrame({"layer": layers, "value": np.linspace(start, stop, 8), "series": series})
        for start, stop, series in (
            (0.5, 0.83, "centred means"),
            (0.4, 0.7, "within Latin script"),
            (0.3, 0.32, "permutation null, 95 %"),
        )
    ]
    separation = pd.DataFrame(
        {
            "layer": layers,
            "trace_ratio": np.linspace(0.1, 0.6, 8),
            "nearest_mean": np.linspace(0.6, 0.99, 8),
        }
    )

    class Directions:
        pass

    directions = Directions()
    directions.langs, directions.layers, directions.vectors = tuple(langs), (5,), vectors[:, None]  # type: ignore[attr-defined]
    note = "Synthetic data, made to test the page"
    return {
        "heatmap": figures.heatmap(
            dev[(dev["method"] == "diffmean") & (dev["strength"] == 1)], note=note
        ),
        "separation": figures.separation_by_layer(separation, chance=1 / 16, note=note),
        "cosines": figures.cosines(vectors, langs, layer=5, note=note),
        "dendrogram": figures.dendrogram(directions, note=note),
        "dose_curves": figures.dose_curves(curve, chance=1 / 32, note=note),
        "families": figures.families(pd.concat([*by_layer, level]), note=note),
    }


def synthetic_run(folder: Path, *, drawn: bool = True) -> Path:
    """A finished run; its figures, which take a while, only where they are asked for."""
    rows = synthetic_rows()
    (folder / "figures").mkdir(parents=True)
    rows.to_parquet(folder / "rows.parquet")
    (folder / "summary.json").write_text(json.dumps(synthetic_summary()))
    manifest = {
        "command": ["steerlab", "run", "--out", "runs/a b", "--seed", "0"],
        "version": "0.1.0",
        "model": {"id": "polyglot", "sha256": "0123456789abcdef" * 4, "dtype": "float32"},
        "corpus": {
            "name": "embedded",
            "sha256": "fedcba9876543210" * 4,
            "languages": ["en", *TARGETS],
        },
        "packages": {"torch": "2.13.0+cpu", "transformers": "5.9.0"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name, figure in (synthetic_figures(rows) if drawn else {}).items():
        figure.write_json(folder / "figures" / f"{name}.json")
    return folder
