"""The explorer's page in a real Chromium: it steers, and stands what a reader does to it."""

import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from browsers import launched, opened, overflow

from steerlab.core.directions import Directions
from steerlab.studies.explore.explorer import prepared
from steerlab.studies.explore.server import page_server

pytestmark = pytest.mark.timeout(600)  # a busy machine is slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture(scope="module")
def url(
    browser: Any, directions: Directions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An explorer of a made-up run, whose best cell is layer 5 at strength 1."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "directions").mkdir()
    directions.save(folder / "directions" / "diffmean.safetensors")
    (folder / "manifest.json").write_text(json.dumps({"settings": {"model": "polyglot"}}))
    grid = [(layer, strength) for layer in (3, 5) for strength in (0.5, 1.0, 1.5)]
    rows = pd.DataFrame(grid, columns=["layer", "strength"])
    rows = rows.assign(method="diffmean", estimator="diffmean", operator="add", target="es")
    rows = rows.assign(split="dev", joint=[cell == (5, 1.0) for cell in grid])
    rows.to_parquet(folder / "rows.parquet")
    session, page = prepared(run=folder)
    page["setting"]["new_tokens"] = 10
    server = page_server(session, page)
    server.start()
    yield server.url
    server.close()


def settled(page: Any) -> str:
    """The steered output, when all is said."""
    page.wait_for_selector("body[data-state=done]")
    return str(page.locator("#steered .tokens").inner_text()).strip()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    page = opened(browser, url)
    settled(page)
    yield page
    assert page.complaints == []
    page.context.close()


def language(page: Any, side: str = "steered") -> str:
    return str(page.locator(f"#{side} .language").get_attribute("data-lang"))


def test_it_opens_and_steers_into_the_language(page: Any) -> None:
    assert language(page) == "es"
    assert "✓ asked for" in page.locator("#steered .facts").inner_text()
    assert language(page, "unsteered") != "es"
    colours = page.locator("#steered .tokens span[class*=c]").evaluate_all(
        "spans => spans.map(span => span.about.lang)"
    )
    assert max(set(colours), key=colours.count) == "es"
    assert "Spanish" in page.locator("#legend").inner_text()
    for name in ("dose", "bits per byte"):
        assert name in page.locator("#steered .facts").inner_text()


@pytest.mark.parametrize(
    ("target", "name"), [("de", "German"), ("fr", "French"), ("ru", "Russian")]
)
def test_another_language(page: Any, target: str, name: str) -> None:
    page.select_option("#target", target)
    page.fill("#exact", "1.5")
    settled(page)
    assert language(page) == target
    assert name in page.locator("#steered .language").inner_text()


def test_the_slider_changes_what_is_said(page: Any) -> None:
    page.focus("#strength")
    page.keyboard.press("Home")  # by the keyboard, as by the mouse
    settled(page)
    assert page.locator("#exact").input_value() == "0"
    texts = [
        page.locator(f"#{side}").get_attribute("data-text") for side in ("steered", "unsteered")
    ]
    assert texts[0] == texts[1]
    page.keyboard.press("End")
    settled(page)
    assert page.locator("#steered").get_attribute("data-text") != texts[0]


def test_recipes_follow_the_controls(page: Any) -> None:
    page.select_option("#operator", "rotate")
    page.select_option("#target", "de")
    settled(page)
    assert "sl.edits.steer('rotate', directions.at(5), 1.0" in page.locator("#python").inner_text()
    assert "--to de --operator rotate" in page.locator("#command").inner_text()


def test_a_double_click_and_many_changes_end_in_the_last(page: Any) -> None:
    wanted = page.locator("#steered").get_attribute("data-text")
    page.dblclick("#again")
    assert settled(page) == wanted
    for strength in ("0.2", "3", "0.7", "1"):
        page.fill("#exact", strength)
    assert settled(page) == wanted


def test_a_reload_in_the_middle_comes_back_to_the_setting(page: Any) -> None:
    page.select_option("#target", "fr")
    page.fill("#exact", "1.5")
    # It has begun, and what it says is not waited for.
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('1.5')")
    page.reload()
    settled(page)
    assert page.locator("#target").input_value() == "fr"
    assert page.locator("#exact").input_value() == "1.5"
    assert language(page) == "fr"


def test_a_link_with_nonsense_begins_anew(browser: Any, url: str) -> None:
    wrong = ("#%E0%A4%A", "#{}", "#" + urllib.parse.quote('{"text":"x","layers":"<script>"}'))
    for fragment in wrong:
        page = opened(browser, url + fragment)
        settled(page)
        assert page.locator("#target").input_value() == "es"
        assert page.complaints == []
        page.context.close()


def test_the_map_marks_the_cell_and_a_click_goes_there(page: Any) -> None:
    cells = page.locator("#map button")
    assert cells.count() == 6
    here = page.locator("#map button[aria-current=true]")
    assert here.get_attribute("aria-label") == "layer 5, strength 1: joint 1.00 of 1 outputs"
    page.click("#map button[data-layer='3'][data-strength='1.5']")
    settled(page)
    assert page.locator("#layer-shown").inner_text() == "3"
    assert page.locator("#exact").input_value() == "1.5"
    assert here.get_attribute("data-layer") == "3"
    here.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator("#exact").input_value() == "1"
    assert here.get_attribute("data-layer") == "5"


def test_tokens_can_be_gone_through_by_keys(page: Any) -> None:
    page.focus("#steered .tokens")
    page.keyboard.press("ArrowRight")
    said = page.locator("#token").inner_text()
    assert re.search(r"probability \d\.\d{3} · votes for .* · along the direction -?\d", said)
    page.keyboard.press("ArrowRight")
    assert page.locator("#token").inner_text() != said


def test_hostile_text_is_text(page: Any) -> None:
    page.evaluate("globalThis.hurt = 0")
    page.fill("#text", "<img src=x onerror=hurt++><script>hurt++</script>")
    settled(page)
    assert page.evaluate("hurt") == 0
    assert page.locator("article img, article script, pre img, pre script").count() == 0
    assert "<script>" in page.locator("#python").inner_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" * 3000, "The sentence has 3,000 characters; give 2,000 at most."),
        ("a" * 30000, "The request has more than 16,384 bytes; give less text."),
        ("\ud83d", "half of a surrogate pair"),
        (" ", "There is no sentence; write one."),
    ],
    ids=["long", "very long", "surrogate", "empty"],
)
def test_what_cannot_be_said_is_told(browser: Any, url: str, text: str, message: str) -> None:
    page = opened(browser, url)
    settled(page)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
    page.evaluate(
        f"() => {{ const box = document.getElementById('text'); box.value = '{escaped}'; "
        "box.dispatchEvent(new Event('input')); }"
    )
    page.wait_for_selector("body[data-state=failed]")
    assert message in page.locator("#error").inner_text()
    page.evaluate(
        "() => { const box = document.getElementById('text'); box.value = 'No.'; "
        "box.dispatchEvent(new Event('input')); }"
    )
    settled(page)
    assert page.locator("#error").is_hidden()
    page.context.close()


