"""Cells that are one edit under different names: which they are, and that they run once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.edits.twins import Twin
from steerlab.models.model import Model
from steerlab.scores.langid import identifier
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner, run_locally
from steerlab.sweeps.shared import representatives


@pytest.fixture(scope="module")
def found(polyglot: Model) -> dict[str, Directions]:
    """Directions of two names that are one vector, and one that differs in its last value."""
    texts = sl.corpus(langs=["en", "de", "fr"]).split("estimate").take(6)
    mean = sl.diffmean(sl.collect(polyglot, texts))
    vectors = mean.vectors.clone()
    vectors[:, :, -1] += 1e-3
    # `extra` is for another operator; `add` does not read it.
    same = replace(mean, extra={"note": torch.ones(1, len(mean.layers), 2)})
    return {"mean": mean, "same": same, "near": replace(mean, vectors=vectors)}


def cell(method: str, *fits: str, **keys: Any) -> Cell:
    given: dict[str, Any] = {
        "operator": "add",
        "layer": 4,
        "strength": 1.0,
        "source": "en",
        "target": "de",
        "split": "dev",
    }
    return Cell(method=method, fits=fits or (method,), **(given | keys))


def standing(found: dict[str, Directions], *cells: Cell) -> list[int]:
    """For each cell the number of the one whose rows stand for it."""
    keyed = {f"key {number}": each for number, each in enumerate(cells)}
    made = representatives(keyed, found, {})
    return [int(made[key].split()[1]) for key in keyed]


def test_only_cells_of_one_edit_on_the_same_prompts_stand_for_each_other(
    found: dict[str, Directions],
) -> None:
    one = cell("mean")
    assert standing(found, one, cell("same"), cell("near")) == [0, 0, 2]
    # Whatever differs beside the names: another layer, strength, target, split or form of prompt.
    others: list[dict[str, Any]] = [
        {"layer": 5},
        {"strength": 0.5},
        {"target": "fr"},
        {"split": "test"},
        {"form": "instructed"},
        {"lines": (0, 1)},
        {"operator": "rotate"},
        {"twins": (Twin(0),)},
    ]
    for keys in others:
        assert standing(found, one, cell("same", **keys)) == [0, 1], keys
    # By sentence: the second of two takes the other direction.
    assert standing(found, cell("a", "mean", "near"), cell("b", "near", "mean")) == [0, 1]
    assert standing(found, cell("a", "mean", "near"), cell("b", "same", "near")) == [0, 0]
    assert standing(found, one, cell("b", "mean", "mean")) == [0, 1]
    # Twins of one seed and scale are one edit; another scale is another.
    twins = {"twins": (Twin(0, 0.5),)}
    assert standing(found, cell("mean", **twins), cell("same", **twins)) == [0, 0]
    assert standing(found, cell("mean", **twins), cell("same", twins=(Twin(0, 0.6),))) == [0, 1]


def test_the_rows_of_one_stand_for_all_and_have_their_names(
    polyglot: Model, found: dict[str, Directions], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def counted(runner: Runner, batches: Any) -> Any:
        for batch, record in run_locally(runner, batches):
            ran.append(len(batch.rows))
            yield batch, record

    runner = Runner(
        model=polyglot,
        corpus=sl.corpus(langs=["en", "de", "fr"]),
        directions=found,
        identifier=identifier(),
        limits={"dev": 3},
        new_tokens=6,
        workers=counted,
    )
    cells = [cell("near"), cell("mean"), cell("b", "same", "mean", lines=None), cell("same")]
    rows = runner.run(cells)
    assert sum(ran) == 3 * 3  # `same` and `mean`; `b` has two directions, and runs by itself
    assert rows.attrs["shared"] == 1
    assert rows["method"].tolist() == ["near"] * 3 + ["mean"] * 3 + ["b"] * 3 + ["same"] * 3
    assert rows["estimator"].tolist()[6:] == ["same", "mean", "same", "same", "same", "same"]
    assert rows["cell"].tolist() == [key for each in cells for key in [runner.key(each)] * 3]
    # What stands for another is what that would have been by itself.
    alone = runner.run([cells[3]])
    columns = [name for name in rows if name not in ("dose", "displacement")]
    together = rows[rows["method"] == "same"].reset_index(drop=True)
    pd.testing.assert_frame_equal(together[columns], alone[columns])
    np.testing.assert_allclose(together["dose"], alone["dose"], rtol=1e-5)


def test_a_cell_whose_representative_fails_fails_too(
    polyglot: Model, found: dict[str, Directions]
) -> None:
    broken = {name: replace(each) for name, each in found.items()}
    runner = Runner(
        model=polyglot,
        corpus=sl.corpus(langs=["en", "de", "fr"]),
        directions=broken,
        identifier=identifier(),
        limits={"dev": 2},
        new_tokens=4,
    )
    # Logits are no longer finite, which raises when the batch is run.
    cells = [cell(name, strength=1e38) for name in ("mean", "same")] + [cell("near")]
    rows = runner.run(cells)
    assert list(rows.attrs["failed"]) == [runner.key(each) for each in cells[:2]]
    assert set(rows["method"]) == {"near"}


def test_samples_are_never_shared(polyglot: Model, found: dict[str, Directions]) -> None:
    ran: list[int] = []

    def counted(runner: Runner, batches: Any) -> Any:
        for batch, record in run_locally(runner, batches):
            ran.append(len(batch.rows))
            yield batch, record

    runner = Runner(
        model=polyglot,
        corpus=sl.corpus(langs=["en", "de", "fr"]),
        directions=found,
        identifier=identifier(),
        limits={"dev": 2},
        new_tokens=4,
        temperature=1.0,
        workers=counted,
    )
    runner.run([cell("mean"), cell("same")])
    assert sum(ran) == 4
