"""How the tests are dealt to the workers of pytest-xdist (`-n 2`): whole files, the longest first.

A file stays in one worker, so that what its tests share is made once. Some files go together.
"""

from typing import Any

import pytest

TOGETHER = (
    # They share a finished run of the command, which takes longer than most of their tests.
    ("test_bad_input", "test_cli", "test_study"),
    # Clusters, memory that runs out, clocks, processes that are killed: one of these at a time.
    ("test_cluster", "test_resume", "test_batches", "test_bench", "test_judges_endpoint"),
)
# Begun first, so that no worker is left alone with a long one at the end.
LONGEST = (
    "test_rows",
    "test_cluster",
    "test_bad_input",
    "test_readme",
    "test_parity",
    "test_fits",
    "test_sweeps",
    "test_branching",
)


def group(nodeid: str) -> str:
    """Which tests one worker gets as a whole: those of a file, or of files that go together."""
    file = nodeid.split("::")[0].rsplit("/", 1)[-1].removesuffix(".py")
    return next((files[0] for files in TOGETHER if file in files), file)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With workers, the longest groups first; else, and beside them, in the order that there is."""
    if not hasattr(config, "workerinput"):
        return
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(group(item.nodeid), len(ranks)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal by `group`, unless another --dist was asked for than the one that -n implies."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    if config.getoption("dist") != "load":
        return None
    config.option.loadscopereorder = False  # by number of tests, which says little of their time
    return ByGroup(config, log)
