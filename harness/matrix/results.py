"""Reads test results from the JUnit files of runs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Name = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one test on one device: `passed`, `skipped` or `failing`, and why.

    `day` is the day of the run.
    """

    name: Name
    device: str
    state: str
    why: str
    day: str


class ResultsError(Exception):
    """A file contains no results."""


def read_results(files: Iterable[Path]) -> dict[tuple[Name, str], Result]:
    """Returns the results by test and device.

    A later file replaces what an earlier one says, but a skip replaces no test that ran: another
    machine may have had what this one lacks.
    """
    found: dict[tuple[Name, str], Result] = {}
    for result in (result for path in files for result in _read(path)):
        key = (result.name, result.device)
        if result.state != "skipped" or key not in found:
            found[key] = result
    return found


def _read(path: Path) -> Iterator[Result]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ResultsError(f"{path} is not a JUnit file: {error}") from None
    for suite in root.iter("testsuite"):
        for case in suite.iter("testcase"):
            # A case without a name is the one in which pytest was interrupted. It looks like a
            # pass, and is not one.
            if case.get("name"):
                yield _result(case, day=suite.get("timestamp", "")[:10])


def _result(case: ElementTree.Element, *, day: str) -> Result:
    properties = {one.get("name"): one.get("value", "") for one in case.iter("property")}
    state, why = "passed", ""
    for child in case:
        if child.tag == "skipped":
            state, why = "skipped", child.get("message", "")
        elif child.tag in ("failure", "error"):
            state, why = "failing", properties.get("outcome", child.tag)
    return Result(
        name=(case.get("classname", ""), case.get("name", "")),
        device=properties.get("device", ""),
        state=state,
        why=why,
        day=day,
    )
