"""Draws a whole scenario for a job, from the candidate points of its baseline trace."""

from __future__ import annotations

from random import Random

from harness.faults.actions import Action, Relocate
from harness.report.title import titled
from harness.scenario.possible import evaluation_steps, save_steps
from harness.scenario.schema import Batching, Freeze, FreezePlan, Run, Scenario, Scheduler
from harness.search.generate.actions import draw_actions
from harness.search.generate.candidates import Candidates
from harness.search.generate.chance import often, pick
from harness.search.generate.faults import draw_calm, draw_faults
from harness.search.generate.forms import is_plain
from harness.search.generate.job import Areas
from harness.search.generate.past import Past, foreign_names
from harness.search.generate.strikable import Faults, StrikableSpan
from harness.world import World

_MOST_STEPS = 20
"""More steps show nothing new and cost time."""
_MOST_DEGREE = 6
_REFUSED_DEGREE = "(?i)redistribut"
_REFUSED_FREEZE = "(?i)freeze"


def draw_scenario(
    random: Random, job: Scenario, candidates: Candidates, *, without: Areas = frozenset()
) -> Scenario:
    """Draws two to four runs of a job: struck, tampered with in between, run to the end."""
    number = pick(random, (2, 2, 2, 3, 3, 4))
    runs: list[Run] = []
    past = Past(checkpoint=job.checkpoint)
    while len(runs) < number:
        drawer = _Drawer(random, job, candidates, without, tuple(runs), past)
        run = drawer.refused() if 0 < len(runs) < number - 1 else None
        run = run or drawer.struck(is_last=len(runs) == number - 1)
        runs.append(run)
        past = past.after(run)
    return titled(job.model_copy(update={"runs": tuple(runs)}))


