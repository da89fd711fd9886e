"""What is particular to a fault, a layout or a job stands in one place: nothing else names it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.faults.registry import KINDS
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES, PROMISES
from harness.judge.verdict import Verdict
from harness.layouts.registry import LAYOUTS
from harness.plan.model import Implementation
from harness.promises import ALL
from harness.words import EvidenceKind
from tests.harness.judge.cases import Case, correct
from tests.harness.judge.lacking import known_jobs, without

ROOT = Path(__file__).resolve().parents[2]
_FREE = {"base", "actions", "answers", "effects", "point", "registry", "strike", "worded"}
"""Modules of `harness.faults` that are no faults."""
_WITH_REASON = {
    # An exploration builds the faults that it strikes with.
    "harness/search/explore/strike.py": {"fail", "kill", "power_cut"},
    # So does a test of a user's command.
    "harness/command/live.py": {"fail", "kill", "sigterm"},
    # Its failures strike as the states that they are from were left.
    "harness/command/scenarios.py": {"kill", "power_cut", "short_write"},
    # An exploration says on which file system the power is cut.
    "harness/scenario/exploration.py": {"power_cut"},
    # The words in which a second job is refused.
    "harness/judge/second_job.py": {"second_job"},
}


def _named(source: str) -> set[str]:
    """The modules of `harness.faults` that a source imports, in whichever way."""
    places = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            places |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            places |= {f"{node.module}.{one.name}" for one in node.names}
    return {place.split(".")[2] for place in places if place.startswith("harness.faults.")}


def _example(section: str) -> str:
    """The code of a section of the page."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    return str(example)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("from harness.faults.kill import Kill", {"kill"}),
        ("from harness.faults import kill, stop", {"kill", "stop"}),
        ("import harness.faults.kill", {"kill"}),
        ("def late():\n    import harness.faults.kill as one", {"kill"}),
        ("from harness.evidence import faults", set()),
    ],
)
def test_a_fault_is_named_in_each_form_of_an_import(source: str, named: set[str]) -> None:
    assert _named(source) == named


def test_no_other_module_of_the_harness_names_a_fault() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "harness").rglob("*.py")):
        place = str(path.relative_to(ROOT))
        if not place.startswith(("harness/faults/", "harness/search/generate/")):
            named = _named(path.read_text(encoding="utf-8")) - _FREE
            found |= {place: named} if named else {}
    # Equal, and not only a part: an exception that nothing needs any more has to go.
    assert found == _WITH_REASON


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.word))
def test_a_fault_says_what_it_is(kind: type) -> None:
    module = (ROOT / "harness" / "faults" / f"{kind.__module__.rpartition('.')[2]}.py").read_text()
    assert "must survive" in module
    assert kind.__doc__


@pytest.mark.parametrize(
    ("section", "module"),
    [("A fault", "faults/interrupt.py"), ("A layout", "layouts/dcp_steps.py")],
)
def test_the_examples_are_those_that_are_there(section: str, module: str) -> None:
    assert _example(section) in (ROOT / "harness" / module).read_text(encoding="utf-8")


_NAMES = re.compile(
    r"\bstep[_-](?=[\d*\\(\[{]|$)|^latest$|\.metadata|metadata\.json|train_state|distcp"
)
"""Names of checkpoints, pointers and files, as some layout has them."""
_LATEST = {
    # The word of the action on the pointer, whatever the layout calls that.
    "harness/faults/actions.py",
    "harness/run/operator_actions.py",
    "harness/scenario/between.py",
}


def _texts(path: Path) -> set[str]:
    """The strings of a module, those left out that describe something."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    described = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in described
    }


def test_no_name_of_a_layout_stands_outside_of_the_layouts() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "harness").rglob("*.py")):
        place = str(path.relative_to(ROOT))
        # What captures directories of the package reads them by the package's own modules. Results
        # of a command are read as torch wrote them, wherever they lie.
        if place.startswith(("harness/layouts/", "harness/capture/", "harness/jobs/command/")):
            continue
        named = {text for text in _texts(path) if _NAMES.search(text)}
        named -= {"latest"} if place in _LATEST else set()
        # The sentence of a promise is not about a layout's names, but quotes one.
        named -= {promise.sentence for promise in PROMISES.values()}
        found |= {place: named} if named else {}
    assert found == {}


def test_only_the_registry_names_a_layout() -> None:
    modules = {type(one).__module__ for one in LAYOUTS.values()}
    for path in sorted((ROOT / "harness").rglob("*.py")):
        if path != ROOT / "harness" / "layouts" / "registry.py":
            text = path.read_text(encoding="utf-8")
            assert not [one for one in modules if one in text], path


@pytest.fixture
def example_of_a_property(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of the page, in the registry."""
    module: dict[str, Any] = {"__name__": "example"}
    exec(compile(_example("A property"), "docs/extending.md", "exec"), module)  # noqa: S102
    promise = module["PROMISE"]
    monkeypatch.setitem(PROMISES, promise.name, promise)
    monkeypatch.setitem(JUDGES, promise.name, module["judge"])


def _verdict(case: Case, lacking: EvidenceKind | None = None) -> Verdict:
    evidence = case.evidence() if lacking is None else without(case.evidence(), lacking)
    implementation = Implementation(promises=(*ALL, "single_publisher"))
    plan = evidence.plan.model_copy(update={"implementation": implementation})
    evidence = replace(evidence, plan=plan)
    with known_jobs():
        return next(one for one in judge(evidence).verdicts if one.property == "single_publisher")


@pytest.mark.usefixtures("example_of_a_property")
def test_the_example_of_a_property_judges() -> None:
    assert _verdict(correct()).state == "holds"
    case = correct()
    case.runs[1].do("rename", ".latest-new", "latest", rank=1, error=2)
    assert _verdict(case).state == "holds"
    case.runs[1].do("symlink", "latest", "step_6", rank=1)
    verdict = _verdict(case)
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.HARD_FAIL)
    assert verdict.details == ("run 1: ranks [0, 1] changed `latest`",)
    assert not _verdict(case, EvidenceKind.TREE).applies()
    assert _verdict(case, EvidenceKind.TRAINING) == verdict


def test_only_the_registry_and_the_server_name_the_built_in_job() -> None:
    named = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "harness").rglob("*.py")
        if "harness.jobs.training" in path.read_text(encoding="utf-8")
    }
    outside = {one for one in named if not one.startswith("harness/jobs/training/")}
    # The server imports once what every rank would.
    assert outside == {"harness/jobs/registry.py", "harness/boot/server.py"}
