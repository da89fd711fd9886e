"""Names a scenario as its author would have: area: subject: condition (topology)."""

from __future__ import annotations

from harness.faults.actions import Acting
from harness.faults.base import Fault
from harness.faults.point import Point
from harness.scenario.schema import Scenario


def titled(scenario: Scenario) -> Scenario:
    """Returns the same scenario under a title that describes it."""
    return scenario.model_copy(update={"name": title_of(scenario)})


def title_of(scenario: Scenario) -> str:
    """Returns a sentence with the first event, and how many more there are."""
    happenings: list[Fault | Acting] = []
    for run in scenario.runs:
        happenings += [*run.before, *run.faults]
    condition, area, subject = _quiet(scenario), "baseline", ""
    if happenings:
        area, subject, condition = _event_log(happenings[0], scenario)
    words = [condition, *_also(len(happenings) - 1), _ending(scenario)]
    parts = [part for part in (area, subject, ", ".join(word for word in words if word)) if part]
    return f"{': '.join(parts)} ({_topology(scenario)})"


def _event_log(happening: Fault | Acting, scenario: Scenario) -> tuple[str, str, str]:
    """Returns area, subject and condition of one fault or action."""
    if isinstance(happening, Acting):
        return "at rest", "", happening.describe()
    at = happening.at
    usual = "sync" if scenario.checkpoint.async_mode == "disabled" else "async"
    subject = "resume" if at.phase == "load" else at.phase or ""
    return happening.area or usual, subject, f"{happening.describe()}{_where(at)}"


def _where(at: Point) -> str:
    if at.during is not None:
        return f" during {at.during}{f' {at.nth}' if at.nth > 1 else ''}"
    if at.step is not None:
        return f" after step {at.step}"
    save = "" if at.save is None else f" of save {at.save}"
    if at.operation is None and at.nth == 1 and at.when == "before":
        return f" in{save.removeprefix(' of')}" if save else ""
    nth = "" if at.nth == 1 else f" {at.nth}"
    return f" {at.when} {at.operation or 'operation'}{nth}{save}"


def _quiet(scenario: Scenario) -> str:
    """Returns the title of a scenario without faults."""
    if any(run.refused is not None for run in scenario.runs):
        return "a start is refused"
    return "nothing strikes"


def _also(others: int) -> tuple[str, ...]:
    return (f"{others} more" if others > 0 else "",)


def _ending(scenario: Scenario) -> str:
    resumes = len(scenario.runs) - 1
    return {0: "", 1: "and the job resumes"}.get(resumes, f"and the job resumes {resumes} times")


def _topology(scenario: Scenario) -> str:
    worlds = [scenario.world.brief]
    worlds += [run.world.brief for run in scenario.runs if run.world is not None]
    words = [" to ".join(dict.fromkeys(worlds)), *_form(scenario)]
    mode = scenario.checkpoint.async_mode
    return ", ".join(words if mode == "disabled" else (*words, mode))


def _form(scenario: Scenario) -> tuple[str, ...]:
    """Returns the model and the optimizer, if they are not the usual ones."""
    words = (scenario.model.variant, scenario.optimizer)
    return tuple(word for word in words if word not in ("plain", "adamw"))
