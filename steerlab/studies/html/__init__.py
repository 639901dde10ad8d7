"""What the pages of HTML share: the reading of templates, how numbers and names are written, the
skeleton of a page and its style."""

from steerlab.studies.html.rendering import environment

__all__ = ["environment"]
