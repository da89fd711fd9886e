"""A scenario's name: area, subject, condition, topology."""

from __future__ import annotations

import pytest

from harness.report.title import title_of
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source

ONE = "runs: [{until_step: 4, faults: [%s]}, {until_step: 6}]\n"


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        ("{kill: {rank: all}, at: {save: 2, phase: flush}}",
         "sync: flush: all ranks are killed in save 2, and the job resumes (1 rank)"),
        ("{kill: {rank: 1}, at: {save: 2, phase: seal, operation: write, nth: 3, when: after}}",
         "sync: seal: rank 1 is killed after write 3 of save 2, and the job resumes (1 rank)"),
        ("{kill: {rank: 0}, at: {phase: load, path: a}}",
         "sync: resume: rank 0 is killed, and the job resumes (1 rank)"),
        ("{sigterm: {rank: all}, at: {step: 3}}",
         "signals: all ranks get SIGTERM after step 3, and the job resumes (1 rank)"),
        ("{fail: {rank: 1, error: EIO, times: 3}, at: {save: 1, operation: fsync}}",
         "storage: rank 1 meets EIO 3 times before fsync of save 1, and the job resumes (1 rank)"),
        ("{sigterm: {rank: all}, at: {during: ending}}",
         "signals: all ranks get SIGTERM during ending, and the job resumes (1 rank)"),
        ("{raise: {rank: 0}, at: {step: 3}}",
         "loop: rank 0 raises RuntimeError after step 3, and the job resumes (1 rank)"),
        ("{power_cut: {filesystem: xfs}, at: {save: 2, phase: publish}}",
         "power: publish: the power goes in save 2, and the job resumes (1 rank)"),
        ("{operator: {delete: {path: latest}}, at: {step: 3}}",
         "operator: somebody deletes latest while the job runs, after step 3, and the job resumes "
         "(1 rank)"),
        ("{second_job: {rank: 0, refused: Lock}, at: {step: 3}}",
         "second job: a second job starts after step 3, and the job resumes (1 rank)"),
        ("{cut_link: {node: 1}, at: {step: 3}}",
         "network: a node is cut off after step 3, and the job resumes (1 rank)"),
        ("{exit: {rank: all}, at: {step: 3}}, {kill: {rank: 0}, at: {step: 4}}",
         "loop: all ranks exit after step 3, 1 more, and the job resumes (1 rank)"),
    ],
)  # fmt: skip
def test_a_fault_is_told_in_words(fault: str, title: str) -> None:
    assert title_of(parse(ONE % fault)) == title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("runs: [{until_step: 4}]", "baseline: nothing strikes (1 rank)"),
        ("world: {pp: 2, dp_shard: 2}\ncheckpoint: {async_mode: async}\nruns: [{until_step: 4}]",
         "baseline: nothing strikes (pp2 x fsdp2, async)"),
        ("world: {pp: 2}\nruns: [{until_step: 4}, {until_step: 4, world: {pp: 1}}]",
         "baseline: nothing strikes, and the job resumes (pp2 to 1 rank)"),
        ("runs: [{until_step: 4}, {until_step: 4, before: [{flip_bit: {path: step_4/a}}]}]",
         "at rest: a bit flips in step_4/a, and the job resumes (1 rank)"),
        ("runs: [{until_step: 4}, {until_step: 4, before: [{latest: {becomes: absent}}]}]",
         "at rest: latest is absent, and the job resumes (1 rank)"),
        ("runs: [{until_step: 4}, {until_step: 4, before: [{relocate: {how: copy, to: b}}]}]",
         "at rest: the directory is copied, and the job resumes (1 rank)"),
        ("runs: [{until_step: 4}, {until_step: 4, before: [{leftover: {kind: staging}}]}]",
         "at rest: a dead run left a staging, and the job resumes (1 rank)"),
    ],
)  # fmt: skip
def test_the_rest_is_told_in_words(text: str, title: str) -> None:
    assert title_of(parse(text)) == title


def parse(text: str) -> Scenario:
    return Scenario.model_validate(parse_source(f"name: a\n{text}", shown="a").data)
