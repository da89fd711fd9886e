"""A well-formed scenario that asks for what cannot happen is refused, with what is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.errors import ScenarioError
from harness.scenario.possible import save_steps
from harness.scenario.read import read_scenario
from harness.scenario.schema import Checkpoint, DynamicWindow


def read(folder: Path, *parts: str, gpus: int = 0) -> str:
    """What is wrong with a scenario made of parts, one a line; empty if nothing is."""
    path = folder / "x.yaml"
    path.write_text("\n".join(("name: a", *parts)), encoding="utf-8")
    try:
        read_scenario(path, shown="x.yaml", gpus=gpus)
    except ScenarioError as error:
        return str(error)
    return ""


RUNS = "runs: [{until_step: 6}, {until_step: 8}]"


@pytest.mark.parametrize(
    ("world", "device", "gpus", "expected"),
    [
        ("{dp_shard: 8}", "cpu", 0, ""),
        (
            "{pp: 2, dp_shard: 5}",
            "auto",
            0,
            "pp2 x fsdp5 needs 10 ranks, the CPU has room for 8;"
            " possible: dp_shard at most 4 with pp: 2",
        ),
        ("{dp_shard: 9}", "auto", 16, ""),
        (
            "{dp_shard: 9}",
            "cpu",
            16,
            "pp1 x fsdp9 needs 9 ranks, the CPU has room for 8; possible: dp_shard at most 8",
        ),
        (
            "{pp: 2, dp_shard: 4, tp: 2}",
            "cpu",
            16,
            "pp2 x fsdp4 x tp2 needs 16 ranks, the CPU has room for 8;"
            " possible: dp_shard at most 2 with pp: 2, tp: 2",
        ),
        ("{dp_shard: 4}", "cuda", 0, ""),
        ("{dp_shard: 4}", "cuda", 4, ""),
        ("{dp_shard: 8}", "cuda", 1, ""),
        (
            "{dp_shard: 9}",
            "cuda",
            1,
            "pp1 x fsdp9 needs 9 ranks, 1 GPUs have room for 8; possible: dp_shard at most 8",
        ),
    ],
)
def test_a_world_must_fit_the_device(
    tmp_path: Path, world: str, device: str, gpus: int, expected: str
) -> None:
    parts = (f"world: {world}", f"device: {device}", RUNS, "data: {samples: 96}")
    found = read(tmp_path, *parts, gpus=gpus)
    assert found == (f"x.yaml:2: world: {expected}" if expected else "")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            "model: {dim: 32, heads: 3}",
            "model.heads: dim 32 is not divisible by 3 heads; possible: 1, 2, 4, 8, 16, 32",
        ),
        (
            "data: {samples: 4, batch_size: 5}",
            "data.batch_size: 4 samples over 1 data-parallel ranks are 4 a rank, less than a batch;"
            " possible: samples at least 5, or batch_size at most 4",
        ),
        (
            "freeze: {base: [{module: vision_encoder}]}",
            "freeze.base[0].module: tiny_transformer has no module 'vision_encoder';"
            " known: transformer",
        ),
        (
            "freeze: {base: [{module: transformer}]}",
            "freeze.base: all modules are frozen from here on (transformer): nothing trains",
        ),
        (
            "freeze: {schedule: [{start_step: 9, specs: []}]}",
            "freeze.schedule[0].start_step: step 9 never comes: the runs end at step 8",
        ),
        (
            "expect: {resumed_from_step: [2, 4]}",
            "expect.resumed_from_step: 2 steps for 1 runs after the first",
        ),
        (
            "expect: {resumed_from_step: 10}",
            "expect.resumed_from_step: step 10 is never saved: the runs end at step 8",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, part: str, expected: str) -> None:
    assert read(tmp_path, part, RUNS).startswith(f"x.yaml:2: {expected}")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("{kill: {rank: 1}, at: {save: 3, phase: flush}}", ""),
        ("{kill: {}, at: {rank: 1, step: 6}}", ""),
        ("{kill: {}, at: {phase: load}}", ""),
        ("{sigterm: {}, at: {save: 4, phase: flush}}", ""),
        ("{kill: {rank: 2}, at: {step: 6}}", "kill.rank: there is no rank 2 in pp1 x fsdp2"),
        ("{kill: {rank: -1}, at: {step: 6}}", "kill.rank: there is no rank -1 in pp1 x fsdp2"),
        ("{kill: {}, at: {rank: 2, step: 6}}", "at.rank: there is no rank 2 in pp1 x fsdp2"),
        ("{kill: {}, at: {step: 7}}", "at.step: this run never reaches step 7; possible: 1 to 6"),
        (
            "{kill: {}, at: {save: 4, phase: flush}}",
            "at.save: this run has no save 4: it ends at step 6 and saves at most 3 times",
        ),
        ("{kill: {}, at: {save: 1, phase: load}}", "at: `phase: load` belongs to no save"),
        ("{kill: {}, at: {rank: 1, during: building}}", ""),
        ("{raise: {rank: 1}, at: {during: ending}}", ""),
        ("{kill: {}, at: {during: loading}}", "at.during: the first run finds no checkpoint to"),
        ("{kill: {}, at: {during: evaluation}}", "at.during: this run never evaluates: set"),
        ("{kill: {}, at: {during: training, step: 3}}", "at: a point is a period or has `step`"),
        ("{kill: {}, at: {during: training, nth: 2}}", "at: a rank enters `training` once"),
        ("{kill: {}, at: {during: lunch}}", "at.during: 'lunch' is"),
        ("{hang: {rank: 1}, at: {during: building}}", ": `hang` hits an operation"),
        (
            "{second_job: {rank: 1, refused: e}, at: {during: building}}",
            ": `second_job` is refused because the first one has saved",
        ),
        (
            "{operator: {delete: {path: latest}}, at: {during: building}}",
            ": during `building` the start has not chosen a checkpoint yet",
        ),
        ("{exit: {rank: all}, at: {during: building}}", ""),
        (
            "{exit: {rank: 1}, at: {during: building}}",
            ": `exit` during `building` takes `rank: all`",
        ),
        ("{time_limit: {}, at: {during: training}}", ": `time_limit` comes after a training"),
    ],
)
def test_a_point_must_come(tmp_path: Path, fault: str, expected: str) -> None:
    found = read(tmp_path, "world: {dp_shard: 2}", f"runs: [{{until_step: 6, faults: [{fault}]}}]")
    if expected:
        dot = "" if expected.startswith(":") else "."
        assert found.startswith(f"x.yaml:3: runs[0].faults[0]{dot}{expected}")
    else:
        assert found == ""


@pytest.mark.parametrize(
    ("mode", "steps", "expected"),
    [
        ("async", 2, ""),
        ("async", 3, "starve.steps: the run ends at step 6, before its rank has finished 3 steps"),
        ("disabled", 1, "starve: no save has background threads in `async_mode: disabled`"),
    ],
)
def test_only_threads_of_the_background_are_starved_and_training_goes_on_beside_them(
    tmp_path: Path, mode: str, steps: int, expected: str
) -> None:
    fault = f"{{starve: {{rank: all, steps: {steps}}}, at: {{step: 4}}}}"
    found = read(
        tmp_path,
        f"checkpoint: {{async_mode: {mode}}}",
        f"runs: [{{until_step: 6, faults: [{fault}]}}]",
    )
    assert found == "" if not expected else f"runs[0].faults[0].{expected}" in found


@pytest.mark.parametrize(
    ("interval", "nth", "expected"),
    [
        (2, 3, ""),
        (2, 4, "at most 3"),
        (4, 2, ""),
        (4, 3, "at most 2"),
        (7, 1, ""),
        (7, 2, "at most 1"),
    ],
)
def test_an_evaluation_that_is_struck_must_come(
    tmp_path: Path, interval: int, nth: int, expected: str
) -> None:
    fault = f"{{kill: {{}}, at: {{during: evaluation, nth: {nth}}}}}"
    found = refused(tmp_path, fault, f"evaluation: {{interval: {interval}}}")
    assert expected in found
    assert bool(expected) == bool(found)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ("[{until_step: 6}, {until_step: 8, load_step: 4}]", ""),
        (
            "[{until_step: 6, load_step: 2}]",
            "runs[0].load_step: the first run finds no checkpoint to load",
        ),
        (
            "[{until_step: 6}, {until_step: 8, load_step: 8}]",
            "runs[1].load_step: no earlier run saves at step 8; possible: 2, 4, 6",
        ),
        (
            "[{until_step: 6, faults: [{sigterm: {}, at: {step: 3}}]},"
            " {until_step: 8, load_step: 3}]",
            "",
        ),
    ],
)
def test_a_step_to_load_must_have_been_saved(tmp_path: Path, runs: str, expected: str) -> None:
    found = read(tmp_path, f"runs: {runs}")
    assert found == (f"x.yaml:2: {expected}" if expected else "")


def test_saves_come_at_each_interval_and_at_powers_of_two_in_the_window() -> None:
    plain = Checkpoint(interval=3)
    assert save_steps(plain, after=0, until=10) == (3, 6, 9)
    assert save_steps(plain, after=3, until=9) == (6, 9)
    window = Checkpoint(interval=5, dyn_ckpt_window=DynamicWindow(start=0, stop=8))
    assert save_steps(window, after=0, until=12) == (1, 2, 4, 5, 8, 10)


def refused(folder: Path, fault: str, more: str = "") -> str:
    parts = ("world: {dp_shard: 2}", f"runs: [{{until_step: 6, faults: [{fault}]}}]")
    return read(folder, *parts, *([more] if more else ()))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("{raise: {rank: 1}, at: {step: 6}}", ""),
        ("{exit: {rank: all}, at: {step: 6}}", ""),
        ("{exit: {}, at: {save: 1, phase: flush}}", "its point has only `step`"),
        ("{exit: {}, at: {step: 6, once_published: true}}", "its point has only `step`"),
        ("{exit: {}, at: {rank: 1, step: 6}}", "leave `at.rank` out"),
        ("{raise: {rank: 2}, at: {step: 6}}", "there is no rank 2"),
        ("{raise: {rank: 1, error: Oops}, at: {step: 6}}", "'Oops' is not an error"),
        ("{sigterm: {grace_s: 0}, at: {step: 6}}", "sigterm.grace_s"),
    ],
)
def test_an_end_in_the_loop_falls_after_a_step(tmp_path: Path, fault: str, expected: str) -> None:
    found = refused(tmp_path, fault)
    assert expected in found
    assert bool(expected) == bool(found)


GOES_ON = "checkpoint: {on_error: go_on}"


@pytest.mark.parametrize(
    ("fail", "more", "expected"),
    [
        ("until: {save: 3}", GOES_ON, ""),
        ("until: {step: 5}", GOES_ON, ""),
        ("until: {save: 3}", "", "set `checkpoint.on_error: go_on`"),
        ("until: {save: 2}", GOES_ON, "save 2 does not end an error that begins at save 2"),
        ("until: {save: 4}", GOES_ON, "possible: 3 to 3"),
        ("until: {step: 7}", GOES_ON, "step 7 never comes"),
        ("until: {}", GOES_ON, "takes one moment"),
        ("times: 2, until: {save: 3}", GOES_ON, "not both"),
    ],
)
def test_an_error_is_healed_while_the_run_goes_on(
    tmp_path: Path, fail: str, more: str, expected: str
) -> None:
    fault = f"{{fail: {{rank: 1, error: EIO, {fail}}}, at: {{save: 2, operation: write}}}}"
    found = refused(tmp_path, fault, more)
    assert expected in found
    assert bool(expected) == bool(found)


@pytest.mark.parametrize(
    ("fail", "at", "expected"),
    [
        ("error: EIO", "path: '*.distcp'", ""),
        ("error: EMFILE", "operation: open", ""),
        ("error: ENOMEM, times: always", "operation: read", ""),
        ("error: ENOSPC", "path: '*'", "an open or a read does not answer ENOSPC; possible: EIO,"),
        ("error: EMFILE", "operation: read", "`operation: read` does not answer EMFILE"),
        ("error: EIO", "operation: write", "a load has no `write` to strike"),
        ("error: EIO, until: {step: 5}", "path: '*'", "nothing heals an error while"),
    ],
)
def test_a_load_has_opens_and_reads_and_their_errors(
    tmp_path: Path, fail: str, at: str, expected: str
) -> None:
    fault = f"{{fail: {{rank: 1, {fail}}}, at: {{phase: load, {at}}}}}"
    found = refused(tmp_path, fault, GOES_ON)
    assert expected in found
    assert bool(expected) == bool(found)


_JOINING = "{second_job: {rank: 0, refused: in use}, at: {step: 3}}"


def _struck(*faults: str) -> str:
    return f"runs: [{{until_step: 6, faults: [{', '.join(faults)}]}}, {{until_step: 8}}]"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((_struck(_JOINING),), ""),
        (
            (_struck(_JOINING, _JOINING),),
            "runs[0].faults[1]: a run can start only one second job",
        ),
        (
            ("world: {dp_shard: 5}", _struck(_JOINING)),
            "runs[0].faults[0]: two jobs of 5 ranks are more than 8;"
            " possible: a world of at most 4",
        ),
        (
            (_struck("{operator: {delete: {path: step_2}}, at: {step: 3}}"), "explore: {}"),
            "runs[0].faults[0]: an exploration can strike only the operations of a single job",
        ),
        (
            (_struck(_JOINING), "explore: {}"),
            "runs[0].faults[0]: an exploration can strike only the operations of a single job",
        ),
    ],
)
def test_a_second_job_is_one_that_the_machine_holds(
    tmp_path: Path, parts: tuple[str, ...], expected: str
) -> None:
    found = read(tmp_path, *parts)
    assert found.partition(": ")[2] == expected


@pytest.mark.parametrize(
    ("world", "device", "fault", "expected"),
    [
        ("{dp_shard: 2, nodes: 2}", "cpu", "cut_link: {node: 1}", ""),
        (
            "{dp_shard: 2}",
            "cpu",
            "slow_link: {node: 1, kbit_s: 100}",
            "runs[0]: `slow_link` needs `world.nodes: 2`",
        ),
        (
            "{dp_shard: 3, nodes: 2}",
            "cpu",
            "cut_link: {node: 1}",
            "runs[0]: 3 ranks cannot be split over two nodes",
        ),
        (
            "{dp_shard: 2, nodes: 2}",
            "auto",
            "cut_link: {node: 1}",
            "runs[0]: nodes need ranks on the CPU: set `device: cpu`",
        ),
    ],
)
def test_a_link_is_struck_where_there_are_two_nodes(
    tmp_path: Path, world: str, device: str, fault: str, expected: str
) -> None:
    struck = _struck(f"{{{fault}, at: {{step: 3}}}}")
    found = read(tmp_path, f"world: {world}", f"device: {device}", struck)
    assert found.partition(": ")[2].partition("x.yaml")[0].strip() == expected
