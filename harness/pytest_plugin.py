"""The pytest plugin: collects, runs and reports scenario files as ordinary items.

It collects the YAML files below `scenarios/` and `failures/` of the root directory, and every YAML
file that the command line names. Each is one item, `path::scenario`, or one for each choice from
its matrix, such as `path::pp2-async`. A scenario with `explore:` is one item for each dozen of
strikes, such as `path::explore-1of3`; without a budget it is marked `long`, and only runs with `-m
long` or when its file is named. A file that cannot be read is an item that fails; the others still
run.

Imports that need Linux or cost time wait until the first scenario runs, so that collecting is quick
and works everywhere.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.arguments import PROMISES_HELP, layout_name, promises_text
from harness.known import KnownError, Reds, read_known, surprises, write_known
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.plan.asked import not_promised
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.command.command import CommandError
from harness.scenario.devices import count_gpus
from harness.scenario.errors import ScenarioError
from harness.scenario.exploration import Explore
from harness.scenario.read import read_file
from harness.scenario.source import Source
from harness.search.explore.job import Explored, count_parts
from harness.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from harness.run.services import Services
    from harness.trial import Bench

FOLDERS = ("scenarios", "failures")
SUFFIXES = (".yaml", ".yml")
ITEM = "scenario"
"""The item of a file without a matrix. It does not depend on the scenario's name, so `--lf` finds
it when that has changed."""

_FENCE_S = 3600.0
"""The last resort, for a harness that hangs itself: no scenario takes a hundredth of it on idle
cores. Hung runs are ended by their own budgets, which do not depend on the load of the machine."""


class Red(Exception):
    """A scenario whose outcome is not PASS. Its text is the report."""


@dataclasses.dataclass(slots=True)
class Session:
    """State that the scenarios of one pytest process share."""

    root: Path
    workspace: Workspace
    implementation: Implementation
    known: Reds = dataclasses.field(default_factory=dict)
    """Scenarios that are expected to be red, and what they break."""
    open: ExitStack = dataclasses.field(default_factory=ExitStack)
    _services: Services | None = None

    def bench(self) -> Bench:
        """Holds the fork server and the references, which are started with the first scenario."""
        from harness.run.services import Services
        from harness.trial import Bench

        if self._services is None:
            self._services = self.open.enter_context(Services(self.workspace.shared))
        return Bench(
            services=self._services,
            workspace=self.workspace,
            implementation=self.implementation,
            gpus=count_gpus(),
        )


_SESSION = pytest.StashKey[Session]()
_IS_WORKER = pytest.StashKey[bool]()

pytest_plugins = ["harness.pytest_generate", "harness.pytest_repeat"]


def session_of(config: pytest.Config) -> Session:
    """Returns the state that the scenarios of this process share."""
    return config.stash[_SESSION]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the harness."""
    group = parser.getgroup("harness", "checkpoint scenarios")
    group.addoption(
        "--implementation",
        metavar="MODULE:NAME",
        default=Implementation().name,
        help="the checkpoint manager to test (default: %(default)s)",
    )
    group.addoption(
        "--implementation-path",
        metavar="DIR",
        type=Path,
        help="a folder in which the ranks look for it first",
    )
    group.addoption(
        "--layout",
        metavar="NAME",
        type=layout_name,
        default=DEFAULT,
        help=f"what its checkpoint directories look like: {', '.join(LAYOUTS)}",
    )
    group.addoption(
        "--known",
        metavar="FILE",
        type=Path,
        help="expect the reds that this file lists, and no others",
    )
    group.addoption(
        "--write-known", metavar="FILE", type=Path, help="write the reds of this session there"
    )
    group.addoption("--promises", metavar="WORD,...", type=promises_text, help=PROMISES_HELP)
    group.addoption(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="the device of scenarios that leave it open; with cuda, ranks share GPUs if they must",
    )
    group.addoption(
        "--run-root",
        metavar="DIR",
        type=Path,
        help="where scenarios run and leave the evidence of failures "
        "(default: shared memory or the temporary directory, failures move to failures/)",
    )
    group.addoption(
        "--keep-runs",
        action="store_true",
        help="keep the run directories of scenarios that passed, too",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; choose the session's workspace."""
    config.addinivalue_line("markers", "gpu: a scenario with `device: cuda`")
    config.addinivalue_line("markers", "long: every strike of an exploration, for hours if need be")
    config.stash[_IS_WORKER] = hasattr(config, "workerinput")
    root = _root(config)
    config.stash[_SESSION] = Session(
        root, _workspace(config, root), _implementation(config), known=_known(config)
    )


@pytest.hookimpl(tryfirst=True)  # before xdist starts its workers
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start another implementation once, before any scenario; learn what it promises."""
    from harness.run.inspecting import ImplementationError, inspect_implementation

    own = session.config.stash[_SESSION]
    if session.config.stash[_IS_WORKER]:
        return
    try:
        promises = session.config.getoption("promises")
        own.implementation = inspect_implementation(own.implementation, promises)
    except ImplementationError as error:
        raise pytest.UsageError(str(error)) from None


def _root(config: pytest.Config) -> Path:
    """Returns pytest's root directory, unless pytest found it through another option's folder.

    Before it knows the options it takes `--implementation-path DIR` for a path to tests.
    """
    folder: Path | None = config.getoption("implementation_path")
    here, found = config.invocation_params.dir, config.rootpath
    misled = folder is not None and folder.resolve().is_relative_to(found)
    return here if misled and not here.is_relative_to(found) else found


def _workspace(config: pytest.Config, root: Path) -> Workspace:
    workspace = open_workspace(
        failures=root / "failures",
        chosen=config.getoption("run_root"),
        keep_passed=config.getoption("keep_runs"),
    )
    if config.stash[_IS_WORKER]:
        shared = config.workerinput["harness_root"]  # type: ignore[attr-defined]
        return dataclasses.replace(workspace, root=Path(shared))
    return workspace


def _known(config: pytest.Config) -> Reds:
    path: Path | None = config.getoption("known")
    try:
        return {} if path is None else read_known(path)
    except KnownError as error:
        raise pytest.UsageError(f"--known {error}") from None


def _implementation(config: pytest.Config) -> Implementation:
    name: str = config.getoption("implementation")
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise pytest.UsageError(f"--implementation {name!r}: expected MODULE:NAME")
    folder: Path | None = config.getoption("implementation_path")
    if folder is not None and not folder.is_dir():
        raise pytest.UsageError(f"--implementation-path {folder}: no such directory")
    path = None if folder is None else str(folder.resolve())
    found = Implementation(name=name, path=path, layout=config.getoption("layout"))
    if not config.stash[_IS_WORKER]:
        return found
    promises = tuple(config.workerinput["harness_promises"])  # type: ignore[attr-defined]
    return found.model_copy(update={"promises": promises})


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With pytest-xdist: pass the session's workspace to a new worker."""
    session = node.config.stash[_SESSION]
    node.workerinput["harness_root"] = str(session.workspace.root)
    node.workerinput["harness_promises"] = session.implementation.promises


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the server; the process that began the session cleans up after all workers."""
    session = config.stash.get(_SESSION, None)
    if session is None:
        return
    session.open.close()
    if not config.stash[_IS_WORKER]:
        session.workspace.close()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the server while pytest can still report errors in doing so."""
    session.config.stash[_SESSION].open.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out items marked `long`, unless they are requested."""
    if "long" in config.option.markexpr:
        return
    out = [
        item
        for item in items
        if item.get_closest_marker("long") and not item.session.isinitpath(item.path)
    ]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report explorations, the answers of replays, fixed reds, and where kept runs are."""
    _write_known(terminalreporter, config)
    for word in ("passed", "failed"):
        for report in terminalreporter.stats.get(word, []):
            for name, value in report.user_properties:
                if name in ("explored", "replayed"):
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
                if name == "fixed":
                    terminalreporter.write_line(f"{report.nodeid}: fixed, no longer {value}")
    workspace = config.stash[_SESSION].workspace
    if workspace.keep_passed and workspace.root.exists():
        terminalreporter.write_line(f"runs are kept in {workspace.root}")


def _write_known(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    path: Path | None = config.getoption("write_known")
    if path is None:
        return
    reports = [
        report for word in ("failed", "xfailed") for report in terminalreporter.stats.get(word, [])
    ]
    found = [dict(one.user_properties) for one in reports]
    reds = {one["known_as"]: tuple(one["broken"].split(", ")) for one in found if "known_as" in one}
    write_known(path, config.stash[_SESSION].implementation.name, reds)
    terminalreporter.write_line(f"{len(reds)} known reds are in {path}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioModule | None:
    """Collect the YAML files that are scenarios."""
    if file_path.suffix not in SUFFIXES:
        return None
    root = parent.config.stash[_SESSION].root
    inside = any(file_path.is_relative_to(root / folder) for folder in FOLDERS)
    if not inside and not parent.session.isinitpath(file_path):
        return None
    return ScenarioModule.from_parent(parent, path=file_path)


class ScenarioModule(pytest.File):
    """A YAML file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yields one item for each scenario of the file, or one that reports what is wrong."""
        root = self.config.stash[_SESSION].root
        inside = self.path.is_relative_to(root)
        shown = self.path.relative_to(root).as_posix() if inside else str(self.path)
        gpus = count_gpus()
        try:
            device = self.config.getoption("device")
            found = read_file(self.path, shown=shown, gpus=gpus, device=device)
        except ScenarioError as error:
            yield UnreadableItem.from_parent(self, name=ITEM, error=error)
            return
        chosen = self.config.stash[_SESSION].implementation
        for label, one in found.items():
            name = label or ITEM
            if isinstance(one, ScenarioError):
                yield UnreadableItem.from_parent(self, name=name, error=one)
                continue
            plan = make_plan(one.scenario, source=shown, implementation=chosen, gpus=gpus)
            if one.scenario.explore is None:
                yield ScenarioItem.from_parent(self, name=name, plan=plan, source=one.source)
                continue
            job = Explored(scenario=one.scenario, shown=shown)
            parts = count_parts(one.scenario.explore.budget)
            for number in range(parts):
                part = f"{label}-" if label else ""
                part += f"explore-{number + 1}of{parts}"
                yield ExploreItem.from_parent(
                    self, name=part, plan=plan, job=job, number=number, parts=parts
                )


class UnreadableItem(pytest.Item):
    """A scenario file that cannot be run."""

    def __init__(self, *, error: ScenarioError, **rest: Any) -> None:
        super().__init__(**rest)
        self.error = error
        self.extra_keyword_matches.update(_folders(self.path, self.config.stash[_SESSION].root))

    def runtest(self) -> None:
        """Fail with the mistakes of the file."""
        raise self.error

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Returns the mistakes, without a traceback."""
        return _say(excinfo) or super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int, str]:
        """Returns the heading of the report."""
        return self.path, 0, f"{self.error.path}: not a scenario"


class JobItem(pytest.Item):
    """An item that runs jobs: a scenario, or a part of an exploration."""

    explore: Explore | None = None

    def __init__(self, *, plan: Plan, **rest: Any) -> None:
        super().__init__(**rest)
        self.plan = plan
        root = self.config.stash[_SESSION].root
        inside = self.path.is_relative_to(root)
        self.key = f"{self.path.relative_to(root) if inside else self.path}::{self.name}"
        """The name of the scenario in a list of known reds, however often it is repeated."""
        self.filesystem = plan.filesystem
        """The file system whose power is cut, if any."""
        self.extra_keyword_matches.update(
            _folders(self.path, self.config.stash[_SESSION].root), {plan.name}
        )
        if self.config.pluginmanager.hasplugin("timeout"):
            self.add_marker(pytest.mark.timeout(_FENCE_S))
        # For JUnit: `python -m harness matrix` reads from it where the test ran, or would have.
        self.user_properties.append(("device", plan.workload.device))
        if plan.workload.device == "cuda":
            self.add_marker(pytest.mark.gpu)
            if count_gpus() == 0:
                reason = "device: cuda, and there is no GPU here that this torch can use"
                self.add_marker(pytest.mark.skip(reason=reason))

    def setup(self) -> None:
        """Skip if the machine lacks what the scenario needs."""
        from harness.run.support import missing_disk, missing_for

        reason = not_promised(self.plan, self.explore)
        reason = reason or missing_for(self.plan) or missing_disk(self.filesystem)
        if reason is not None:
            pytest.skip(reason)

    def settle(self, broken: tuple[str, ...], text: str) -> None:
        """Ends a test that broke something, or nothing, as the known reds expect or not."""
        known = self.config.stash[_SESSION].known
        if not broken:
            if self.key in known:
                self.user_properties.append(("fixed", ", ".join(known[self.key])))
            return
        self.user_properties += [("broken", ", ".join(broken)), ("known_as", self.key)]
        new = surprises(known, self.key, broken)
        if not new:
            pytest.xfail(f"known: {', '.join(broken)}")
        head = f"known, and now also {', '.join(new)}:\n" if self.key in known else ""
        raise Red(head + text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Returns the report, without a traceback unless the harness itself broke."""
        return _say(excinfo) or super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int, str]:
        """Returns the heading of the report."""
        return self.path, 0, self.plan.name


class ScenarioItem(JobItem):
    """A scenario."""

    def __init__(self, *, source: Source, **rest: Any) -> None:
        super().__init__(**rest)
        self.source = source

    def runtest(self) -> None:
        """Run, judge, and fail unless the outcome is PASS."""
        from harness import prove

        proof = prove.prove(self.config.stash[_SESSION].bench(), self.plan, self.source)
        # As plain text, because xdist sends it from worker to controller.
        self.user_properties.append(("outcome", str(proof.outcome)))
        if proof.left_out:
            self.user_properties.append(("left_out", "; ".join(proof.left_out)))
        if proof.answer is not None:
            self.user_properties.append(("answer", str(proof.answer)))
            self.user_properties.append(("replayed", proof.summary))
        if proof.outcome != "PASS":
            self.user_properties.append(("replay", proof.replay))
        broken = proof.broken or (str(proof.outcome),)
        self.settle(broken if proof.outcome != "PASS" else (), proof.text)

    def again(self, suffix: str) -> pytest.Item:
        """Returns the same scenario, to be run once more."""
        assert self.parent is not None, "a scenario is collected from a file"
        name = f"{self.name}-{suffix}"
        same = type(self).from_parent(self.parent, name=name, plan=self.plan, source=self.source)
        same.key = self.key
        return same


class ExploreItem(JobItem):
    """A part of an exploration; its number of strikes is known after the baseline trace."""

    def __init__(self, *, job: Explored, number: int, parts: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.job, self.number, self.parts = job, number, parts
        self.explore = job.explore
        self.filesystem = job.filesystem
        if job.explore.budget is None:
            self.add_marker(pytest.mark.long)
            # Only the budget of each run counts; pytest-timeout reads the first marker.
            self.add_marker(pytest.mark.timeout(0), append=False)

    def runtest(self) -> None:
        """Strike, judge, and fail unless every outcome is PASS."""
        from harness.search.explore.explore import RedBaseline
        from harness.search.explore.part import explore_part
        from harness.search.explore.summary import describe_summary, headline

        bench = self.config.stash[_SESSION].bench()
        try:
            summary = explore_part(bench, self.job, self.number, self.parts)
        except RedBaseline as error:
            raise Red(str(error)) from None
        self.user_properties.append(("explored", headline(summary)))
        self.user_properties.append(("outcome", str(summary.outcome)))
        broken = () if summary.is_green else summary.broken or (str(summary.outcome),)
        self.settle(broken, describe_summary(summary))


def _say(excinfo: pytest.ExceptionInfo[BaseException]) -> str | None:
    if isinstance(excinfo.value, CommandError):
        return f"the command cannot be tested: {excinfo.value}"
    return str(excinfo.value) if isinstance(excinfo.value, Red | ScenarioError) else None


def _folders(path: Path, root: Path) -> set[str]:
    """Returns the folders around a file, so that `-k async` selects an area."""
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return {part for part in inside.parent.parts if part not in FOLDERS}
