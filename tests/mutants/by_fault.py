"""For each kind of fault a mutant that it shows, and the weaker faults that do not show it.

A weaker fault is another scenario, or the same one with something less in its strikes: an error
twice instead of three times, a signal to fewer ranks, a shorter delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.mutants.catalogue import Mutant


def _bug(manager: str, scenario: str, violates: str, outcome: str) -> Mutant:
    return Mutant(manager=manager, source="", scenario=scenario, violates=violates, outcome=outcome)


BY_FAULT = (
    _bug("dying:NeedsASurvivor", "sync/killed-in-flush-all-ranks.yaml",
         "nothing_lost", "HARD_FAIL"),
    _bug("dying:PublishesWithoutThePeer", "pipeline/sync-second-stage-killed-in-flush.yaml",
         "whole_or_absent", "HARD_FAIL"),
    _bug("dying:ClearsUpAfterAPeer", "sync/another-rank-killed-before-rename.yaml",
         "latest_durable", "HARD_FAIL"),
    _bug("dying:TakesAStopForAnEnd", "storage/rank-stands-still.yaml::disabled",
         "nothing_lost", "HARD_FAIL"),
    _bug("last_load:TakesADeadStartForDamage", "resume/killed-outside-of-steps.yaml",
         "nothing_lost", "LOST_WORK"),
    _bug("at_signal:SavesTheInstantOfTheSignal", "signals/outside-of-steps.yaml::disabled",
         "resume_exact", "SILENT_DIVERGENCE"),
    _bug("erring:GivesUpTheDescription", "storage/description-cannot-be-written.yaml::disabled",
         "whole_or_absent", "HARD_FAIL"),
    _bug("erring:CopiesWhatItCannotRename", "storage/name-cannot-be-given.yaml::disabled",
         "whole_or_absent", "HARD_FAIL"),
    _bug("erring:DeletesWhatItCannotRename", "storage/deletion-refused.yaml",
         "whole_or_absent", "HARD_FAIL"),
    _bug("erring:IgnoresFailedSyncs", "storage/sync-fails.yaml::disabled",
         "latest_durable", "HARD_FAIL"),
    _bug("forms:TakesErrorsForDamage", "storage/read-fails-once.yaml::EIO",
         "nothing_lost", "LOST_WORK"),
    _bug("erring:DeletesWhereItCannotSwap", "storage/names-cannot-be-swapped.yaml::disabled",
         "latest_durable", "HARD_FAIL"),
    _bug("erring:TakesStaleForFailed", "storage/handle-goes-stale.yaml::disabled",
         "nothing_lost", "LOST_WORK"),
    _bug("erring:TakesSlowForBroken", "storage/slow-write.yaml::disabled",
         "nothing_lost", "HARD_FAIL"),
    _bug("erring:ClearsWhatItCouldNotName",
         "storage/answer-of-a-name-is-lost.yaml::save2_phasepublish_operationrename",
         "whole_or_absent", "HARD_FAIL"),
    _bug("erring:WaitsForEver", "storage/write-hangs.yaml::disabled", "bounded", "HANG"),
    _bug("ending:SavesWhatThereIs", "signals/ctrl-c-in-mid-save.yaml::disabled",
         "whole_or_absent", "HARD_FAIL"),
    _bug("parting:VotesByFile", "network/node-cut-off-in-flush.yaml::disabled",
         "bounded", "HARD_FAIL"),
    _bug("parting:TakesFarForDead", "network/slow-link.yaml", "nothing_lost", "HARD_FAIL"),
    _bug("untimely:KnowsSigtermAlone", "launchers/slurm-time-limit.yaml",
         "nothing_lost", "HARD_FAIL"),
    _bug("careless:ComparesSizes", "at_rest/flipped-bit-in-a-shard.yaml::disabled",
         "integrity", "HARD_FAIL"),
    _bug("careless:ComparesNames", "at_rest/truncated-shard-of-a-stage.yaml",
         "integrity", "HARD_FAIL"),
    _bug("careless:TrustsTheList", "at_rest/missing-shard.yaml", "nothing_lost", "HARD_FAIL"),
    _bug("careless:TrustsTheList", "at_rest/half-deleted-checkpoint.yaml::disabled",
         "nothing_lost", "HARD_FAIL"),
    _bug("careless:TrustsTheDescription", "at_rest/description-edited.yaml",
         "integrity", "SILENT_DIVERGENCE"),
    _bug("upkeep:LeavesLeftovers", "at_rest/leftovers-of-a-dead-run.yaml::disabled",
         "", "HARD_FAIL"),
    _bug("two_jobs:TakesNoLock", "two_jobs/second-job-in-mid-save.yaml::disabled",
         "second_job_refused", "HARD_FAIL"),
    _bug("two_jobs:LocksWhileItSaves", "two_jobs/second-job-between-saves.yaml",
         "second_job_refused", "HARD_FAIL"),
    _bug("mounts:TrustsFlock", "two_hosts/second-job-on-another-host.yaml",
         "second_job_refused", "HARD_FAIL"),
    _bug("mounts:TakesTheSwapForDone", "mounts/link-does-not-move.yaml",
         "nothing_lost", "LOST_WORK"),
    _bug("mounts:TakesTheNameForTheDirectory",
         "operator/directory-moved-away-and-put-back.yaml::displaceleavesempty",
         "displaced_untouched", "LOST_WORK"),
    _bug("mounts:KeepsTheDirectFile", "mounts/past-the-page-cache.yaml::directkept",
         "nothing_lost", "HARD_FAIL"),
    _bug("remembering:PrunesFromMemory", "operator/checkpoint-deleted-in-mid-save.yaml::disabled",
         "nothing_lost", "HARD_FAIL"),
    _bug("remembering:LeavesLatestToOthers", "operator/latest-repointed-and-saved-again.yaml",
         "latest_durable", "HARD_FAIL"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weaker:
    """A bug with a fault that does not show it.

    `less` changes every strike of the scenario: its `fault`, its `ranks`, or settings of the fault.
    """

    manager: str
    scenario: str
    less: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = ",".join(f"{key}={value}" for key, value in self.less.items())
        return f"{self.manager.partition(':')[2]}-{self.scenario.partition('.')[0]}-{told}"


def _less(manager: str, scenario: str, **less: object) -> Weaker:
    return Weaker(manager=manager, scenario=scenario, less=less)


_ONLY_SLOW = {"fault": "delay", "seconds": 0.1}

WEAKER = (
    _less("restarting:LocksForTheLaunch", "sync/killed-in-flush-one-rank.yaml"),
    _less("restarting:DecidesOncePerLaunch", "sync/killed-in-flush-one-rank.yaml"),
    _less("untimely:KnowsSigtermAlone", "signals/sigterm-on-a-save-step.yaml::disabled"),
    _less("dying:NeedsASurvivor", "sync/killed-in-flush-all-ranks.yaml", ranks=(0,)),
    _less("dying:NeedsASurvivor", "sync/killed-in-flush-all-ranks.yaml", ranks=(1,)),
    _less("dying:PublishesWithoutThePeer", "pipeline/sync-second-stage-killed-in-flush.yaml",
          fault="sigterm"),
    _less("dying:ClearsUpAfterAPeer", "sync/another-rank-killed-before-rename.yaml", ranks=(0,)),
    _less("ending:SavesWhatThereIs", "signals/ctrl-c-in-mid-save.yaml::disabled", fault="kill"),
    _less("dying:TakesAStopForAnEnd", "storage/rank-stands-still.yaml::disabled", fault="delay"),
    _less("last_load:TakesADeadStartForDamage", "sync/killed-in-flush-all-ranks.yaml"),
    _less("at_signal:SavesTheInstantOfTheSignal", "signals/sigterm-on-a-save-step.yaml::disabled"),
    _less("lonely_shutdown:EachRankStopsAlone", "storage/rank-stands-still.yaml::disabled"),
    _less("storage:NeverRecovers", "storage/disk-full-once.yaml::disabled", **_ONLY_SLOW),
    _less("storage:TriesForEver", "storage/disk-stays-full.yaml::disabled", times=2),
    _less("storage:TakesHalfForAll", "storage/short-metadata.yaml", **_ONLY_SLOW),
    _less("erring:GivesUpTheDescription", "storage/description-cannot-be-written.yaml::disabled",
          times=2),
    _less("erring:CopiesWhatItCannotRename", "storage/name-cannot-be-given.yaml::disabled",
          **_ONLY_SLOW),
    _less("erring:DeletesWhatItCannotRename", "storage/deletion-refused.yaml", error="EIO"),
    _less("erring:IgnoresFailedSyncs", "storage/disk-full-once.yaml::disabled"),
    _less("erring:DeletesWhereItCannotSwap",
          "signals/second-save-of-a-step-killed-at-the-swap.yaml"),
    _less("erring:TakesStaleForFailed", "storage/disk-full-once.yaml::disabled"),
    _less("erring:TakesSlowForBroken", "storage/slow-write.yaml::disabled", seconds=0.02),
    _less("erring:ClearsWhatItCouldNotName",
          "storage/answer-of-a-name-is-lost.yaml::save2_phasepublish_operationrename",
          **_ONLY_SLOW),
    _less("erring:ClearsWhatItCouldNotName",
          "storage/answer-of-a-name-is-lost.yaml::save2_operationmkdir"),
    _less("erring:WaitsForEver", "storage/slow-write.yaml::disabled"),
    _less("parting:VotesByFile", "storage/write-hangs.yaml::disabled"),
    _less("parting:VotesByFile", "sync/killed-in-flush-one-rank.yaml"),
    _less("parting:TakesFarForDead", "storage/slow-write.yaml::disabled"),
    _less("parting:TakesFarForDead", "storage/rank-stands-still.yaml::disabled", fault="delay"),
    _less("forms:TakesErrorsForDamage",
          "storage/open-fails-while-loading.yaml::rank0_errorEACCES"),
    _less("careless:ComparesSizes", "at_rest/truncated-shard-of-a-stage.yaml"),
    _less("careless:ComparesNames", "at_rest/missing-shard.yaml"),
    _less("careless:TrustsTheList", "at_rest/newest-checkpoint-deleted.yaml"),
    _less("careless:TrustsTheDescription", "at_rest/missing-shard.yaml"),
    _less("upkeep:LeavesLeftovers", "at_rest/foreign-names.yaml"),
    _less("resting:VerifiesNothing", "at_rest/newest-checkpoint-deleted.yaml"),
    _less("resting:UnpicklesMetadata", "at_rest/newest-checkpoint-deleted.yaml"),
    _less("resting:TidiesUp", "at_rest/leftovers-of-a-dead-run.yaml::disabled"),
    _less("resting:RemembersItsPlace", "at_rest/rollback-and-train-on.yaml::disabled"),
    _less("follows_latest:FollowsLatestOnly", "at_rest/rollback-and-train-on.yaml::disabled"),
    _less("highest_step:TakesTheHighestStep", "at_rest/latest-is-not-what-it-was.yaml::absent"),
    _less("recovery:ChokesOnAnEmptyDescription", "sync/killed-in-flush-all-ranks.yaml"),
    _less("two_jobs:TakesNoLock", "at_rest/leftovers-of-a-dead-run.yaml::disabled"),
    _less("two_jobs:LocksWhileItSaves", "two_jobs/second-job-in-mid-save.yaml::disabled"),
    _less("mounts:TrustsFlock", "two_jobs/second-job-between-saves.yaml"),
    _less("mounts:TakesTheSwapForDone", "sync/killed-in-publish-after-latest.yaml"),
    _less("mounts:TakesTheNameForTheDirectory", "at_rest/directory-elsewhere.yaml::move"),
    _less("mounts:KeepsTheDirectFile", "mounts/past-the-page-cache.yaml::directrefused"),
    _less("remembering:PrunesFromMemory", "at_rest/newest-checkpoint-deleted.yaml"),
    _less("remembering:LeavesLatestToOthers", "at_rest/latest-is-not-what-it-was.yaml::absent"),
)  # fmt: skip