@pytest.mark.parametrize("width", [390, 1366])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_wider_than_the_window(browser: Any, url: str, width: int, dark: bool) -> None:
    page = opened(browser, url, width=width, dark=dark)
    settled(page)
    page.click("details summary")
    assert overflow(page) <= 0
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == (
        "rgb(18, 24, 30)" if dark else "rgb(255, 255, 255)"
    )
    page.context.close()


def test_from_touch_to_text(page: Any, record_property: Any) -> None:
    """How long a touch of the slider takes to the first steered token; said, and not held to."""
    seconds = []
    for strength in ("0.9", "1.1", "1.2", "1.3", "1.4"):
        page.fill("#exact", strength)
        settled(page)
        seconds.append(float(page.locator("#steered .tokens").get_attribute("data-first")))
    record_property("milliseconds", sorted(seconds))
    print("\nfrom touch to text, milliseconds:", sorted(seconds))
    assert all(0 < each < 60_000 for each in seconds)


def test_a_browser_under_another_name_is_refused(browser: Any, url: str) -> None:
    """DNS rebinding: a name of somebody else's leads here."""
    port = url.rstrip("/").rpartition(":")[2]
    context = browser.new_context()
    page = context.new_page()
    # Chromium takes every name under localhost to this machine.
    answer = page.goto(f"http://rebound.localhost:{port}/")
    assert answer.status == 403
    assert "only under its own name" in answer.text()
    asked = page.evaluate(
        "async (url) => { try { return (await fetch(url, {method: 'POST', body: '{}'})).status; }"
        " catch (error) { return error.name; } }",
        f"{url}run",
    )
    assert asked == "TypeError"  # what it is told, no other site's page may read
    context.close()
