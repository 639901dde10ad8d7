"""Clusters of differences, and the probe that picks a vector for each prompt."""

import warnings
from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.text_vectors import TextVectors
from steerlab.edits import Edit, add
from steerlab.engine.collect_texts import collect_texts
from steerlab.engine.decoding import decode
from steerlab.estimate.clusters import Clusters, clustered

WIDTH, PAIRS, K = 16, 90, 3


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def texts(*, apart: float) -> tuple[TextVectors, Tensor]:
    """Pairs of three kinds, which their sources show, whose differences lie apart by so much."""
    kind = torch.arange(PAIRS) % K
    of_kind, steps = 3 * randn(K, WIDTH, seed=1), apart * randn(K, WIDTH, seed=2)
    start = (of_kind[kind] + 0.3 * randn(PAIRS, WIDTH, seed=3))[:, None].expand(-1, 2, -1)
    noise = 0.3 * randn(PAIRS, 2, WIDTH, seed=4)
    end = start + 2 + steps[kind][:, None] + noise
    return TextVectors({"en": start, "de": end}, (1, 3)), kind


def test_planted_clusters_are_found_and_the_probe_tells_them() -> None:
    made, kind = texts(apart=3.0)
    found = clustered(made, "de", k=K)
    table = found.table()
    assert table["silhouette"].min() > 0.5
    assert table["accuracy"].min() > 0.95 > 0.4 > table["largest"].max()
    for layer in range(2):
        pairs = {(int(a), int(b)) for a, b in zip(kind, found.labels[:, layer], strict=True)}
        assert len(pairs) == K, "each kind is one cluster"


def test_the_clusters_are_scikit_learns() -> None:
    made, _ = texts(apart=3.0)
    found = clustered(made, "de", k=K)
    x = made.differences("en", "de")[:, 1].numpy()
    wanted = KMeans(K, n_init=10, random_state=0).fit(x)
    assert found.labels[:, 1].tolist() == wanted.labels_.tolist()
    lengths = torch.tensor(x).norm(dim=-1)
    for number, direction in enumerate(found.directions):
        centre = torch.tensor(wanted.cluster_centers_[number])
        torch.testing.assert_close(direction.unit[1], (centre / centre.norm()).float())
        assert float(direction.gap[1]) == pytest.approx(float(lengths.median()), rel=0.02)


def test_one_cloud_warns_or_is_refused() -> None:
    made, _ = texts(apart=0.0)
    with pytest.warns(UserWarning, match="the differences have no clusters: the largest mean sil"):
        found = clustered(made, "de", k=K)
    assert max(found.silhouette.values()) < 0.1
    assert max(found.accuracy.values()) < 0.75, "there is nothing to tell"
    with pytest.raises(SteerlabError, match="the differences have no clusters"):
        clustered(made, "de", k=K, refuse=True)


def test_refining_moves_the_probe_towards_what_was_seen() -> None:
    made, _ = texts(apart=3.0)
    found = clustered(made, "de", k=K)
    prompt = made.of("en")[0, 1].float()
    wrong = (int(found.labels[0, 1]) + 1) % K

    def chance(of: Clusters) -> float:
        return float((of.weights[1] @ prompt + of.bias[1]).softmax(-1)[wrong])

    refined = found
    for _ in range(200):
        refined = refined.refined(3, prompt, wrong)
    assert chance(found) < 0.1 < 0.9 < chance(refined)
    assert torch.equal(found.weights[0], refined.weights[0]), "the other layer stays"
    with pytest.raises(SteerlabError, match="there is no cluster 7"):
        found.refined(3, prompt, 7)
    with pytest.raises(SteerlabError, match="a prompt is 16 finite numbers"):
        found.refined(3, prompt * torch.nan, 1)


@pytest.mark.parametrize("k", [1, 23])
def test_too_many_and_too_few_clusters_are_told(k: int) -> None:
    with pytest.raises(SteerlabError, match=rf"{k} clusters of 90 pairs; give 2 to 22"):
        clustered(texts(apart=1.0)[0], "de", k=k)


def test_each_prompt_gets_the_vector_of_its_cluster(polyglot: Any, lines: Corpus) -> None:
    """On polyglot: languages have no clusters, and each row is as under the one edit picked."""
    some = lines.select(["en", "de"]).split("estimate").take(40)
    made = collect_texts(polyglot, some, layers=[4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = clustered(made, "de", k=2)
    assert found.silhouette[4] < 0.1
    prompts = [f"{line}\n" for line in some["en"][:12]]
    said = decode(polyglot, prompts, edit=found.edit(4), max_new_tokens=5).texts
    x = made.of("en")[: len(prompts), 0].float()
    picked = (x @ found.weights[0].T + found.bias[0]).argmax(1).tolist()
    assert set(picked) == {0, 1}
    for number in (0, 1):
        alone = decode(
            polyglot, prompts, edit=add(found.directions[number]), max_new_tokens=5
        ).texts
        for row, kind in enumerate(picked):
            if kind == number:
                assert said[row] == alone[row]
    assert said != decode(polyglot, prompts, edit=Edit(()), max_new_tokens=5).texts
    with pytest.raises(SteerlabError, match="no layer 2 here"):
        found.edit(2)
