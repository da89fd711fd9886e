"""Goes through a run's operations and judges every state that a power cut could have left.

The instants are those after each operation, in the one order of all ranks. At each of them the
profile says what may be lost. The states are judged as directories, equal ones once. An instant
after a sync has no state that the instants before did not have, so states are chosen after changes,
and again after each acknowledgement. If there are more than `most` at one instant they are sampled
by the seed, and the result counts the sampled instants.

It changes no file. It reads the stored bytes of files through the evidence's references to them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random

from harness.crash.choose import choose, everything
from harness.crash.explain import Cause, explain, loss_of
from harness.crash.instants import Instant, instants, leading_runs
from harness.crash.judge import DirectoryJudge, Needs, StateDefect
from harness.disk.changes import OperationKey
from harness.disk.disk import Disk, is_removal
from harness.disk.profiles import PROFILES, ProfileName
from harness.disk.state import Parts, SurvivingChanges
from harness.evidence.evidence import Evidence
from harness.judge.history import replay
from harness.judge.outcome import Outcome
from harness.judge.properties import PROMISES

MOST_AN_INSTANT = 256
"""Enough for every combination of four files' contents; a save seldom leaves more unsynced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashState:
    """A state of the directory: the instant of the power cut, and the tree that it leaves.

    `place` operations of the run were performed.
    """

    run: int
    place: int
    tree: int
    acknowledged: frozenset[int]
    faults: tuple[StateDefect, ...]


@dataclass(slots=True, kw_only=True)
class Hit:
    """A cause, where it first and last showed, and in how many states.

    A place is a run and the number of its operations so far.
    """

    cause: Cause
    needs: Needs
    """The checkpoints that had to be there when it first showed."""
    first: OperationKey
    last: OperationKey
    states: int = 1


@dataclass(slots=True, kw_only=True)
class Exploration:
    """The result. `resumable` has one state of each kind that a resume could distinguish."""

    profile: ProfileName
    seed: int
    parts: Parts
    judge: DirectoryJudge
    gaps: tuple[str, ...]
    operations: int = 0
    instants: int = 0
    sampled: int = 0
    states: int = 0
    distinct: int = 0
    seconds: float = 0.0
    hits: list[Hit] = field(default_factory=list)
    resumable: list[CrashState] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """The outcome; a job that changed nothing on the disk proves nothing."""
        if self.gaps or not self.operations:
            return Outcome.INVALID
        words = [PROMISES[hit.cause.fault.property].outcome for hit in self.hits]
        if Outcome.HARD_FAIL in words:
            return Outcome.HARD_FAIL
        return Outcome.LOST_WORK if words else Outcome.PASS


def explore(
    evidence: Evidence,
    *,
    profile: ProfileName = "posix",
    seed: int = 0,
    most: int = MOST_AN_INSTANT,
) -> Exploration:
    """Judge the crash states of all runs of the evidence."""
    return _Explorer(evidence, profile, seed, most).explore()


class _Explorer:
    def __init__(self, evidence: Evidence, profile: ProfileName, seed: int, most: int) -> None:
        self._evidence, self._most = evidence, most
        self._profile = PROFILES[profile]
        self._chance = Random(seed)
        self._disk = Disk(self._profile)
        self._parts = Parts(self._disk)
        self._judge = DirectoryJudge(
            self._parts, evidence.plan.layout, evidence.plan.workload.world
        )
        self._seen: set[tuple[int, Needs]] = set()
        self._distinguished: dict[object, int] = {}
        self._trees: set[int] = set()
        self.found = Exploration(
            profile=profile,
            seed=seed,
            parts=self._parts,
            judge=self._judge,
            gaps=replay(evidence).gaps,
        )

    def explore(self) -> Exploration:
        began = time.process_time()
        complete = True
        for instant in instants(self._evidence, self._disk):
            if instant.operation is not None and instant.change is not None:
                self._learn(removes=is_removal(instant.operation))
            # A sync only takes states away, but some of those before it were left out.
            if instant.change is not None or instant.operation is None or not complete:
                complete = self._look(instant)
        self.found.operations = sum(len(run.operations) for run in leading_runs(self._evidence))
        self.found.distinct = len(self._trees)
        self.found.seconds = time.process_time() - began
        return self.found

    def _learn(self, *, removes: bool) -> None:
        live = self._parts.state(everything(self._disk))
        if removes:
            self._judge.skip(live)
        else:
            self._judge.learn(live)

    def _look(self, instant: Instant) -> bool:
        """Judge the states of one instant; returns whether these were all."""
        choices = choose(self._disk, self._profile, instant.change, self._chance, self._most)
        live = self._parts.state(everything(self._disk))
        needs = self._judge.needs(live, instant.acknowledged)
        self.found.instants += 1
        self.found.sampled += not choices.complete
        self.found.states += len(choices.found)
        for choice in choices.found:
            tree = self._parts.state(choice)
            if (tree, needs) in self._seen:
                continue
            self._seen.add((tree, needs))
            faults = self._judge.faults(tree, needs)
            self._note(instant, tree, faults)
            for fault in faults:
                self._hit(instant, choice, fault, needs)
        return choices.complete

    def _note(self, instant: Instant, tree: int, faults: tuple[StateDefect, ...]) -> None:
        """Keep one state of each kind, at an instant at which most is required of it."""
        self._trees.add(tree)
        state = CrashState(
            run=instant.run,
            place=instant.place,
            tree=tree,
            acknowledged=instant.acknowledged,
            faults=faults,
        )
        kinds, states = self._distinguished, self.found.resumable
        number = kinds.setdefault(self._judge.seen_by_resume(tree), len(states))
        if number == len(states):
            states.append(state)
        elif states[number].acknowledged < instant.acknowledged:
            states[number] = state

    def _hit(
        self, instant: Instant, choice: SurvivingChanges, fault: StateDefect, needs: Needs
    ) -> None:
        loss, here = loss_of(self._disk, choice), (instant.run, instant.place)
        for hit in self.found.hits:
            if hit.cause.explains(fault, loss):
                hit.states, hit.last = hit.states + 1, here
                return
        cause = explain(
            self._disk,
            self._profile,
            choice,
            fault,
            lambda other: self._judge.faults(self._parts.state(other), needs),
        )
        for hit in self.found.hits:
            if hit.cause.explains(cause.fault, cause.loss) and cause.exposed == hit.cause.exposed:
                hit.states, hit.last = hit.states + 1, here
                return
        self.found.hits.append(Hit(cause=cause, needs=needs, first=here, last=here))
