"""Templates: all HTML lies in them, all are used, everything is escaped and nothing is missing."""

import ast
import re
from pathlib import Path

import jinja2
import pytest

import steerlab.studies
from steerlab.studies.html import environment

STUDIES = Path(steerlab.studies.__file__).parent
PACKAGES = ("steerlab.studies.main.page", "steerlab.studies.feature_card")
TAG = re.compile(r"</?[a-z][a-z0-9]*([ >/]|$)")


def html_in(source: str) -> list[str]:
    """The strings of a module, docstrings too, that hold a tag."""
    nodes = ast.walk(ast.parse(source))
    strings = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [string for string in strings if TAG.search(string)]


@pytest.mark.parametrize("folder", ["html", "main/page", "feature_card"])
def test_no_html_is_written_in_python(folder: str) -> None:
    files = sorted((STUDIES / folder).glob("*.py"))
    assert len(files) > 2
    for file in files:
        assert not html_in(file.read_text("utf-8")), file


def test_html_in_python_would_be_found() -> None:
    assert html_in("page = f'<td class=\"best\">{value}</td>'")
    assert not html_in("less = f'<{value} and {other}'")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_template_is_read_and_used(package: str) -> None:
    templates = environment(package)
    names = set(templates.list_templates())
    assert "page.html.jinja" in names, "the shared ones"
    code = "".join(file.read_text("utf-8") for file in STUDIES.rglob("*.py"))
    texts = [file.read_text("utf-8") for file in STUDIES.rglob("templates/*")]
    for name in names:
        templates.get_template(name)
        assert f'"{name}"' in code + "".join(texts), name


@pytest.mark.parametrize("package", PACKAGES)
def test_values_are_escaped_and_a_missing_one_is_an_error(package: str) -> None:
    templates = environment(package)
    assert templates.from_string("{{ a }}").render(a="<b>") == "&lt;b&gt;"
    with pytest.raises(jinja2.UndefinedError, match="'a' is undefined"):
        templates.from_string("{{ a }}").render()
    with pytest.raises(jinja2.UndefinedError, match="has no attribute 'b'"):
        templates.from_string("{{ a.b }}").render(a=1)


def test_a_figure_keeps_its_order_and_closes_no_script() -> None:
    template = environment(PACKAGES[0]).from_string("{{ a | tojson }}")
    written = template.render(a={"z": "</script>é", "b": 1})
    assert written == '{"z": "\\u003c/script\\u003eé", "b": 1}'


def test_a_cell_has_its_interval_where_there_is_one() -> None:
    template = environment(PACKAGES[0]).from_string(
        '{% from "parts.html.jinja" import value_cell %}{{ value_cell(interval, best=best) }}'
    )
    from steerlab.studies.html.formats import interval

    def cell(value: object, *, best: bool = False) -> str:
        return template.render(interval=interval(value), best=best).strip()

    assert cell(None) == '<td class="number">–</td>'
    assert cell(0.41) == '<td class="number">0.41</td>'
    assert (
        cell([-0.1, -0.2, 0.1], best=True)
        == '<td class="number best">−0.10<small>[−0.20, 0.10]</small></td>'
    )
