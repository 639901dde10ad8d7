"""Several vectors from one class to another, and a probe that picks one for each prompt."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.text_vectors import TextVectors
from steerlab.edits.edit import Edit
from steerlab.edits.gates import picked
from steerlab.edits.operators import add
from steerlab.edits.windows import Window

LEAST = 0.1  # a silhouette below which differences are one cloud


@dataclass(frozen=True, eq=False)
class Clusters:
    """What `clustered` makes: a direction for each cluster, and the probe that picks one.

    Args:
        directions: of each cluster, at all layers.
        labels: the cluster of each pair at each layer.
        silhouette: of each layer; near 0 there are no clusters.
        weights: of the probe, which reads a prompt's mean at the layer.
        bias: of the probe.
        accuracy: of the probe at each layer, on pairs held out.
    """

    directions: tuple[Direction, ...]
    labels: Int[Tensor, "text layer"]
    silhouette: Mapping[int, float]
    weights: Float[Tensor, "layer kind width"]
    bias: Float[Tensor, "layer kind"]
    accuracy: Mapping[int, float]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers."""
        return self.directions[0].layers

    def table(self) -> pd.DataFrame:
        """A row for each layer: silhouette, accuracy of the probe, and the share of the largest
        cluster, which a constant would reach."""
        largest = [
            float(torch.bincount(of_layer).max() / len(of_layer)) for of_layer in self.labels.T
        ]
        return pd.DataFrame(
            {
                "layer": self.layers,
                "silhouette": [self.silhouette[layer] for layer in self.layers],
                "accuracy": [self.accuracy[layer] for layer in self.layers],
                "largest": largest,
            }
        )

    def edit(
        self,
        layer: int,
        *,
        strength: float = 1.0,
        sure: bool = False,
        positions: Window = "all",
    ) -> Edit:
        """Add, in each row, the vector that the probe picks from its prompt at a layer.

        Args:
            layer: where it reads and adds.
            strength: in gaps: the median length of the differences.
            sure: multiply by the probe's chance of the cluster.
            positions: which positions are edited (see `sl.edits.window`).
        """
        if layer not in self.layers:
            raise SteerlabError(f"no layer {layer} here; there are {self.layers}")
        index, parts = self.layers.index(layer), []
        for number, direction in enumerate(self.directions):
            gate = picked(
                self.weights[index],
                self.bias[index],
                number,
                reads=(direction.site, layer),
                sure=sure,
            )
            step = add(direction.at(layer), strength=strength, positions=positions)
            parts.append(step.when(gate))
        return reduce(or_, parts)

    def refined(
        self, layer: int, prompt: Float[Tensor, " width"], kind: int, *, rate: float = 0.001
    ) -> "Clusters":
        """The same after one step of gradient descent of the probe on a prompt that was of this
        kind, as when its difference is seen later; these stay as they are."""
        if not 0 <= kind < len(self.directions):
            raise SteerlabError(f"there is no cluster {kind}; there are {len(self.directions)}")
        if layer not in self.layers:
            raise SteerlabError(f"no layer {layer} here; there are {self.layers}")
        number = self.layers.index(layer)
        x = prompt.to(self.weights)
        if x.shape != self.weights.shape[-1:] or not torch.isfinite(x).all():
            raise SteerlabError(f"a prompt is {self.weights.shape[-1]} finite numbers")
        wrong = (self.weights[number] @ x + self.bias[number]).softmax(-1)
        wrong[kind] -= 1
        weights, bias = self.weights.clone(), self.bias.clone()
        weights[number] -= rate * wrong[:, None] * x
        bias[number] -= rate * wrong
        return replace(self, weights=weights, bias=bias)


