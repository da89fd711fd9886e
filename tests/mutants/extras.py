"""Managers that hand back a part of what the training loop keeps beside the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path

Extra = dict[str, Any]


class _Changes(SimpleManager):
    """Base: the extra values come back changed."""

    change: Callable[[Extra], Extra]

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, Extra]:
        step, tokens_seen, extra = super().load(*args, **kwargs)
        return step, tokens_seen, type(self).change(extra)


class FreshScaler(_Changes):
    """K04, K13: the loss scale starts again."""

    @staticmethod
    def change(extra: Extra) -> Extra:
        return {key: value for key, value in extra.items() if key != "scaler"}


class ScaleWithoutItsCounter(_Changes):
    """K07: of the loss scale only the scale comes back, not the steps since it grew."""

    @staticmethod
    def change(extra: Extra) -> Extra:
        return {**extra, "scaler": {"scale": extra["scaler"]["scale"]}}


class FreshAverage(_Changes):
    """K09: the moving average is that of a new tracker."""

    @staticmethod
    def change(extra: Extra) -> Extra:
        return {key: value for key, value in extra.items() if key != "average"}


class AverageWithoutItsCounter(_Changes):
    """K08: the number of updates is not saved, so the warm-up of the average begins anew."""

    @staticmethod
    def change(extra: Extra) -> Extra:
        return {**extra, "average": {"value": extra["average"]["value"]}}
