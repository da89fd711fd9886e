"""Names a scenario as its author would have: area: subject: condition (topology)."""

from __future__ import annotations

from harness.faults.actions import action_of
from harness.faults.point import Point
from harness.faults.registry import AnyFault
from harness.part import Part
from harness.scenario.schema import Scenario
from harness.words import DISPLACING

_DOES = {
    "kill": ("is killed", "are killed"),
    "sigterm": ("is told to end", "are told to end"),
    "stop": ("stands still for a while", "stand still for a while"),
    "short_write": ("gets half of a write done", ""),
    "delay": ("waits for its storage", ""),
    "hang": ("waits for ever for its storage", ""),
    "exit": ("exits", "exit"),
}
_WITHOUT_RANK = {
    "power_cut": "the power goes",
    "second_job": "a second job starts",
    "time_limit": "the time limit comes",
    "cut_link": "a node is cut off",
    "slow_link": "the way to a node is slow",
}
_AREA = {
    "power_cut": "power",
    "second_job": "second job",
    "by_hand": "by hand",
    "time_limit": "launchers",
    "cut_link": "network",
    "slow_link": "network",
    "sigterm": "signals",
    "raise": "loop",
    "exit": "loop",
    "fail": "storage",
    "short_write": "storage",
    "delay": "storage",
    "hang": "storage",
    "stop": "storage",
}
_HANDS = {
    "flip_bit": "a bit flips in",
    "truncate": "the end is gone of",
    "delete": "somebody deletes",
    "half_delete": "somebody deletes half of",
    "swap": "a file of another save takes the place of",
    "hostile": "a pickle that runs code takes the place of",
    "write": "somebody edits",
    "foreign": "somebody leaves",
}


def titled(scenario: Scenario) -> Scenario:
    """The same scenario under a name that says what it says."""
    return scenario.model_copy(update={"name": title_of(scenario)})


def title_of(scenario: Scenario) -> str:
    """A sentence with the first thing that happens, and how much else there is."""
    happenings = [one for run in scenario.runs for one in (*run.before, *run.faults)]
    told, area, subject = _quiet(scenario), "baseline", ""
    if happenings:
        area, subject, told = _story(happenings[0], scenario)
    words = [told, *_also(len(happenings) - 1), _ending(scenario)]
    parts = [part for part in (area, subject, ", ".join(word for word in words if word)) if part]
    return f"{': '.join(parts)} ({_topology(scenario)})"


def _story(happening: AnyFault | Part, scenario: Scenario) -> tuple[str, str, str]:
    """Area, subject and condition of one fault or action."""
    if not hasattr(happening, "at"):
        return "at rest", "", _hand(happening)
    fault: AnyFault = happening  # type: ignore[assignment]
    kind = fault.word
    usual = "sync" if scenario.checkpoint.async_mode == "disabled" else "async"
    subject = "resume" if fault.at.phase == "load" else fault.at.phase or ""
    return _AREA.get(kind, usual), subject, f"{_victim(fault, kind)}{_where(fault.at)}"


def _victim(fault: AnyFault, kind: str) -> str:
    target = getattr(fault, kind)
    if kind == "by_hand":
        return f"{_hand(target)} while the job runs,"
    if kind in _WITHOUT_RANK:
        return _WITHOUT_RANK[kind]
    several = target.rank == "all"
    who = "all ranks" if several else f"rank {target.rank}"
    if kind == "raise":
        return f"rank {target.rank} raises {target.error}"
    if kind == "fail":
        return f"rank {target.rank} meets {target.error}{_how_long(target)}"
    return f"{who} {_DOES[kind][several]}"


def _how_long(target: Part) -> str:
    until, times = getattr(target, "until", None), getattr(target, "times", 1)
    if until is not None:
        return " until a save" if until.save is not None else " until a step"
    return {1: " once", "always": " from then on"}.get(times, f" {times} times")


def _where(at: Point) -> str:
    if at.step is not None:
        return f" after step {at.step}"
    save = "" if at.save is None else f" of save {at.save}"
    if at.operation is None and at.nth == 1 and at.when == "before":
        return f" in{save.removeprefix(' of')}" if save else ""
    nth = "" if at.nth == 1 else f" {at.nth}"
    return f" {at.when} {at.operation or 'operation'}{nth}{save}"


def _hand(action: Part) -> str:
    word = action_of(action)
    settings = getattr(action, word)
    if word in _HANDS:
        return f"{_HANDS[word]} {settings.path}"
    if word == "latest":
        return (
            f"latest is set to step {settings.step}"
            if settings.becomes is None
            else (f"latest is {settings.becomes}")
        )
    if word == "relocate":
        return "the directory is copied" if settings.how == "copy" else "the directory is moved"
    if word in DISPLACING:
        return "the directory is moved away" if word == "displace" else "it is put back"
    return f"a dead run left a {settings.kind}"


def _quiet(scenario: Scenario) -> str:
    """What can be said where nothing happens."""
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
    told = [" to ".join(dict.fromkeys(worlds)), *_form(scenario)]
    mode = scenario.checkpoint.async_mode
    return ", ".join(told if mode == "disabled" else (*told, mode))


def _form(scenario: Scenario) -> tuple[str, ...]:
    """What is said of the model and the optimizer where they are others than usual."""
    words = (scenario.model.variant, scenario.optimizer)
    return tuple(word for word in words if word not in ("plain", "adamw"))
