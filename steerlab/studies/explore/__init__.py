"""The explorer: a page that steers a model while one looks at it."""

from steerlab.studies.explore.explorer import Explorer as Explorer
from steerlab.studies.explore.explorer import explore as explore
