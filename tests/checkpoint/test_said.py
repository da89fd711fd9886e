"""State that only the checkpoint or only the program has: a warning, and in `last_load`."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kempnerforge.checkpoint import (
    CheckpointManager,
    CheckpointSaveError,
    LoadReport,
    ResumableDataLoader,
    build_train_state,
    restore_train_state,
)
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.training import Counter


class Run:
    def __init__(self, directory: Path) -> None:
        self.model = nn.Linear(2, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, total_iters=100)
        config = CheckpointConfig(dir=str(directory))
        self.manager = CheckpointManager(config, self.model, self.optimizer)
        self.loader = Counter()

    def report(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        report = self.manager.last_load
        assert isinstance(report, LoadReport)
        return report.not_saved, report.not_restored


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return found


def test_nothing_is_said_when_both_sides_have_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5, scheduler=run.scheduler, dataloader=run.loader)
    again = Run(tmp_path)
    again.manager.load(scheduler=again.scheduler, dataloader=again.loader)
    again.manager.save(6, scheduler=again.scheduler, dataloader=again.loader)
    assert again.report() == ((), ())
    bare = Run(tmp_path / "bare")
    bare.manager.save(5)
    bare.manager.load()
    bare.manager.save(6)
    assert bare.report() == ((), ())
    assert warnings_of(caplog) == []


def test_a_scheduler_and_a_loader_that_were_not_saved_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5)
    run.manager.load(scheduler=run.scheduler, dataloader=run.loader)
    assert run.report() == (("scheduler", "dataloader"), ())
    assert warnings_of(caplog) == [
        f"{tmp_path}/step_5 has no state of the scheduler; the schedule starts over: advance it to "
        "the saved step yourself",
        f"{tmp_path}/step_5 has no state of the dataloader; the data is read from the start",
    ]


def test_a_scheduler_that_was_saved_and_not_asked_for_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5, scheduler=run.scheduler)
    run.manager.load()
    assert run.report() == ((), ("scheduler",))
    assert warnings_of(caplog) == [
        f"the scheduler state of {tmp_path}/step_5 is not restored; the schedule of this run "
        "starts over, unless scheduler= is passed"
    ]


def test_restoring_a_train_state_says_what_only_one_side_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader = Counter()
    restore_train_state(build_train_state(1, 2), dataloader=loader)
    assert warnings_of(caplog) == [
        "the train state has no state of the dataloader; the data is read from the start"
    ]
    restore_train_state(build_train_state(1, 2, scheduler=loader, dataloader=loader))
    assert warnings_of(caplog) == [
        "the scheduler state of the train state is not restored; the schedule of this run starts "
        "over, unless scheduler= is passed"
    ]


def test_what_is_excluded_is_not_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path)
    run.manager.save(5, scheduler=run.scheduler, dataloader=run.loader)
    run.manager.load(exclude_keys=["scheduler", "dataloader"])
    run.manager.apply_dataloader_state(run.loader)
    run.manager.save(6)
    assert run.report() == ((), ())
    assert warnings_of(caplog) == []


def test_a_position_that_no_loader_took_is_said_once_when_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5, dataloader=run.loader)
    run.manager.load()
    assert run.report() == ((), ())
    assert warnings_of(caplog) == []
    run.manager.save(6)
    assert run.report() == ((), ("dataloader",))
    (warning,) = warnings_of(caplog)
    assert "no loader has taken it, so this run reads the data from the start" in warning
    run.manager.save(7)
    assert warnings_of(caplog) == []
    run.manager.apply_dataloader_state(run.loader)
    assert run.report() == ((), ())


def test_a_position_that_a_later_loader_takes_is_not_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.loader.position = 8
    run.manager.save(5, dataloader=run.loader)
    run.manager.load()
    run.manager.apply_dataloader_state(loader := Counter())
    run.manager.save(6, dataloader=loader)
    assert (loader.position, run.report()) == (8, ((), ()))
    assert warnings_of(caplog) == []


def test_a_loader_that_comes_later_and_was_not_saved_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5)
    run.manager.load()
    run.manager.apply_dataloader_state(run.loader)
    run.manager.apply_dataloader_state(run.loader)
    assert run.report() == (("dataloader",), ())
    assert warnings_of(caplog) == [
        f"{tmp_path}/step_5 has no state of the dataloader; the data is read from the start"
    ]


def test_a_loader_that_cannot_take_its_position_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5, dataloader=run.loader)
    run.manager.load(dataloader=[1, 2])
    assert run.report() == ((), ("dataloader",))
    (warning,) = warnings_of(caplog)
    assert "has no load_state_dict to take its position" in warning


def test_a_loader_without_a_position_is_said_once_when_it_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.manager.save(5, dataloader=[1, 2])
    run.manager.save(6, dataloader=[1, 2])
    (warning,) = warnings_of(caplog)
    assert "the dataloader (list) has no state_dict, so its position is not saved" in warning
    run.manager.save(7, dataloader=ResumableDataLoader([1, 2]))
    assert warnings_of(caplog) == []


def test_a_scheduler_that_cannot_be_saved_fails_the_save(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(CheckpointSaveError, match=r"the scheduler \(list\) has no state_dict"):
        run.manager.save(5, scheduler=[1])
    assert not any(tmp_path.glob("step_*"))


def test_generators_are_set_again_once_and_not_after_training_has_saved(tmp_path: Path) -> None:
    run = Run(tmp_path)
    torch.manual_seed(4)
    run.manager.save(5, dataloader=run.loader)
    expected = torch.get_rng_state()
    run.manager.load()
    torch.rand(1)  # as building a loader may do
    run.manager.apply_dataloader_state(run.loader)
    assert torch.equal(torch.get_rng_state(), expected)
    torch.rand(1)
    later = torch.get_rng_state()
    run.manager.apply_dataloader_state(run.loader)
    assert torch.equal(torch.get_rng_state(), later)
    run.manager.load()
    torch.rand(1)
    run.manager.save(6)
    later = torch.get_rng_state()
    run.manager.apply_dataloader_state(run.loader)
    assert torch.equal(torch.get_rng_state(), later)


def test_generators_that_are_excluded_stay_when_a_loader_is_given_its_position(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.manager.save(5, dataloader=run.loader)
    torch.rand(1)
    expected = torch.get_rng_state()
    run.manager.load(exclude_keys=["rng"])
    run.manager.apply_dataloader_state(run.loader)
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_loader_that_draws_when_it_gets_its_position_changes_no_stream(tmp_path: Path) -> None:
    class Draws(Counter):
        def load_state_dict(self, state: dict[str, int]) -> None:
            super().load_state_dict(state)
            torch.rand(3)

    run = Run(tmp_path)
    run.manager.save(5, dataloader=run.loader)
    expected = torch.get_rng_state()
    run.manager.load(dataloader=Draws())
    assert torch.equal(torch.get_rng_state(), expected)
    run.manager.load()
    run.manager.apply_dataloader_state(Draws())
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_failing_loader_keeps_its_position(tmp_path: Path) -> None:
    class Fails:
        def load_state_dict(self, state: Any) -> None:
            raise ValueError("not this one")

    run = Run(tmp_path)
    run.loader.position = 8
    run.manager.save(5, dataloader=run.loader)
    run.manager.load()
    with pytest.raises(ValueError, match="not this one"):
        run.manager.apply_dataloader_state(Fails())
    run.manager.apply_dataloader_state(loader := Counter())
    assert loader.position == 8
