"""Methods with the same outputs are one in Holm's family, and are said to coincide."""

import numpy as np
import pandas as pd

from steerlab.analysis.comparisons import against, comparisons


def table(seed: int, share: float, *, texts: str = "") -> pd.DataFrame:
    """Outputs of one method; `texts` tells apart those of equal scores."""
    rng = np.random.default_rng(seed)
    joint = (rng.random(40) < share).astype(float)
    output = [f"{texts or seed} {i}" for i in range(40)]
    columns = {"target": "es", "sentence": np.arange(40), "joint": joint, "output": output}
    return pd.DataFrame(columns)


def test_the_same_outputs_under_two_names_are_one_comparison() -> None:
    a, control = table(0, 0.8), table(1, 0.2)
    shuffled = a.sample(frac=1, random_state=0)
    tables = {"pca": a, "eigengap": shuffled, "random": control}
    found = against(tables, ["pca", "eigengap"], ["random"], main="pca")
    assert found["coincide"] == [["pca", "eigengap"]]
    assert found["comparisons"] == 1
    pairs = found["pairs"]
    assert pairs["pca"]["random"]["p_holm"] == pairs["pca"]["random"]["p"]
    assert pairs["eigengap"]["random"]["p_holm"] == pairs["pca"]["random"]["p_holm"]
    assert pairs["eigengap"]["pca"]["p"] == pairs["eigengap"]["pca"]["p_holm"] == 1


def test_equal_scores_of_other_texts_do_not_coincide() -> None:
    a, control = table(0, 0.8), table(1, 0.2)
    tables = {"pca": a, "lda": table(0, 0.8, texts="other"), "random": control}
    found = against(tables, ["pca", "lda"], ["random"], main="pca")
    assert found["coincide"] == []
    assert found["comparisons"] == 3
    alone = found["pairs"]["pca"]["random"]
    assert alone["p_holm"] == 3 * alone["p"], "the negative control: three in the family"
    bare = {name: rows.drop(columns="output") for name, rows in tables.items()}
    assert against(bare, ["pca", "lda"], ["random"], main="pca")["comparisons"] == 3
    one = tables | {"lda": a.assign(output=["x", *a["output"][1:]])}
    assert against(one, ["pca", "lda"], ["random"], main="pca")["coincide"] == []


def test_a_family_of_one_and_itself() -> None:
    a = table(0, 0.5)
    found = comparisons({"a": a, "b": a}, [("a", "b")], family="one")
    assert found["coincide"] == [["a", "b"]]
    assert found["pairs"]["a"]["b"]["p_holm"] == 1
