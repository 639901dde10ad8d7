"""Screenshots of what people look at: the report, the explorer, the tour and the gallery; on a laptop,
on a phone, and in the dark.

`python experiments/screens.py [--run FOLDER] [--site site] [--out build/screens]` takes a finished run
(`steerlab run --quick --no-open --out FOLDER`), the site of `make docs`, and the Chromium that is
there. `--docs` takes docs/images/report.png alone, of a whole `make run`. It prints what is wider than its window, and what
the scripts of a page complain of; both end in status 1.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from browsers import found, opened, overflow

from steerlab.studies.explore.explorer import prepared
from steerlab.studies.explore.server import page_server
from steerlab.studies.report import write

ROOT = Path(__file__).resolve().parents[1]
VIEWS: dict[str, dict[str, Any]] = {
    "laptop": {"width": 1366},
    "phone": {"width": 390},
    "dark": {"width": 1366, "dark": True},
}
HEIGHT = 3400  # pixels of a page that are kept, from its top
PAGES = {"tour": "guides/tour.html", "gallery": "guides/gallery.html"}


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser that is there."""
    from playwright.sync_api import sync_playwright

    path = found()
    if path is None:
        raise SystemExit("screens: there is no Chromium here; `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def taken(browser: Any, url: str, file: Path, *, ready: str = "", **view: Any) -> list[str]:
    """One screenshot of a page from its top; gives what is wrong with it."""
    page = opened(browser, url, **view)
    if ready:
        page.wait_for_selector(ready)
    page.wait_for_timeout(3000)  # figures are drawn when they are first seen
    wide = overflow(page)
    tall = min(HEIGHT, int(page.evaluate("document.documentElement.scrollHeight")))
    page.set_viewport_size({"width": view["width"], "height": tall})
    page.wait_for_timeout(2000)
    file.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=file)
    complaints = [f"{file.name}: {said}" for said in page.complaints]
    page.context.close()
    return complaints + (
        [f"{file.name} is {wide} pixels wider than its window"] if wide > 0 else []
    )


def report_for_docs(browser: Any, run: Path) -> None:
    """docs/images/report.png: the top of the report as a laptop shows it."""
    page = opened(browser, write(run).resolve().as_uri(), width=1366)
    page.set_viewport_size({"width": 1366, "height": 1500})
    page.wait_for_timeout(3000)
    page.screenshot(path=ROOT / "docs" / "images" / "report.png")
    page.context.close()


@contextmanager
def places(
    run: Path, site: Path, wanted: set[str], wrong: list[str]
) -> Iterator[dict[str, tuple[str, str]]]:
    """The address of each page, and what is there when it is ready; a page of the site that is not
    there is added to `wrong`. The explorer is served as long as the addresses are used."""
    urls: dict[str, tuple[str, str]] = {}
    if "report" in wanted:
        urls["report"] = (write(run).resolve().as_uri(), "")  # today's page of the run
    for name in PAGES.keys() & wanted:
        if (site / PAGES[name]).is_file():
            urls[name] = ((site / PAGES[name]).resolve().as_uri(), "")
        else:
            wrong.append(f"{name}: no {PAGES[name]} in {site}; run `make notebooks docs`")
    if "explorer" not in wanted:
        yield urls
        return
    server = page_server(*prepared(run=run))
    server.start()
    yield urls | {"explorer": (server.url, "body[data-state=done]")}
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="the folder of a finished run")
    parser.add_argument("--site", type=Path, default=ROOT / "site")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "screens")
    parser.add_argument("--only", nargs="+", choices=("report", "explorer", *PAGES))
    parser.add_argument("--docs", action="store_true", help="take docs/images/report.png alone")
    options = parser.parse_args()
    runs = sorted(ROOT.glob("runs/*/report.html"), key=lambda file: file.stat().st_mtime)
    run = options.run or (runs[-1].parent if runs else None)
    if run is None:
        print("screens: no run under runs/; `steerlab run --quick` makes one", file=sys.stderr)
        return 1
    wanted = set(options.only or ("report", "explorer", *PAGES))
    wrong: list[str] = []
    with chromium() as browser:
        if options.docs:
            report_for_docs(browser, run)
            return 0
        with places(run, options.site, wanted, wrong) as urls:
            for name, (url, ready) in urls.items():
                for view, how in VIEWS.items():
                    file = options.out / f"{name}-{view}.png"
                    wrong += taken(browser, url, file, ready=ready, **how)
                    print(file, flush=True)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
