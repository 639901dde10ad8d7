"""A language model from two sides that share one set of weights: Hugging Face for bulk, TransformerLens to read."""

from steerlab.model.lens import LensModel
from steerlab.model.loading import PACKAGED, load
from steerlab.model.past import keep_rows
from steerlab.model.positions import Change, Where
from steerlab.model.views import Model

__all__ = ["PACKAGED", "Change", "LensModel", "Model", "Where", "keep_rows", "load"]
