"""Mutants of state that has another form, and of reads that fail."""

from __future__ import annotations

from tests.mutants.entry import bug

_DIVERGES = ("resume_exact", "SILENT_DIVERGENCE")

FORMS = (
    bug("forms:DrawsOnceMore", "",
        "resume/loader-draws-from-the-global-generator.yaml", *_DIVERGES, "rng"),
    bug("forms:ExpertsOfRankZero", "",
        "state/experts-of-each-rank.yaml::dp_shard2", *_DIVERGES),
    bug("forms:BypassesTheHooks", "",
        "state/fused-weights-saved-apart.yaml::dp_shard2", *_DIVERGES),
    bug("forms:UntiesTheHead", "", "state/tied-weights.yaml::dp_replicate2", *_DIVERGES),
    bug("forms:CountsAllParameters", "G07",
        "state/adapters-on-a-frozen-base.yaml::dp_shard2", "resume_exact", "HARD_FAIL", "frozen"),
    bug("forms:AsksTheAttribute", "",
        "state/optimizers.yaml::lookahead", *_DIVERGES, "optimizer-state"),
    bug("forms:ClearsTheLinks", "",
        "state/optimizers.yaml::muon", *_DIVERGES, "optimizer-state"),
    bug("forms:ClearsWhatItDoesNotKnow", "",
        "state/optimizers.yaml::lookahead", *_DIVERGES, "optimizer-state"),
    bug("forms:UnpacksTheMoments", "",
        "state/optimizers.yaml::low_bit", *_DIVERGES, "optimizer-state"),
    bug("forms:TensorsOfRankZero", "",
        "state/average-of-the-weights.yaml", *_DIVERGES),
    bug("forms:ForgetsTheGradients", "",
        "state/gradients-between-two-updates.yaml::dp_shard2", *_DIVERGES),
    bug("forms:TakesErrorsForDamage", "",
        "storage/read-fails-once.yaml::EIO", "nothing_lost", "LOST_WORK"),
    bug("forms:GivesUpAtOnce", "",
        "storage/read-fails-once.yaml::ENOMEM", "", "HARD_FAIL"),
)  # fmt: skip
