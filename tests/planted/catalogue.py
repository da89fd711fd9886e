"""Every planted bug, with the scenario that shows it and the property that names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """One defect. `source` is its number in the collection of real bugs, where it has one.

    `violates` names a property, or one of `REFUSALS`; it is empty where another guard catches it:
    the run did not end in order.
    """

    manager: str
    source: str
    scenario: str
    violates: str
    outcome: str

    @property
    def implementation(self) -> str:
        """As `--implementation` takes it."""
        return f"tests.planted.{self.manager}"

    def __str__(self) -> str:
        return self.manager.partition(":")[2]


def _bug(manager: str, source: str, scenario: str, violates: str, outcome: str) -> Planted:
    return Planted(
        manager=manager, source=source, scenario=scenario, violates=violates, outcome=outcome
    )


REFUSALS = frozenset({"refused", "refused_alike", "second_job_refused"})
"""The guards that judge a start which has to be refused."""

HONEST = (
    "tests.harness.simple_manager:SimpleManager",
    "tests.planted.honest:RenamesThenSyncs",
    "tests.planted.honest:Appends",
    "tests.planted.honest:SyncsEverything",
    "tests.planted.honest:LinksWithADot",
)
"""Managers that must not be accused: the first of every scenario below, all of one."""

PLAIN_AT_REST = (
    "at_rest/newest-checkpoint-deleted.yaml",
    "at_rest/leftovers-of-a-dead-run.yaml::disabled",
    "at_rest/latest-is-not-what-it-was.yaml::absent",
    "at_rest/latest-is-not-what-it-was.yaml::dangling",
    "at_rest/rollback-and-train-on.yaml::disabled",
    "at_rest/foreign-names.yaml",
    "at_rest/directory-elsewhere.yaml::copy",
    "layouts/other-freeze-settings.yaml",
)
"""What a manager without checksums, and for one layout, must come through."""

DAMAGED = (
    "at_rest/flipped-bit-in-a-shard.yaml::disabled",
    "at_rest/truncated-shard-of-a-stage.yaml",
    "at_rest/shards-of-two-saves-swapped.yaml",
    "at_rest/every-checkpoint-damaged.yaml",
    "at_rest/damaged-checkpoint-by-name.yaml",
    "at_rest/half-deleted-checkpoint.yaml::disabled",
    "at_rest/hostile-pickle.yaml::step_4_.metadata",
)
"""What a manager that notices damage by other means than ours must come through."""

PLANTED = (
    _bug("publishing:LatestBeforeData", "A01",
         "async/killed-in-flush-all-ranks.yaml::async", "latest_durable", "HARD_FAIL"),
    _bug("publishing:WritesInPlace", "B02",
         "sync/killed-in-flush-all-ranks.yaml", "whole_or_absent", "HARD_FAIL"),
    _bug("publishing:OneStageCommits", "L05",
         "pipeline/sync-second-stage-killed-in-flush.yaml", "latest_durable", "HARD_FAIL"),
    _bug("publishing:NeverSyncs", "L35",
         "sync/killed-in-publish-after-latest.yaml", "latest_durable", "HARD_FAIL"),
    _bug("publishing:AbsoluteLatest", "R01",
         "sync/killed-in-seal-all-ranks.yaml", "latest_durable", "HARD_FAIL"),
    _bug("publishing:PublishesAtTheNextSave", "L16",
         "async/durable-is-published-at-once.yaml", "nothing_lost", "LOST_WORK"),
    _bug("publishing:ReplacesByDeleting", "L07",
         "signals/sigterm-on-a-save-step.yaml::disabled", "latest_durable", "HARD_FAIL"),
    _bug("state:GeneratorsOfRankZero", "L21",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ForgetsGenerators", "I04",
         "resume/second-resume.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ForgetsLoader", "B01",
         "resume/second-resume.yaml", "samples_exactly_once", "SILENT_DIVERGENCE"),
    _bug("state:DropsMoments", "L27",
         "freeze/freed-module-resumes-with-its-moments.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ForgetsSchedule", "K01",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:SavesLate", "E05",
         "async/killed-in-publish-after-latest.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ChangesTraining", "K10",
         "baseline/stopped-between-saves.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:StagesChooseAlone", "L06",
         "baseline/every-layout-and-mode.yaml::pp2-disabled", "agreement", "HARD_FAIL"),
    _bug("state:FreezeStateOfTheNextSave", "",
         "freeze/freed-module-resumes-with-its-moments.yaml", "freeze_consistent",
         "SILENT_DIVERGENCE"),
    _bug("upkeep:DeletesUnderTheName", "L14",
         "sync/killed-in-prune-half-way.yaml", "whole_or_absent", "HARD_FAIL"),
    _bug("upkeep:KeepsEverything", "C15",
         "sync/killed-in-seal.yaml", "retention", "LEAK"),
    _bug("upkeep:KeepsOneTooFew", "C07",
         "sync/killed-in-seal.yaml", "retention", "LOST_WORK"),
    _bug("upkeep:LeavesLeftovers", "D09",
         "sync/killed-in-prune-half-way.yaml", "clean", "LEAK"),
    _bug("upkeep:LeavesAProcess", "",
         "sync/killed-in-seal.yaml", "clean", "LEAK"),
    _bug("upkeep:LeavesAThread", "",
         "sync/killed-in-seal.yaml", "clean", "LEAK"),
    _bug("telling:LosesTokens", "",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("telling:DropsExtra", "",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("telling:SkipsEverySecond", "",
         "baseline/every-layout-and-mode.yaml::dp_shard2-disabled", "nothing_lost", "LOST_WORK"),
    _bug("telling:NeverSyncsTheRoot", "L35",
         "sync/killed-in-publish-after-latest.yaml", "nothing_lost", "LOST_WORK"),
    _bug("telling:WritesAfterTheSync", "L35",
         "sync/killed-in-publish-after-latest.yaml", "latest_durable", "HARD_FAIL"),
    _bug("telling:RefusesToSaveAgain", "P04",
         "signals/sigterm-on-a-save-step.yaml::disabled", "", "HARD_FAIL"),
    _bug("telling:DiesOfTheSecondSave", "P03",
         "signals/sigterm-on-a-save-step.yaml::disabled", "", "HARD_FAIL"),
    _bug("storage:SaysNothing", "N02",
         "storage/disk-stays-full.yaml::disabled", "nothing_lost", "LOST_WORK"),
    _bug("storage:NeverRecovers", "L15",
         "storage/disk-full-once.yaml::disabled", "bounded", "HARD_FAIL"),
    _bug("storage:OneRankKnows", "M01",
         "storage/disk-full-once.yaml::disabled", "bounded", "HARD_FAIL"),
    _bug("storage:TriesForEver", "M09",
         "storage/disk-stays-full.yaml::disabled", "bounded", "HANG"),
    _bug("storage:TakesHalfForAll", "",
         "storage/short-metadata.yaml", "whole_or_absent", "HARD_FAIL"),
    _bug("lonely_shutdown:EachRankStopsAlone", "L19",
         "signals/sigterm-to-one-rank.yaml", "bounded", "HANG"),
    _bug("slow_shutdown:WaitsBeforeItSaves", "",
         "signals/saved-within-the-grace.yaml", "nothing_lost", "LOST_WORK"),
    _bug("ending:SavesWhatThereIs", "",
         "loop/exception-in-one-rank.yaml::disabled", "whole_or_absent", "HARD_FAIL"),
    _bug("ending:AbandonsAtExit", "",
         "loop/exit-with-a-save-in-flight.yaml", "nothing_lost", "LOST_WORK"),
    _bug("ending:GivesUpAfterTwo", "",
         "storage/disk-full-until-a-save.yaml::disabled", "bounded", "HARD_FAIL"),
    _bug("resting:VerifiesNothing", "",
         "at_rest/shards-of-two-saves-swapped.yaml", "integrity", "SILENT_DIVERGENCE"),
    _bug("resting:UnpicklesMetadata", "",
         "at_rest/hostile-pickle.yaml::step_4_.metadata", "no_code_on_load", "HARD_FAIL"),
    _bug("resting:UnpicklesTrainState", "",
         "at_rest/hostile-pickle.yaml::step_4_train_state.pt", "no_code_on_load", "HARD_FAIL"),
    _bug("resting:ChecksFreezeTooLate", "",
         "layouts/other-freeze-settings.yaml", "refused", "SILENT_DIVERGENCE"),
    _bug("resting:IgnoresFreeze", "",
         "layouts/other-freeze-settings.yaml", "refused", "SILENT_DIVERGENCE"),
    _bug("resting:RefusesInOtherWords", "",
         "layouts/other-freeze-settings.yaml", "refused_alike", "HARD_FAIL"),
    _bug("resting:TidiesUp", "",
         "at_rest/foreign-names.yaml", "retention", "LOST_WORK"),
    _bug("resting:RemembersItsPlace", "",
         "at_rest/directory-elsewhere.yaml::copy", "clean", "LEAK"),
    _bug("resting:DropsTheLastStage", "",
         "layouts/two-stages-become-one.yaml::disabled", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("resting:TakesAnyDegree", "",
         "layouts/data-parallel-degree-changes.yaml", "refused", "SILENT_DIVERGENCE"),
    _bug("follows_latest:FollowsLatestOnly", "",
         "at_rest/latest-is-not-what-it-was.yaml::absent", "nothing_lost", "LOST_WORK"),
    _bug("highest_step:TakesTheHighestStep", "",
         "at_rest/rollback-and-train-on.yaml::disabled", "nothing_lost", "LOST_WORK"),
    _bug("any_name:TakesAnyName", "",
         "at_rest/foreign-names.yaml", "nothing_lost", "HARD_FAIL"),
)  # fmt: skip


WEAKER = (
    ("slow_shutdown:WaitsBeforeItSaves", "signals/sigterm-to-one-rank.yaml"),
    ("ending:SavesWhatThereIs", "signals/killed-when-the-grace-is-over.yaml::disabled"),
    ("ending:AbandonsAtExit", "async/durable-is-published-at-once.yaml"),
    ("ending:GivesUpAfterTwo", "storage/disk-full-once.yaml::disabled"),
)
"""Bugs of the above with a weaker fault, which does not show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misordered:
    """A missing order, with what the exploration of crash states must say of it.

    `says` has a property and a sentence for each profile in which the bug is one; numbers of steps
    and operations are left out.
    """

    manager: str
    says: dict[str, tuple[str, str]]

    @property
    def implementation(self) -> str:
        """As `--implementation` takes it."""
        return f"tests.planted.ordering:{self.manager}"

    def __str__(self) -> str:
        return self.manager


def _misordered(manager: str, profiles: str, violates: str, sentence: str) -> Misordered:
    says = dict.fromkeys(profiles.split(), (violates, sentence))
    return Misordered(manager=manager, says=says)


_NAMED = "safe only if the rename of .staging-step_N to step_N is durable after "

MISORDERED = (
    _misordered("ForgetsOneShard", "ordered posix", "whole_or_absent",
                _NAMED + "the data of step_N/__0_0.distcp"),
    _misordered("RenamesTooEarly", "ordered posix", "whole_or_absent",
                _NAMED + "the data of step_N/train_state.pt"),
    _misordered("ForgetsTheLastSync", "ordered posix", "nothing_lost",
                "safe only if the job is told of step N after the rename of .latest.new to latest "
                "is durable"),
    # A journal keeps names in their order, and the sync of a file settles those before it.
    _misordered("ForgetsTheDirectory", "posix", "whole_or_absent",
                _NAMED + "the name of .staging-step_N/__0_0.distcp"),
    _misordered("PrunesTooEarly", "posix", "nothing_lost",
                "safe only if the rename of step_N to .removed-step_N is durable after the rename "
                "of .staging-step_N to step_N"),
)  # fmt: skip
