"""Figures of language directions and of steering results: tables and arrays in, plotly figures
out."""

from steerlab.figures.curves import dose_curves, families, separation
from steerlab.figures.depths import kinds_by_layer, units_by_layer
from steerlab.figures.files import draw, paper, write
from steerlab.figures.filters import stability_curve, threshold_counts
from steerlab.figures.grids import cosines, heatmap
from steerlab.figures.layers import depth, explained
from steerlab.figures.maps import language_map
from steerlab.figures.matrices import cosine_layers
from steerlab.figures.selectivity import selectivity
from steerlab.figures.spectra import spectrum
from steerlab.figures.tangle import tanglegram
from steerlab.figures.trees import cophenetic, dendrogram, leaf_order, linkage_of

__all__ = [
    "cophenetic",
    "cosine_layers",
    "cosines",
    "dendrogram",
    "depth",
    "dose_curves",
    "draw",
    "explained",
    "families",
    "heatmap",
    "kinds_by_layer",
    "language_map",
    "leaf_order",
    "linkage_of",
    "paper",
    "selectivity",
    "separation",
    "spectrum",
    "stability_curve",
    "tanglegram",
    "threshold_counts",
    "units_by_layer",
    "write",
]
