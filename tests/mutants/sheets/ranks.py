"""Mutants of saves in the background, and of ranks that do not do the same."""

from __future__ import annotations

from tests.mutants.entry import bug

RANKS = (
    bug("background:NeverWaits", "E11",
        "baseline/every-layout-and-mode.yaml::dp_shard2-async", "nothing_lost", "LOST_WORK"),
    bug("background:DropsErrors", "E09",
        "storage/disk-stays-full.yaml::async", "nothing_lost", "LOST_WORK"),
    bug("background:TakesDirectForDurable", "L35",
        "async/killed-in-flush-past-the-page-cache.yaml::async", "latest_durable", "HARD_FAIL"),
    bug("apart:OverlapsSaves", "E07",
        "baseline/stopped-between-saves.yaml", "bounded", "HANG"),
    bug("groups:OverlapsInTheBackground", "E07",
        "baseline/every-layout-and-mode.yaml::dp_shard2-async", "bounded", "HANG"),
    bug("buffer:ReusesTheBuffer", "E04",
        "async/killed-in-publish-after-latest.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    bug("old_listing:SeesAnOldListing", "M03",
        "baseline/stopped-between-saves.yaml", "bounded", "HANG"),
    bug("apart:GathersOnRankZero", "F04",
        "baseline/stopped-between-saves.yaml", "bounded", "HANG"),
    bug("deaf_shutdown:PassesOverSigterm", "O04",
        "signals/sigterm-on-a-save-step.yaml::disabled", "", "HARD_FAIL"),
    bug("hasty_shutdown:StopsListeningTooEarly", "L18",
        "signals/second-sigterm-during-the-save.yaml::disabled", "", "HARD_FAIL"),
    bug("restarting:LocksForTheLaunch", "",
        "launchers/torchrun-restarts.yaml::disabled", "", "HARD_FAIL"),
    bug("restarting:DecidesOncePerLaunch", "",
        "launchers/torchrun-restarts.yaml::disabled", "nothing_lost", "LOST_WORK",
        also="silent-restart"),
)  # fmt: skip
