"""Templates become pages: values go in, and every one of them is escaped."""

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from steerlab.studies.html.formats import (
    decimal,
    language_name,
    number,
    percent,
    probability,
    share,
    signed,
)

_SHARED = "steerlab.studies.html"
_FILTERS = (decimal, language_name, number, percent, probability, share, signed)


@cache
def environment(package: str) -> Environment:
    """The templates in a package's folder `templates`, and those that all pages share.

    Whatever a template prints is escaped, CSS and scripts apart, which are files of the package
    too. A name that a template does not get is an error, not an empty string. The formats of
    `steerlab.studies.html.formats` are filters.
    """
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(_SHARED)]),
        autoescape=True,
        undefined=StrictUndefined,
        # A line that holds only a tag of Jinja leaves no line behind.
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {function.__name__: function for function in _FILTERS}
    # By default `tojson` sorts; a figure's keys keep their order, its letters stay letters.
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return templates
