"""Figures of language directions and of steering results: tables and arrays in, plotly figures
out.

A module here that exports `FIGURES`, a dict of names and functions, adds its figures.
"""

from steerlab.core.discovery import exported
from steerlab.figures.curves import dose_curves as dose_curves
from steerlab.figures.curves import families as families
from steerlab.figures.curves import separation_by_layer as separation_by_layer
from steerlab.figures.depths import kinds_by_layer as kinds_by_layer
from steerlab.figures.depths import units_by_layer as units_by_layer
from steerlab.figures.files import draw as draw
from steerlab.figures.files import paper as paper
from steerlab.figures.files import write as write
from steerlab.figures.filters import stability_curve as stability_curve
from steerlab.figures.filters import threshold_counts as threshold_counts
from steerlab.figures.grids import cosines as cosines
from steerlab.figures.grids import heatmap as heatmap
from steerlab.figures.layers import depth as depth
from steerlab.figures.layers import explained as explained
from steerlab.figures.lenses import lens_layers as lens_layers
from steerlab.figures.lenses import lens_strip as lens_strip
from steerlab.figures.maps import language_map as language_map
from steerlab.figures.matrices import cosine_layers as cosine_layers
from steerlab.figures.printed import save as save
from steerlab.figures.selectivity import selectivity as selectivity
from steerlab.figures.spectra import spectrum as spectrum
from steerlab.figures.tangle import tanglegram as tanglegram
from steerlab.figures.tokens import tokens as tokens
from steerlab.figures.trees import cophenetic as cophenetic
from steerlab.figures.trees import cophenetic_null as cophenetic_null
from steerlab.figures.trees import dendrogram as dendrogram
from steerlab.figures.trees import leaf_order as leaf_order
from steerlab.figures.trees import linkage_of as linkage_of

_FIGURES = exported("steerlab.figures", "FIGURES")
_TOOLS = [
    "cophenetic",
    "cophenetic_null",
    "draw",
    "leaf_order",
    "linkage_of",
    "paper",
    "save",
    "tokens",
    "write",
]
__all__ = sorted([*_FIGURES, *_TOOLS])
# Type checkers read the imports above; a figure in a new file of this folder is here without.
globals().update(_FIGURES)
