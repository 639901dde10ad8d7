"""The regression gate: hashes of the results of a few small jobs, to hold a change against that
must change none.

    python experiments/bench/gate.py --out before.json      # on the commit that one starts from
    python experiments/bench/gate.py --against before.json  # after the change: exit 1 and the columns that differ

Every job runs in a process of its own, with one torch thread, in a folder that is deleted
afterwards. Between two runs on one machine the JSON is the same to the last byte. The last bits of
a sum depend on the processor and on the versions of the packages, so gate.json beside this file,
which `--against` alone reads, is a baseline of one machine: on another one make it anew, with
`--out`, on the commit that one starts from.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import digests
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "steerlab" / "data" / "parallel"
BASELINE = Path(__file__).with_name("gate.json")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ROWS = ("rows.parquet", "directions/*.safetensors")

DENSE = (
    "diffmean, diffmean texts, diffmean last, diffmean against rest, diffmean against centre, "
    "diffmean against en, "
    "diffmean against clas, lda, lda against source, lda against clas, probe, probe against "
    "source, "
    "probe against clas, pca, pca means, pca cloud, eigengap, disentangle, disentangle tokens, "
    "sparse, "
    "sparse monolingual, leace, leace target, ellipsoid"
).split(", ")
# "langfir shuffled" finds no feature in texts of this size.
SPARSE = ["sae diffmean", "langfir", "monolinguality", "monolinguality gated", "sae lape", "foxp2"]
NEURONS = ["lape", "nju", "culnig"]
SHIFTS = {"add": [1.0], "rotate": [0.5], "affine": [1.0], "push": [1.0]}
SMALL = {"targets": ["de"], "limit": 3, "batch": 16, "new_tokens": 12}

Tables = dict[str, digests.Table]


# ----------------------------------------------------------------------------------------- the jobs


def main_job(folder: Path) -> Tables:
    """`steerlab run`: dev, test and removal rows, the summary, what the figures draw."""
    words = "run --quick --no-open --langs en,de,es --targets de --limit 3 --out made"
    _steerlab(folder, *words.split())
    found = digests.of_folder(folder / "made", ["rows.parquet", "summary.json", "directions/*"])
    drawn = digests.of_folder(folder / "made", ["figures/*.json", "figures/*.csv"])
    return found | drawn


def dense(folder: Path) -> Tables:
    """Every estimator of activations, with every operator that takes what it makes, at two
    layers."""
    # CLaS-Bench's contrast asks for Chinese, which is not among the texts: Japanese stands for it
    # here.
    _corpus(folder, {iso: iso for iso in ("en", "de", "fr", "ru")} | {"zh": "ja"}, count=160)
    operators = SHIFTS | {"conceptor": [0.2], "overwrite": [0.5]}
    grid = {
        "corpus": "texts",
        "estimators": DENSE,
        "operators": operators,
        "layers": [3, 5],
        "fluency": True,
    }
    return _sweep(folder, grid)


def sparse(folder: Path) -> Tables:
    """Every method that chooses features of SAEs, with every operator that takes them."""
    _corpus(folder, {iso: iso for iso in ("en", "de", "fr")}, count=160)
    operators = SHIFTS | {"clamp": [2.0], "gate": [1.0], "signed_shift": [1.0], "push_pull": [1.0]}
    return _sweep(
        folder, {"corpus": "texts", "estimators": SPARSE, "operators": operators, "layers": [5]}
    )


def neurons(folder: Path) -> Tables:
    """Every method that chooses neurons, with every operator that takes them."""
    _corpus(folder, {iso: iso for iso in ("en", "de", "fr")}, count=160)
    operators = {"neuron_add": [1.0, 2.0], "neuron_swap": [1.0], "neuron_set": [1.0]}
    return _sweep(folder, {"corpus": "texts", "estimators": NEURONS, "operators": operators})


def sampled(folder: Path) -> Tables:
    """Draws at a temperature, an instruction in the prompt, a judge by likelihood.

    What is drawn depends on the cells' keys: a change that gives these new names changes this job's
    outputs rightly.
    """
    drawn = {
        "temperature": 0.7,
        "draws": 2,
        "seed": 1,
        "prompt": "instructed",
        "judge": "likelihood",
    }
    return _sweep(
        folder, drawn | {"langs": ["en", "de"], "layers": [5], "operators": {"add": [1.0]}}
    )


def raced(folder: Path) -> Tables:
    """A race: settings that fall behind stop early."""
    grid = {
        "langs": ["en", "de"],
        "layers": [1, 3, 5],
        "operators": {"add": [0.5, 1, 2]},
        "race": True,
    }
    return _sweep(folder, grid | {"limit": 16})


def one_by_one(folder: Path) -> Tables:
    """`steerlab fit`, and `steerlab steer` with what it wrote."""
    _corpus(folder, {iso: iso for iso in ("en", "de")}, count=24)
    (folder / "directions").mkdir()
    _steerlab(folder, *"fit pca polyglot texts -o directions/pca.safetensors".split())
    prompts = ["The weather is nice today.", "She lives in a small house near the river."]
    words = [
        *"steer polyglot directions/pca.safetensors --to de --layer 5 --strength 1.5".split(),
        *prompts,
    ]
    told = _steerlab(folder, *words)
    return {"steer": digests.of_lines(told.splitlines())} | digests.of_folder(
        folder, ["directions/*"]
    )


def clas(folder: Path) -> Tables:
    """`steerlab clas` on the questions of the package, with a judge on loopback; what the judge
    was asked, too."""
    _corpus(folder, {iso: iso for iso in ("en", "de", "es")}, count=48)
    words = (
        "clas --sources en,de --targets en,de,es --prompt line --new-tokens 12 --limit 3 "
        "--dev-limit 2 --batch 16 "
        "--estimators diffmean,pca --layers 3,5 --strengths 1 --corpus texts --out made "
        "--judge-model loop"
    )
    with _judge() as (url, asked):
        _steerlab(folder, *words.split(), "--judge", url)
    files = ["rows.parquet", "summary.json", "table.md", "*.csv", "directions/*.safetensors"]
    files = [pattern for pattern in files if list((folder / "made").glob(pattern))]
    return {"asked": digests.of_lines(sorted(asked))} | digests.of_folder(folder / "made", files)


def calls(folder: Path) -> Tables:
    """The library's calls in calls.py."""
    _python(folder, str(Path(__file__).with_name("calls.py")), "calls.json")
    tables: Tables = json.loads((folder / "calls.json").read_text("utf-8"))
    return tables


