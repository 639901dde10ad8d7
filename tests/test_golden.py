"""The estimators beside recorded numbers of published packages; tests/golden/make.py records
them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from planting import moments
from torch import Tensor

import steerlab.estimate as estimate
from steerlab.edits import erase

GOLDEN = Path(__file__).parent / "golden"


def recorded(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(inputs, outputs) of a reference, in double precision."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    assert found["versions"].keys() == {name, "torch"}
    inputs, outputs = (
        {k: torch.tensor(v).double() for k, v in found[side].items()}
        for side in ("inputs", "outputs")
    )
    return inputs, outputs


@pytest.mark.parametrize("concept", ["all", "first"])
@pytest.mark.parametrize("shrinkage", [None, 0.0])
def test_leace_is_that_of_concept_erasure(concept: str, shrinkage: float | None) -> None:
    inputs, outputs = recorded("concept-erasure")
    x, labels = inputs["x"], inputs["labels"]
    langs = dict(enumerate(("en", "de", "es")))
    given = moments(
        {iso: x[labels == label][:, None, None] for label, iso in langs.items()}, pairs_from=None
    )
    fitted = estimate.leace(
        given, concept="all" if concept == "all" else "target", shrinkage=shrinkage
    )
    [part] = erase(fitted["en"]).parts
    ours = x + part.change(x.float()[None], part.tensors, None)[0]
    theirs = outputs[f"{concept} {'shrunk' if shrinkage is None else 'plain'}"]
    assert (theirs - x).abs().max() > 1, "it does something"
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def paired(name: str) -> tuple[Any, dict[str, Tensor]]:
    inputs, outputs = recorded(name)
    sides = {"en": inputs["negative"], "de": inputs["positive"]}
    return moments({iso: side.float()[:, None, None] for iso, side in sides.items()}), outputs


def test_means_and_axes_are_those_of_steering_vectors() -> None:
    given, outputs = paired("steering-vectors")
    step = estimate.diffmean(given).between("en", "de")
    torch.testing.assert_close(
        (step.gap[:, None] * step.unit)[0].double(), outputs["mean"], atol=1e-5, rtol=1e-5
    )
    axis = estimate.pca(given).between("en", "de").unit[0].double()
    torch.testing.assert_close(axis, outputs["pca"], atol=1e-4, rtol=0)
    assert float(axis @ torch.nn.functional.normalize(outputs["mean"], dim=0)) < 0.99, (
        "they are two things here"
    )


def test_pca_is_repengs_about_the_middle_and_not_its_default() -> None:
    given, outputs = paired("repeng")
    axis = estimate.pca(given).between("en", "de").unit[0].double()
    torch.testing.assert_close(axis, outputs["pca_center"], atol=1e-4, rtol=0)
    assert float(axis @ outputs["pca_diff"]) < 0.9, (
        "the default centres the differences, and loses their mean"
    )
