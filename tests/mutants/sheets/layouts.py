"""Mutants that only certain arrangements of ranks, or wrappers of the model, show."""

from __future__ import annotations

from tests.mutants.entry import bug

_DIVERGES = ("resume_exact", "SILENT_DIVERGENCE")

LAYOUTS = (
    bug("wrapping:KeepsTheModulePrefix", "",
        "layouts/replicas-become-shards.yaml::dp_shard2", "nothing_lost", "HARD_FAIL"),
    bug("wrapping:PassesOverWrappedNames", "T01",
        "layouts/wrappers-come-and-go.yaml::dp_shard2", *_DIVERGES),
    bug("spreading:KeepsTheShardOfOnePeer", "", "layouts/killed-in-flush.yaml::tp2", *_DIVERGES),
    bug("spreading:GeneratorsOfTheFirstReplica", "",
        "layouts/killed-in-flush.yaml::dp_replicate2_dp_shard2", *_DIVERGES),
    bug("arranged:DropsWeightDecayWhereRanksChange", "",
        "layouts/two-stages-become-one.yaml::disabled", *_DIVERGES),
    bug("dealing:NumbersBlocksByStage", "",
        "layouts/stages-become-others.yaml::pp2_scheduleinterleaved", *_DIVERGES),
    bug("dealing:CountsPositionsByRank", "",
        "layouts/degree-changes.yaml::0", "samples_exactly_once", "SILENT_DIVERGENCE"),
)  # fmt: skip
