"""The scenarios of a seed: the n-th is the same, however many are requested.

Some of them share a job, so that they share its baseline trace and its reference as well.
"""

from __future__ import annotations

from random import Random

from harness.scenario.schema import Scenario
from harness.search.generate.candidates import Candidates
from harness.search.generate.draw import draw_scenario
from harness.search.generate.job import Areas, draw_job

SCENARIOS_OF_A_JOB = 4
"""A baseline trace costs about as much as half a scenario."""


def job_of(seed: int, number: int, *, without: Areas = frozenset()) -> Scenario:
    """Returns the job of the n-th scenario, from 1."""
    family = (number - 1) // SCENARIOS_OF_A_JOB
    # Text, because Python promises to draw the same from it in every process.
    return draw_job(Random(f"{seed} job {family}"), without=without)


def is_first_of_job(number: int) -> bool:
    """Whether no earlier scenario has the same job."""
    return (number - 1) % SCENARIOS_OF_A_JOB == 0


def scenario_of(
    seed: int, number: int, candidates: Candidates, *, without: Areas = frozenset()
) -> Scenario:
    """Returns the n-th scenario, from 1, given the candidates of its job."""
    job = job_of(seed, number, without=without)
    return draw_scenario(Random(f"{seed} scenario {number}"), job, candidates, without=without)
