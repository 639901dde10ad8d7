"""Measure speed and memory, and write docs/benchmarks.json and docs/benchmarks.md.

`make bench`, or `python experiments/bench [--quick] [--only sweep,decoding]`. Each section runs in
a process of its own, one after the other; with --only the other sections keep the figures that they
had. A quick run writes to build/bench/quick. Nothing else should run on the machine meanwhile: each
section says how much of it others used.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import report
from environments import BUILD, ROOT
from sections import SECTIONS


def main() -> int:
    options = _options()
    if options.child:
        Path(options.result).write_text(
            json.dumps(SECTIONS[options.child].measure(quick=options.quick)), "utf-8"
        )
        return 0
    folder = (
        Path(options.out) if options.out else BUILD / "quick" if options.quick else ROOT / "docs"
    )
    found = report.read(folder)
    broken = []
    for name in options.only:
        section = run(name, quick=options.quick, threads=options.threads)
        broken += [
            f"{name}: {told}"
            for told in [section.get("error"), *section.get("failures", [])]
            if told
        ]
        found[name] = section
        report.write(folder, {key: found[key] for key in SECTIONS if key in found})
        print(f"{name}: {section['seconds']:.0f} s, written to {folder}", file=sys.stderr)
    print((folder / "benchmarks.md").read_text("utf-8"))
    for told in broken:
        print(f"failed: {told}", file=sys.stderr)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer cells and rounds, at most five minutes in all"
    )
    parser.add_argument("--only", type=_names, help=f"some of {','.join(SECTIONS)}")
    parser.add_argument(
        "--threads", type=int, default=machine.cores(), help="of every process that is measured"
    )
    parser.add_argument(
        "--out", help="another folder than docs for benchmarks.json and benchmarks.md"
    )
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.only = options.only or [name for name, section in SECTIONS.items() if section.default]
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(
            f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}"
        )
    return names


def run(name: str, *, quick: bool, threads: int) -> dict[str, Any]:
    """One section in a process of its own; what goes wrong becomes its `error`."""
    print(f"{name}: progress in {(BUILD / name).relative_to(ROOT)}.log", file=sys.stderr)
    others, start = machine.Others(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [
            sys.executable,
            str(Path(__file__).parent),
            "--child",
            name,
            "--result",
            str(result),
        ]
        found = _child([*command, "--quick"] if quick else command, result, name, threads)
    on = machine.about(threads) | {"others": others.share()}
    # A section may know better what it ran on.
    on |= found.pop("machine", {})
    spent = time.perf_counter() - start
    return {"title": SECTIONS[name].title, "quick": quick, "seconds": spent, "machine": on} | found


def _child(command: list[str], result: Path, name: str, threads: int) -> dict[str, Any]:
    log = BUILD / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as told:
        child = subprocess.Popen(
            command, env=machine.environment(threads), stdout=told, stderr=told
        )
        try:
            child.wait(timeout=60 * SECTIONS[name].minutes)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return {"error": f"it took longer than {SECTIONS[name].minutes:g} minutes"}
    if child.returncode or not result.exists():
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return {
            "error": f"{lines[-1] if lines else 'it said nothing'} (exit code {child.returncode})"
        }
    return dict(json.loads(result.read_text("utf-8")))


if __name__ == "__main__":
    sys.exit(main())
