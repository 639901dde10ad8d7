"""Which units carry which language, by each published method, and the directions that are made of them."""

from steerlab.selection.chosen import Selection as Selection
