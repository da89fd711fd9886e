"""Checkpoint and freeze configuration."""

import pytest

from kempnerforge.config.schema import (
    AsyncCheckpointMode,
    CheckpointConfig,
    DynamicCheckpointWindow,
    FreezeSpec,
    FreezeStage,
    VLMConfig,
)


def test_defaults_are_the_documented_ones() -> None:
    config = CheckpointConfig()
    assert (config.dir, config.interval, config.keep_last_n) == ("checkpoints", 1000, 3)
    assert config.async_mode is AsyncCheckpointMode.disabled
    assert (config.dyn_ckpt_window, config.load_path) == (None, None)
    assert (config.export_dtype, config.exclude_from_loading) == ("bfloat16", [])
    assert config.ignore_freeze_mismatch is False


def test_modes_have_the_documented_names_and_values() -> None:
    assert {mode.name: mode.value for mode in AsyncCheckpointMode} == {
        "disabled": "disabled",
        "async_": "async",
        "async_pinned": "async_with_pinned_mem",
    }


def test_a_mode_may_be_given_by_value() -> None:
    config = CheckpointConfig(async_mode="async")  # type: ignore[arg-type]  # as read from YAML
    assert config.async_mode is AsyncCheckpointMode.async_


def test_saves_are_due_at_the_interval_and_in_the_window() -> None:
    config = CheckpointConfig(interval=10, dyn_ckpt_window=DynamicCheckpointWindow(start=3, stop=9))
    assert [step for step in range(25) if config.should_save(step)] == [3, 4, 5, 7, 10, 20]
    assert [step for step in range(25) if config.is_dynamic_milestone(step)] == [3, 4, 5, 7]


def test_without_a_window_step_0_is_not_due() -> None:
    assert not CheckpointConfig().should_save(0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"interval": 0}, "interval"), ({"commit_timeout_s": 0}, "commit_timeout_s")],
)
def test_options_without_meaning_are_refused(options: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CheckpointConfig(**options)  # type: ignore[arg-type]


def test_a_window_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="power2"):
        DynamicCheckpointWindow(strategy="power3")
    with pytest.raises(ValueError, match="start <= stop"):
        DynamicCheckpointWindow(start=5, stop=4)


def test_stages_must_come_in_order() -> None:
    with pytest.raises(ValueError, match=r"strictly increasing start_step, found \[5, 5\]"):
        VLMConfig(freeze_schedule=[FreezeStage(5), FreezeStage(5)])


def test_unknown_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="adapter, transformer, vision_encoder"):
        VLMConfig(freeze=[FreezeSpec("vision")])


def test_a_pattern_of_parameter_names_is_no_unknown_module() -> None:
    specs = [FreezeSpec("transformer.layers.0.*"), FreezeSpec("*bias")]
    assert VLMConfig(freeze=specs).freeze == specs
