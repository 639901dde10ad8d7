"""Figures of language directions and of steering results: tables and arrays in, plotly figures out."""

from steerlab.figures.curves import dose_curves, families, separation
from steerlab.figures.grids import cosines, heatmap
from steerlab.figures.trees import cophenetic, dendrogram, linkage_of

__all__ = ["cophenetic", "cosines", "dendrogram", "dose_curves", "families", "heatmap", "linkage_of", "separation"]
