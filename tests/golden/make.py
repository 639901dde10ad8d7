"""Record what the reference packages make of small inputs: `python tests/golden/make.py [FOLDER]`.

Each reference runs in a virtual environment of its own below FOLDER (build/golden), made if it is
not there. The tests read only the JSON files beside this one: inputs, outputs, and the versions
that made them. Run with any Python that has torch.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
REFERENCES = {"concept-erasure": "0.2.4", "steering-vectors": "0.12.2", "repeng": "0.4.0"}

Numbers = dict[str, Any]


def main(folder: Path) -> None:
    for name, number in REFERENCES.items():
        python = _environment(folder / name, f"{name}=={number}")
        words = [str(python), str(Path(__file__).resolve()), "--inside", name]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        (HERE / f"{name}.json").write_text(json.dumps(found) + "\n", "utf-8")
        print(f"{name}.json: {', '.join(found['outputs'])}")


def _environment(folder: Path, requirement: str) -> Path:
    """The Python of an environment with torch, then the reference; pip's words go to a file
    beside it."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        with open(f"{folder}.log", "w") as log:
            for wanted in (TORCH, requirement):
                subprocess.run(
                    [str(python), "-m", "pip", "install", wanted],
                    check=True,
                    stdout=log,
                    stderr=log,
                )
    return python


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """(positive [pair width], negative): a shift, a shared sentence part, and a louder axis in
    which they differ."""
    normal = _normal(0)
    sentences = normal(24, 5) * 2
    shift, loud = torch.tensor([3.0, 1, 0, 0, 0]), torch.tensor([0.0, 0, 0, 2, 2])
    step = shift + normal(24, 1) * loud + normal(24, 5) * 0.3
    return (sentences + step).double().round(decimals=4), sentences.double().round(decimals=4)


def classes() -> tuple[torch.Tensor, torch.Tensor]:
    """(x [row width], label [row]) of three classes of unequal size in skewed noise, far from
    the origin."""
    normal, labels = _normal(1), torch.arange(3).repeat_interleave(torch.tensor([30, 20, 10]))
    turn, places = normal(6, 6), normal(3, 6) * 2 + 5
    return (places[labels] + normal(60, 6) @ turn).double().round(decimals=4), labels


def _normal(seed: int) -> Callable[..., torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def concept_erasure() -> tuple[Numbers, Numbers]:
    """LEACE of three classes, and of one against the rest, with the library's shrinkage and
    without."""
    from concept_erasure import LeaceEraser  # type: ignore[import-not-found]

    x, labels = classes()
    classed = torch.nn.functional.one_hot(labels).double()
    outputs = {}
    for concept, z in (("all", classed), ("first", classed[:, :1])):
        for shrinkage in (True, False):
            eraser = LeaceEraser.fit(x, z, shrinkage=shrinkage)
            outputs[f"{concept} {'shrunk' if shrinkage else 'plain'}"] = eraser(x).tolist()
    return {"x": x.tolist(), "labels": labels.tolist()}, outputs


def steering_vectors() -> tuple[Numbers, Numbers]:
    """The aggregators of means and of uncentred principal axes."""
    from steering_vectors import mean_aggregator, pca_aggregator

    positive, negative = pairs()
    outputs = {
        "mean": mean_aggregator()(positive, negative).tolist(),
        "pca": pca_aggregator()(positive, negative).tolist(),
    }
    return {"positive": positive.tolist(), "negative": negative.tolist()}, outputs


def repeng() -> tuple[Numbers, Numbers]:
    """Its two ways of PCA on hidden states that are given instead of read."""
    from types import SimpleNamespace

    import repeng.extract as extract

    positive, negative = pairs()
    hidden = torch.stack([positive, negative], 1).flatten(0, 1).numpy()
    extract.batched_get_hiddens = lambda *_: {0: hidden.copy()}
    extract.model_layer_list = lambda _: [None]
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=1))
    entries = [extract.DatasetEntry("", "")] * len(positive)
    outputs = {
        method: extract.read_representations(model, None, entries, [0], method=method)[0].tolist()
        for method in ("pca_center", "pca_diff")
    }
    return {"positive": positive.tolist(), "negative": negative.tolist()}, outputs


def inside(name: str) -> None:
    """Run in a reference's own environment: one line of JSON."""
    made = {
        "concept-erasure": concept_erasure,
        "steering-vectors": steering_vectors,
        "repeng": repeng,
    }
    inputs, outputs = made[name]()
    versions = {package: version(package) for package in (name, "torch")}
    print(json.dumps({"versions": versions, "inputs": inputs, "outputs": outputs}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2])
    else:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/golden"))
