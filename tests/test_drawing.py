"""The figures of the main run compare methods on the same targets."""

import pandas as pd
import pytest

from steerlab.analysis.results import curve
from steerlab.core.errors import SteerlabError
from steerlab.studies.main.drawing import on_shared_targets, spoken


def dev() -> pd.DataFrame:
    """A method that is read on an easy and a hard target, and a control that is as good, read on
    the easy one alone."""
    rows = []
    for method, targets in (("diffmean", ("de", "ja")), ("random", ("de",))):
        for target in targets:
            for sentence in range(8):
                hit = target == "de" and sentence < 6
                rows.append(
                    {
                        "method": method,
                        "target": target,
                        "sentence": sentence,
                        "strength": 1.0,
                        "joint": hit,
                    }
                )
    return pd.DataFrame(rows)


def test_curves_stand_on_the_targets_that_all_methods_have() -> None:
    rows, shared = on_shared_targets(dev())
    assert shared == ["de"]
    drawn = curve(rows, x="strength", value="joint", by="method").set_index("by")
    assert drawn["value"].tolist() == [0.75, 0.75]
    assert drawn["n"].tolist() == [8, 8]
    # Without it the method would look half as good as a control that equals it.
    before = curve(dev(), x="strength", value="joint", by="method").set_index("by")["value"]
    assert before["diffmean"] == pytest.approx(before["random"] / 2)


def test_methods_without_a_target_in_common_are_refused() -> None:
    rows = dev()
    apart = rows[(rows["method"] == "random") == (rows["target"] == "de")]
    with pytest.raises(SteerlabError, match="no target was read with every method"):
        on_shared_targets(apart)


def test_targets_are_named_while_they_are_few() -> None:
    assert spoken(["de", "ja"]) == "de, ja"
    assert spoken(["de"] * 9) == "9 languages"