# The longest first.
JOBS: tuple[Callable[[Path], Tables], ...] = (
    sparse,
    dense,
    calls,
    neurons,
    main_job,
    clas,
    one_by_one,
    sampled,
    raced,
)


# ------------------------------------------------------------------------ what the jobs are made of


def _steerlab(folder: Path, *words: str) -> str:
    return _python(folder, "-m", "steerlab.cli", *words)


def _python(folder: Path, *words: str) -> str:
    """Run Python on this checkout's package, in a folder; gives what it printed, and raises with
    its last words."""
    env = (
        os.environ
        | dict.fromkeys(THREADS, "1")
        | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    )
    env |= {"HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words[:4])} ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return done.stdout


def _corpus(folder: Path, langs: dict[str, str], *, count: int) -> None:
    """Write the first lines of the package's sentences to `texts`: each language from the file
    of the other name."""
    (folder / "texts").mkdir()
    for iso, of in langs.items():
        lines = (TEXTS / f"{of}.txt").read_text("utf-8").splitlines()[:count]
        (folder / "texts" / f"{iso}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _sweep(folder: Path, grid: dict[str, Any]) -> Tables:
    (folder / "grid.yaml").write_text(yaml.safe_dump(SMALL | grid), "utf-8")
    _steerlab(folder, "sweep", "grid.yaml", "--out", "made")
    return digests.of_folder(folder / "made", ROWS)


@contextmanager
def _judge() -> Iterator[tuple[str, list[str]]]:
    """An endpoint on loopback that likes answers of many words, and says nothing that can be
    read of those of five."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = str(body["messages"][-1]["content"])
            asked.append(text)
            answer = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
            words = len((answer.group(1) if answer else text).split())
            said = "I cannot say." if words == 5 else f"So so.\nRating: [[{min(2, words // 4)}]]"
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": said},
            }
            made = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "loop",
                "choices": [choice],
            }
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(made).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


# ----------------------------------------------------------------------------------------- the gate


def run(jobs: Sequence[Callable[[Path], Tables]], *, workers: int) -> tuple[Tables, list[str]]:
    """The tables of all jobs, by the job's name and their own, and what failed."""

    def work(job: Callable[[Path], Tables]) -> Tables | str:
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="gate-") as folder:
                made: Tables | str = job(Path(folder).resolve())
        except Exception as error:
            made = f"{job.__name__}: {type(error).__name__}: {error}"
        told = "failed" if isinstance(made, str) else f"{len(made)} tables"
        print(
            f"{job.__name__:12} {time.monotonic() - start:5.0f} s  {told}",
            file=sys.stderr,
            flush=True,
        )
        return made

    with ThreadPoolExecutor(workers) as pool:
        done = dict(zip(jobs, pool.map(work, jobs), strict=True))
    failed = [made for made in done.values() if isinstance(made, str)]
    tables = {
        f"{job.__name__}/{name}": table
        for job, made in done.items()
        if not isinstance(made, str)
        for name, table in made.items()
    }
    return dict(sorted(tables.items())), failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs; exit 1 where one fails or a table differs from the baseline."""
    names = {job.__name__: job for job in JOBS}
    parser = argparse.ArgumentParser(
        description="hash the results of a few small jobs, and compare them"
    )
    parser.add_argument("--out", type=Path, help="write the hashes to this .json")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="?",
        const=BASELINE,
        help="compare with this .json (default: the one beside this)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, help="these jobs alone; they are compared alone, too"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="jobs that run at once, a core each (default 2)"
    )
    options = parser.parse_args(arguments)
    before = json.loads(options.against.read_text("utf-8")) if options.against else None
    start = time.monotonic()
    jobs = [names[name] for name in options.only or names]
    tables, failed = run(jobs, workers=options.workers)
    print(
        f"{len(tables)} tables of {len(jobs)} jobs, {time.monotonic() - start:.0f} s",
        file=sys.stderr,
    )
    if options.out:
        options.out.write_text(digests.dump(tables), "utf-8")
    found = list(failed)
    if before is not None:
        asked = tuple(f"{job.__name__}/" for job in jobs)
        kept = {name: table for name, table in before.items() if name.startswith(asked)}
        found += digests.differences(kept, tables)
        print("\n".join(found) if found else f"no difference from {options.against}")
    elif found:
        print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
