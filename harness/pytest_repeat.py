"""The part of the pytest plugin that runs each item several times and compares the verdicts.

`--repeat N` runs each item N times and reports the spread; `--flake` reports the items whose
verdicts differ, after ten runs each unless `--repeat` says how many. A verdict is the outcome with
what was broken, so two different failures of one item count as different. The session is red if a
run was, as always, and also if verdicts differ in any other way, such as skipped and passed.

Only items with a method `again` repeat; ordinary tests run once.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol, runtime_checkable

import pytest

from harness.report.spread import describe_spreads, spreads

_TIMES = 10
"""If a verdict is wrong in one run of four, ten runs miss it one time in eighteen (0.75 ** 10)."""

REPETITION = "repetition_of"
"""The property that links the reports of one item, even across workers."""


@runtime_checkable
class Repeatable(Protocol):
    """An item that can be created again."""

    nodeid: str
    user_properties: list[tuple[str, object]]

    def again(self, suffix: str) -> pytest.Item:
        """Returns the same item under its own name and a suffix."""


_SEEN = pytest.StashKey[list[tuple[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("harness", "checkpoint scenarios")
    group.addoption(
        "--repeat", type=int, metavar="N", help="run each scenario N times, report the verdicts"
    )
    group.addoption(
        "--flake",
        action="store_true",
        help=f"report scenarios whose verdicts differ (runs each {_TIMES} times, or --repeat)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the number, and collect verdicts if something repeats."""
    config.stash[_SEEN] = []
    times = config.getoption("repeat")
    if times is not None and times < 1:
        raise pytest.UsageError(f"--repeat {times}: at least 1 run is needed")
    if _times(config) > 1:
        config.pluginmanager.register(_Notes(config.stash[_SEEN]), "harness-repeat-notes")


def _times(config: pytest.Config) -> int:
    default = _TIMES if config.getoption("flake") else 1
    return config.getoption("repeat") or default


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Repeat the items round by round, so that a bad minute hits all items alike."""
    times = _times(config)
    if times == 1:
        return
    once = [item for item in items if not isinstance(item, Repeatable)]
    rounds = (
        _again(item, f"{number}of{times}")
        for number, item in itertools.product(range(1, times + 1), items)
        if isinstance(item, Repeatable)
    )
    items[:] = [*once, *rounds]


def _again(item: Repeatable, suffix: str) -> pytest.Item:
    made = item.again(suffix)
    made.user_properties.append((REPETITION, item.nodeid))
    return made


class _Notes:
    """Records the verdict of each run, in the process that reports."""

    def __init__(self, seen: list[tuple[str, str]]) -> None:
        self._seen = seen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record one run, or the set-up that kept it from running."""
        properties = dict(report.user_properties)
        item = properties.get(REPETITION)
        if item is not None and (
            report.when == "call" or (report.when == "setup" and _out(report))
        ):
            self._seen.append((str(item), _verdict(report, properties)))


def _out(report: pytest.TestReport) -> bool:
    return report.outcome != "passed"


def _verdict(report: pytest.TestReport, properties: dict[str, object]) -> str:
    """Returns the outcome and what was broken; without an outcome, pytest's own word."""
    if "outcome" not in properties:
        return "skipped" if report.outcome == "skipped" else "no outcome"
    broken = f" ({properties['broken']})" if properties.get("broken") else ""
    answer = f"{properties['answer']} " if properties.get("answer") else ""
    return f"{answer}{properties['outcome']}{broken}"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make the session red if verdicts differ."""
    flaky = any(one.is_flaky for one in spreads(_seen(session.config)))
    if flaky and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _seen(config: pytest.Config) -> list[tuple[str, str]]:
    return config.stash[_SEEN]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report the spread."""
    seen = config.stash[_SEEN]
    if not seen:
        return
    terminalreporter.section("verdicts of repeated scenarios")
    for line in describe_spreads(spreads(seen), only_flaky=config.getoption("flake")):
        terminalreporter.write_line(line)
