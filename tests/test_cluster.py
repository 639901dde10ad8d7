"""Ray: a real local cluster of two workers gives the same table, also when one of them is
killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from test_resume import LINES, grid, runner

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.models.loading import reload
from steerlab.sweeps.ray import DEATHS, Ray
from steerlab.sweeps.sweep import sweep

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A local cluster of two cores."""
    import ray

    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(lively: Any) -> pd.DataFrame:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have: another number rounds otherwise
    try:
        return runner(str(lively("llama")), None).run(grid())
    finally:
        torch.set_num_threads(threads)


def workers() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [
        process for process in found if "_Worker" in " ".join(process.cmdline() or [process.name()])
    ]


@pytest.mark.timeout(240)
def test_two_workers_and_one_that_is_killed(ray, lively, tmp_path, alone):
    made = replace(runner(str(lively("llama")), tmp_path), workers=Ray("auto", 2))
    killed = []

    def kill() -> None:
        while not list(tmp_path.glob("*.jsonl")):
            time.sleep(0.02)
        victim = workers()[0]
        killed.append(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    table = made.run(grid())
    thread.join(10)
    assert killed, "a worker died on the way"
    assert len(table) == len(grid()) * LINES
    pd.testing.assert_frame_equal(table, alone)
    pids = {
        line.split('"worker":"')[1].split('"')[0]
        for file in tmp_path.glob("*.jsonl")
        for line in file.open()
    }
    assert len(pids) >= 2, "both worked"
    assert not any(str(os.getpid()) in pid for pid in pids), "and this process did not"


class Deadly(dict):
    """Extra tensors whose use in another process ends it, as running out of memory does."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def items(self) -> Any:
        if os.getpid() != self.home:
            os._exit(1)
        return super().items()


def test_a_batch_that_kills_every_worker_fails(ray, lively):
    made = runner(str(lively("llama")), None)
    fits = {"made": replace(made.directions["made"], extra=Deadly())}
    made = replace(made, directions=fits, workers=Ray("auto", 1), limits={"dev": 1})
    with pytest.raises(
        SteerlabError,
        match=f"every one of 3 cells failed; the first said: its worker died {DEATHS}",
    ):
        made.run(grid()[1:4])


@pytest.mark.timeout(240)
def test_what_is_fitted_by_name_travels(ray, polyglot):
    """Training is done before the workers begin, once."""
    keys: dict[str, Any] = {
        "estimators": ["bipo", "austeer"],
        "operators": {"add": [1.0], "scale_units": [0.5]},
        "layers": [3],
        "limit": 2,
        "new_tokens": 8,
        "training": {"steps": 2, "every": 1, "pairs": 24, "rate": 0.5, "new": 12},
    }
    texts = corpus(langs=["en", "de"])
    away = sweep(polyglot, texts, workers=Ray("auto", 1), **keys)
    here = sweep(polyglot, texts, **keys)
    assert not away.attrs.get("failed")
    assert set(away["method"]) == {"bipo", "austeer_scale_units"}
    assert list(away["output"]) == list(here["output"])
    tokens = [
        {name: fit["tokens"] for name, fit in rows.attrs["fit"].items()} for rows in (away, here)
    ]
    assert tokens[0] == tokens[1]


def test_another_model_behind_the_same_name_is_refused(lively):
    model = runner(str(lively("llama")), None).model
    with pytest.raises(
        SteerlabError, match="is another model here than where the work was planned"
    ):
        reload(str(lively("qwen2")), None, model.dtype, "cpu", model.fingerprint)
    assert (
        reload(str(lively("llama")), None, model.dtype, "cpu", model.fingerprint).fingerprint
        == model.fingerprint
    )


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("local", r"could be started on this machine \(The current node timed out\); let other"),
        ("10.0.0.1:1", r"no Ray cluster at '10\.0\.0\.1:1' \(The current node timed out\)"),
    ],
)
def test_a_cluster_that_does_not_start_is_a_sentence(lively, monkeypatch, address, told):
    """As on a machine with too much to do, where Ray raises a plain Exception."""
    import ray

    def late(**_: Any) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "init", late)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(SteerlabError, match=told):
        replace(runner(str(lively("llama")), None), workers=Ray(address)).run(grid())


def test_no_cluster_at_an_address_and_no_ray_at_all(lively, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    made = replace(runner(str(lively("llama")), None), workers=Ray("auto"))
    with pytest.raises(SteerlabError, match=r"Ray is not installed; install steerlab\[ray\]"):
        made.run(grid())


def test_a_model_in_memory_cannot_be_sent(lens):
    from steerlab.models.loading import load

    with pytest.raises(
        SteerlabError, match="lives in this process only; other processes need a Hub id or a folder"
    ):
        load(lens("llama", "bridge")).__reduce__()


def test_a_users_own_travel_made_and_by_value(ray, lively):
    """Directions and what an operator does go to the workers, which have no file of either."""
    from steerlab.core.corpus import corpus
    from steerlab.core.moments import Moments
    from steerlab.edits import add
    from steerlab.estimate import diffmean
    from steerlab.sweeps.sweep import sweep

    fitted_in = []

    def mine(moments: Moments) -> Any:
        fitted_in.append(os.getpid())
        return diffmean(moments)

    def pushed(direction, *, strength):
        return add(direction, strength=strength)

    texts = corpus(langs=["en", "de"])
    keys: dict[str, Any] = {"layers": [1], "limit": 2, "targets": ["de"]}
    keys |= {"strengths": [1.0], "new_tokens": 4}
    keys |= {"estimators": [mine], "operators": {"pushed": pushed}}
    model = str(lively("llama"))
    rows = sweep(model, texts, workers=Ray("auto", 1), **keys)
    assert not rows.attrs.get("failed")
    assert set(rows["method"]) == {"mine_pushed"}
    assert set(fitted_in) == {os.getpid()}, "the estimator runs here, and not on the workers"
    assert list(rows["output"]) == list(sweep(model, texts, **keys)["output"])


def test_a_language_of_ones_own_is_known_to_the_workers(ray, lively, monkeypatch):
    from steerlab.core.corpus import Corpus, corpus
    from steerlab.core.languages import LANGUAGES, _code_of, add_language
    from steerlab.sweeps.cell import Cell

    monkeypatch.setattr("steerlab.core.languages.LANGUAGES", dict(LANGUAGES))
    add_language("xyzzy", family="Adventure", name="Colossal")
    packaged = corpus(langs=["en", "de"])
    lines = {"en": packaged["en"], "xyzzy": packaged["de"]}
    made = replace(
        runner(str(lively("llama")), None),
        corpus=Corpus("own", lines, packaged.numbers),
        directions={},
        limits={"dev": 2},
        fluency=False,
    )
    # This form asks for the target by its name.
    cell = Cell.unsteered(source="en", target="xyzzy", split="dev", form="instructed")
    there = replace(made, workers=Ray("auto", 1)).run([cell])
    assert not there.attrs.get("failed")
    assert there["prompt"].str.endswith("\nColossal:").all()
    assert list(there["output"]) == list(made.run([cell])["output"])
    _code_of.cache_clear()


LISTENING = """
import psutil, ray
from steerlab.sweeps.ray import _connected
with _connected("local"):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status == "LISTEN":
                print(process.name(), connection.laddr.ip)
    address = ray.get_runtime_context().gcs_address
    print("address", address.rpartition(":")[0])
"""


def test_a_local_cluster_listens_on_loopback_alone() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    assert lines, run.stderr
    assert ["address", "127.0.0.1"] in lines
    assert {name for name, _ in lines} >= {"gcs_server", "raylet"}
    places = {place.removeprefix("::ffff:") for _, place in lines}
    assert places == {"127.0.0.1"}


ASKING = """
import ray
from steerlab.sweeps.ray import _connected
with _connected("local"):
    print(ray.get_runtime_context().gcs_address, flush=True)
    input()
"""
CALLING = """
import sys
from ray._raylet import GcsClient
print("nodes", len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))
"""


def test_a_local_cluster_refuses_a_caller_without_its_token(tmp_path: Path) -> None:
    """On the machine itself, where loopback is no wall: another user, who cannot read the token."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    cluster = subprocess.Popen(
        [sys.executable, "-c", ASKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=own,
    )
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    assert address

    def call(**env: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", CALLING, address]
        return subprocess.run(words, env=own | env, capture_output=True, text=True, timeout=120)

    try:
        stranger = {"HOME": str(tmp_path)}
        for env in (
            {"RAY_AUTH_MODE": "disabled"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        ):
            refused = call(**stranger, **env)
            assert refused.returncode
            assert "InvalidAuthToken" in refused.stderr, refused.stderr[-500:]
        # The control: with the token it comes in.
        token = (Path.home() / ".ray" / "auth_token").read_text("utf-8").strip()
        admitted = call(**stranger, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
        assert admitted.stdout.strip() == "nodes 1", admitted.stderr[-500:]
    finally:
        cluster.communicate("\n", timeout=120)
