"""Mutants of the state that comes back."""

from __future__ import annotations

from tests.mutants.entry import bug

_DIVERGES = ("resume_exact", "SILENT_DIVERGENCE")
_SAMPLES = ("samples_exactly_once", "SILENT_DIVERGENCE")
_FROZEN = "freeze/module-frozen-after-it-had-moments.yaml"
_SETTINGS = "resume/settings-change.yaml"
_ONE_STAGE = "layouts/two-stages-become-one.yaml::disabled"
_IDLE = "state/modules-without-a-gradient.yaml::dp_shard2"
_TWO_RANKS = "baseline/every-layout-and-mode.yaml::dp_shard2-disabled"

STATE = (
    bug("positions:SavesWhatItLoaded", "J17", "resume/second-resume.yaml", *_SAMPLES),
    bug("positions:PositionOfRankZero", "", "sync/killed-in-seal.yaml", *_SAMPLES, "dataloader"),
    bug("positions:CountsFromTheResume", "J02", "resume/second-resume.yaml", *_SAMPLES),
    bug("positions:CountsWhatWasFetched", "J12", _TWO_RANKS, *_SAMPLES),
    bug("positions:EpochFromTheStep", "J03 J04", "resume/epoch-boundary.yaml", *_SAMPLES),
    bug("positions:ShufflesAsInTheFirstEpoch", "J06 J10",
        "resume/epoch-boundary-with-workers.yaml", *_SAMPLES),
    bug("positions:SkipsInEveryEpoch", "J08", _TWO_RANKS, *_SAMPLES),
    bug("positions:PositionOfAnotherStep", "J15", _TWO_RANKS, *_SAMPLES),
    bug("moments:MomentsOfRankZero", "G08", "sync/killed-in-seal.yaml", *_DIVERGES),
    bug("moments:RoundsTheMoments", "G10", "sync/killed-in-seal.yaml", *_DIVERGES),
    bug("moments:ForgetsTheGroups", "G10 H01", "baseline/stopped-between-saves.yaml", *_DIVERGES),
    bug("dealing:CutsToEqualShards", "", "layouts/sizes-that-do-not-divide.yaml", *_DIVERGES),
    bug("moments:FillsEmptyStates", "", _IDLE, *_DIVERGES, "optimizer-state"),
    bug("moments:OneStepForAll", "", _IDLE, *_DIVERGES, "optimizer-state"),
    bug("moments:ForgetsTheDecay", "G10", "sync/killed-in-seal.yaml", *_DIVERGES),
    bug("moments:DropsAKeyOfTheGroups", "G10", "sync/killed-in-seal.yaml", *_DIVERGES),
    bug("moments:MomentsOfTheTrainable", "H01", _FROZEN, *_DIVERGES),
    bug("moments:WeightsOfTheTrainable", "H03", _FROZEN, *_DIVERGES),
    bug("moments:CachesTheSchedule", "G12", _TWO_RANKS, *_DIVERGES),
    bug("moments:ScheduleLagsBehind", "K01", "baseline/stopped-between-saves.yaml", *_DIVERGES),
    bug("moments:CountsTheScheduleAlone", "",
        "resume/schedule-of-another-kind.yaml::annealing", *_DIVERGES),
    bug("moments:KeepsItsOwnRate", "", f"{_SETTINGS}::before_load", *_DIVERGES),
    bug("moments:LoadsTheSettingsItKnows", "",
        f"{_SETTINGS}::after_load", "resume_exact", "HARD_FAIL"),
    bug("positions:BatchesOfTheNewLoader", "",
        f"{_SETTINGS}::before_load", *_SAMPLES, "dataloader"),
    bug("moments:SkipsWhatItCannotCount", "K11",
        "at_rest/stray-file-in-a-checkpoint.yaml", *_DIVERGES),
    bug("moments:RollsBackToAnAlias", "E17",
        "layouts/other-freeze-settings.yaml", "refused", "SILENT_DIVERGENCE"),
    bug("arranged:VerifiesForThisWorld", "B14", _ONE_STAGE, "nothing_lost", "HARD_FAIL"),
    bug("arranged:MergesInTheWrongOrder", "G11", _ONE_STAGE, *_DIVERGES),
    bug("generators:GeneratorsOfTheStageBefore", "I02",
        "baseline/every-layout-and-mode.yaml::pp2-disabled", *_DIVERGES),
    bug("generators:NumpyAsItIs", "I06", "sync/killed-in-seal.yaml", "nothing_lost", "HARD_FAIL"),
    bug("extras:FreshScaler", "K04 K13", _TWO_RANKS, *_DIVERGES),
    bug("extras:ScaleWithoutItsCounter", "K07", _TWO_RANKS, *_DIVERGES),
    bug("extras:FreshAverage", "K09", _TWO_RANKS, *_DIVERGES),
    bug("extras:AverageWithoutItsCounter", "K08", _TWO_RANKS, *_DIVERGES),
)  # fmt: skip