def clustered(
    texts: TextVectors,
    target: str,
    *,
    source: str = "en",
    k: int = 3,
    least: float = LEAST,
    refuse: bool = False,
    seed: int = 0,
) -> Clusters:
    """Cluster the differences of pairs at each layer (k-means); a softmax probe on the source text
    says which cluster a prompt is of.

    The vector of a cluster is its centroid at the median length of all differences. A mean
    silhouette below `least` warns: the differences are one cloud, and the clusters are slices of
    it. Languages have no clusters on polyglot. Source: G-ACT (arXiv 2506.18887), of which only an
    abstract was to be had; number of clusters, probe and lengths are our reading.

    Args:
        texts: of `collect_texts`, the same texts in both.
        target: the class that is steered to.
        source: the class that is steered from.
        k: how many clusters.
        least: the silhouette below which it warns.
        refuse: raise instead.
        seed: of k-means and of the pairs held out.
    """
    steps = texts.differences(source, target)
    count = len(steps)
    if not 2 <= k <= count // 4:
        raise SteerlabError(f"{k} clusters of {count} pairs; give 2 to {count // 4}, or more pairs")
    start = texts.of(source)
    labels, centres, weights, bias = [], [], [], []
    silhouette, accuracy = {}, {}
    for number, layer in enumerate(texts.layers):
        x = steps[:, number].numpy()
        found = KMeans(k, n_init=10, random_state=seed).fit(x)
        silhouette[layer] = float(silhouette_score(x, found.labels_))
        length = float(np.median(np.linalg.norm(x, axis=1)))
        centre = torch.tensor(found.cluster_centers_)
        centres.append(centre / centre.norm(dim=-1, keepdim=True).clamp(min=1e-30) * length)
        labels.append(torch.tensor(found.labels_).long())
        w, b, accuracy[layer] = _probe(start[:, number].numpy(), found.labels_, k, seed)
        weights.append(w)
        bias.append(b)
    _tell(silhouette, least, refuse=refuse)
    means = start.mean(0), texts.of(target).mean(0)
    directions = []
    for kind in range(k):
        step = torch.stack([centre[kind] for centre in centres])
        gap = step.norm(dim=-1)
        unit = (step / gap[:, None]).float()
        directions.append(
            Direction(
                target,
                source,
                texts.layers,
                texts.site,
                unit,
                gap.float(),
                means[0].float(),
                unit[:, None],
                texts.provenance.get("model", {}),
                means[1].float(),
            )
        )
    return Clusters(
        tuple(directions),
        torch.stack(labels, 1),
        silhouette,
        torch.stack(weights).float(),
        torch.stack(bias).float(),
        accuracy,
    )


def _probe(x: np.ndarray, labels: np.ndarray, k: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Weights and bias in the space of the activations, and the accuracy on pairs held out."""
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = order[: len(x) // 4], order[len(x) // 4 :]
    centre, scale = x.mean(0), np.maximum(x.std(0), 1e-6)

    def fit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, bias = np.zeros((k, x.shape[1])), np.full(k, -30.0)
        kinds = np.unique(labels[rows])
        if len(kinds) == 1:  # one kind alone was seen
            bias[kinds] = 0.0
            return weights, bias
        made = LogisticRegression(C=0.1, max_iter=1000).fit(
            (x[rows] - centre) / scale, labels[rows]
        )
        coefficients, intercept = made.coef_, made.intercept_
        if len(kinds) == 2:  # one row of numbers, for the second kind against the first
            coefficients = np.stack([-coefficients[0] / 2, coefficients[0] / 2])
            intercept = np.array([-intercept[0] / 2, intercept[0] / 2])
        weights[kinds] = coefficients / scale
        bias[kinds] = intercept - weights[kinds] @ centre
        return weights, bias

    weights, bias = fit(train)
    accuracy = float(((x[test] @ weights.T + bias).argmax(1) == labels[test]).mean())
    weights, bias = fit(order)
    return torch.tensor(weights), torch.tensor(bias), accuracy


def _tell(silhouette: Mapping[int, float], least: float, *, refuse: bool) -> None:
    """Warn, or raise, where no layer has clusters."""
    best = max(silhouette, key=lambda layer: silhouette[layer])
    if silhouette[best] >= least:
        return
    message = (
        f"the differences have no clusters: the largest mean silhouette is {silhouette[best]:.2f}, "
        f"at layer {best}, and 1 would be apart; one vector (diffmean) says as much"
    )
    if refuse:
        raise SteerlabError(message)
    warnings.warn(message, stacklevel=3)