class _Drawer:
    """Draws one run, with the earlier ones in view."""

    def __init__(
        self,
        random: Random,
        job: Scenario,
        candidates: Candidates,
        without: Areas,
        runs: tuple[Run, ...],
        past: Past,
    ) -> None:
        self._random, self._job, self._candidates, self._without = random, job, candidates, without
        self._runs, self._past = runs, past

    def struck(self, *, is_last: bool) -> Run:
        """Draws a run that is struck, and tampered with before, as far as something fits."""
        random, past, number = self._random, self._past, len(self._runs)
        until = self._until()
        before = self._before() if number and often(random, 60) else ()
        load_step = None
        if number and past.certain and not before and often(random, 10):
            load_step = pick(random, past.certain[::-1])
        world = self._world() if number and not before else None
        settled = Run(
            until_step=until,
            before=before,
            load_step=load_step,
            world=world,
            learning_rate=self._learning_rate() if number else None,
            scheduler=self._scheduler() if number else None,
            data=self._reading() if number and world is None else None,
        )
        # An operator's possible actions are certain only after a run that came to its end.
        if not often(random, 15 if is_last else 65):
            return settled
        return settled.model_copy(update={"faults": self._faults(settled, is_last=is_last)})

    def refused(self) -> Run | None:
        """Draws, rarely, a start with settings that the checkpoints do not fit."""
        random, job = self._random, self._job
        if "layouts" in self._without or not self._past.certain or not often(random, 12):
            return None
        if not is_plain(job):
            return None
        until = self._until()
        module = _frozen_throughout(job.freeze)
        if module is not None:
            other = FreezePlan(base=(module.model_copy(update={"frozen": False}),))
            return Run(until_step=until, freeze=other, refused=_REFUSED_FREEZE)
        degree = 1 if job.world.dp_shard > 1 else 2
        # Several shards of one stage are enough to divide the same samples in another way.
        world = World(pp=1, dp_shard=degree)
        if job.data.redistributes:
            return None
        batches = job.data.samples // (job.data.batch_size * degree)
        if batches == 0 or batches % job.accumulate.in_a_step:
            return None
        return Run(until_step=until, world=world, refused=_REFUSED_DEGREE)

    def _until(self) -> int:
        if not self._runs:
            return self._job.runs[0].until_step
        interval = self._job.checkpoint.interval
        more = self._random.randrange(interval * 3 + 1)
        return max(self._past.reached, min(_MOST_STEPS, self._past.reached + more))

    def _before(self) -> tuple[Action, ...]:
        # If the power is cut the directory stays where it is: on a file system of its own.
        stays = _is_relocated(self._runs) or any(
            one.disk is not None for run in self._runs for one in run.faults
        )
        return draw_actions(
            self._random, self._past, self._candidates, relocated=stays, without=self._without
        )

    def _world(self) -> World | None:
        """Draws another degree if the loader can follow, else another number of stages."""
        world = self._job.world
        if self._job.data.redistributes:
            return self._degree(world)
        plain = World(pp=world.pp, dp_shard=world.dp_shard)
        if {"layouts", "pipeline"} & self._without or world.dp_shard > 2 or world != plain:
            return None
        if not is_plain(self._job) or self._job.model.layers < 2:
            return None
        return World(pp=3 - world.pp, dp_shard=world.dp_shard) if often(self._random, 10) else None

    def _scheduler(self) -> Scheduler | None:
        """Draws, rarely, another horizon for the schedule."""
        if not is_plain(self._job) or not often(self._random, 6):
            return None
        total = pick(self._random, (30,) if self._job.scheduler.kind == "one_cycle" else (4, 8, 30))
        return self._job.scheduler.model_copy(update={"total_steps": total})

    def _learning_rate(self) -> float | None:
        """Draws, rarely, another rate for a new optimizer, which the saved one replaces."""
        return 0.01 if is_plain(self._job) and often(self._random, 6) else None

    def _reading(self) -> Batching | None:
        """Draws other batches or workers, if the loader can follow and the ranks stay."""
        data, random = self._job.data, self._random
        stays = all(run.world is None for run in self._runs)
        alone = self._job.accumulate.in_a_step == 1
        if not (data.redistributes and stays and alone and is_plain(self._job)):
            return None
        if not often(random, 30):
            return None
        return Batching(
            batch_size=pick(random, (data.batch_size // 2, data.batch_size)),
            num_workers=pick(random, (0, 1, 2)),
        )

    def _degree(self, world: World) -> World | None:
        if any(run.data is not None for run in self._runs):
            return None
        if "layouts" in self._without or not is_plain(self._job) or not often(self._random, 40):
            return None
        others = [degree for degree in range(1, _MOST_DEGREE + 1) if degree != world.degree]
        return World(dp_shard=pick(self._random, others))

    def _faults(self, run: Run, *, is_last: bool) -> Faults:
        number, past = len(self._runs), self._past
        first = past.latest_start if run.load_step is None else run.load_step
        same_world = run.world is None
        saves = save_steps(past.checkpoint, after=first, until=run.until_step) if same_world else ()
        strikable = StrikableSpan(
            number=number,
            is_last=is_last,
            world=run.world or self._job.world,
            checkpoint=past.checkpoint,
            candidates=self._candidates,
            without=self._without,
            first=first,
            until=run.until_step,
            saves=saves,
            evaluations=len(evaluation_steps(self._job.evaluation, after=first, run=run)),
            relocated=_is_relocated((*self._runs, run)),
            foreign=past.foreign | foreign_names(run),
            comes_through=is_last,
        )
        return (
            draw_calm(self._random, strikable) if is_last else draw_faults(self._random, strikable)
        )


def _is_relocated(runs: tuple[Run, ...]) -> bool:
    return any(isinstance(one, Relocate) for run in runs for one in run.before)


def _frozen_throughout(freeze: FreezePlan) -> Freeze | None:
    """Returns a module that is frozen from the first step to the last."""
    return freeze.base[0] if freeze.base and not freeze.schedule else None
