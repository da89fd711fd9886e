"""Every mutant, with the scenario that shows it and the property that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.mutants.catalogue import Catalogue, Control
from harness.promises import parse_promises
from tests.mutants.entry import COPIES, PACKAGE, SIMPLE
from tests.mutants.entry import Mutant as Mutant
from tests.mutants.entry import bug as _bug
from tests.mutants.sheets.forms import FORMS
from tests.mutants.sheets.layouts import LAYOUTS
from tests.mutants.sheets.names import NAMES
from tests.mutants.sheets.ranks import RANKS
from tests.mutants.sheets.state import STATE

REFUSALS = frozenset({"refused", "refused_alike", "second_job_refused", "displaced_untouched"})
"""The guards that judge a start, or a save, which has to be refused."""

CONTROLS = (
    "tests.harness.simple_manager:SimpleManager",
    "tests.mutants.controls:RenamesThenSyncs",
    "tests.mutants.controls:Appends",
    "tests.mutants.controls:SyncsEverything",
    "tests.mutants.controls:LinksWithADot",
    "tests.mutants.controls:PrunesAlone",
)
"""Managers that must not be accused: the first of every scenario below, all of one."""

PLAIN_AT_REST = (
    "at_rest/newest-checkpoint-deleted.yaml",
    "at_rest/leftovers-of-a-dead-run.yaml::disabled",
    "at_rest/latest-is-not-what-it-was.yaml::absent",
    "at_rest/latest-is-not-what-it-was.yaml::dangling",
    "at_rest/rollback-and-train-on.yaml::disabled",
    "at_rest/rollback-to-other-numbers.yaml",
    "at_rest/foreign-names.yaml",
    "at_rest/directory-elsewhere.yaml::copy",
    "layouts/other-freeze-settings.yaml",
    "layouts/killed-in-flush.yaml::tp2",
    "layouts/killed-in-flush.yaml::dp_replicate2_dp_shard2",
)
"""What a manager without checksums, and for one layout, must come through."""

IN_BACKGROUND = (
    "baseline/every-layout-and-mode.yaml::dp_shard2-async",
    "baseline/every-layout-and-mode.yaml::pp2_dp_shard2-async",
    "async/durable-is-published-at-once.yaml",
    "async/threads-starved.yaml::async",
)
"""What a manager must come through that saves with collectives on the group that it is given."""

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

READS_FAIL = ("storage/read-fails-once.yaml::EIO", "storage/read-fails-once.yaml::ENOMEM")
"""What a manager that tries a read again must come through."""

MUTANTS = (
    _bug("publishing:LatestBeforeData", "A01 A05",
         "async/killed-in-flush-all-ranks.yaml::async", "latest_durable", "HARD_FAIL"),
    _bug("publishing:WritesInPlace", "B02 B13",
         "sync/killed-in-flush-all-ranks.yaml", "whole_or_absent", "HARD_FAIL"),
    _bug("publishing:OneStageCommits", "L05",
         "pipeline/sync-second-stage-killed-in-flush.yaml", "latest_durable", "HARD_FAIL"),
    _bug("publishing:NeverSyncs", "L35",
         "sync/killed-in-publish-after-latest.yaml", "latest_durable", "HARD_FAIL"),
    _bug("publishing:AbsoluteLatest", "R01",
         "sync/killed-in-seal-all-ranks.yaml", "latest_durable", "HARD_FAIL"),
    _bug("publishing:StepsBackWhileItSaves", "",
         "sync/killed-in-seal.yaml", "latest_forward", "LOST_WORK"),
    _bug("publishing:PublishesAtTheNextSave", "L16",
         "async/durable-is-published-at-once.yaml", "nothing_lost", "LOST_WORK"),
    _bug("publishing:ReplacesByDeleting", "L07",
         "signals/sigterm-on-a-save-step.yaml::disabled", "latest_durable", "HARD_FAIL"),
    _bug("state:GeneratorsOfRankZero", "L21 I01 I03 W02",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ForgetsGenerators", "I04",
         "resume/second-resume.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ForgetsLoader", "B01 L26",
         "resume/second-resume.yaml", "samples_exactly_once", "SILENT_DIVERGENCE"),
    _bug("state:DropsMoments", "L27 G05 G07 G13",
         "freeze/freed-module-resumes-with-its-moments.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:SavesTheMode", "",
         "signals/outside-of-steps.yaml::disabled", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ForgetsSchedule", "K01",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:SavesLate", "E05 E03",
         "async/killed-in-publish-after-latest.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:AliasesTheWeights", "E03 E05",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:AliasesTheMoments", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:AliasesTheCounters", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:AliasesTheBuffers", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:AliasesTheExtra", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:AliasesOnOneRank", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:FillsTheBufferTooEarly", "E04",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:ReadsTheSettingsLate", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("aliasing:ReadsTheGeneratorsLate", "",
         "async/threads-starved.yaml::async", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:ChangesTraining", "K10",
         "baseline/stopped-between-saves.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("state:StagesChooseAlone", "L06",
         "baseline/every-layout-and-mode.yaml::pp2-disabled", "agreement", "HARD_FAIL"),
    _bug("state:FreezeStateOfTheNextSave", "",
         "freeze/freed-module-resumes-with-its-moments.yaml", "freeze_consistent",
         "SILENT_DIVERGENCE"),
    _bug("upkeep:DeletesUnderTheName", "L14 D03 B05",
         "sync/killed-in-prune-half-way.yaml", "whole_or_absent", "HARD_FAIL"),
    _bug("upkeep:KeepsEverything", "C15",
         "sync/killed-in-seal.yaml", "retention", "LEAK"),
    _bug("upkeep:KeepsOneTooFew", "L10",
         "sync/killed-in-seal.yaml", "retention", "LOST_WORK"),
    _bug("upkeep:LeavesLeftovers", "D09",
         "sync/killed-in-prune-half-way.yaml", "clean", "LEAK"),
    _bug("upkeep:LeavesAProcess", "",
         "sync/killed-in-seal.yaml", "clean", "LEAK"),
    _bug("upkeep:LeavesAThread", "",
         "sync/killed-in-seal.yaml", "clean", "LEAK"),
    _bug("telling:LosesTokens", "",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("telling:DescribesEarlierTokens", "",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("telling:DropsExtra", "",
         "sync/killed-in-seal.yaml", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("telling:ReturnsWhileRankZeroCommits", "",
         "sync/killed-in-seal.yaml", "nothing_lost", "LOST_WORK"),
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
    _bug("waiting:WaitsForTheDead", "",
         "sync/survivor-of-a-killed-rank.yaml", "bounded", "HANG"),
    _bug("lonely_shutdown:EachRankStopsAlone", "L19 O01",
         "signals/sigterm-to-one-rank.yaml", "bounded", "HANG"),
    _bug("patient_shutdown:WaitsForWhoHasLeft", "",
         "loop/exit-before-the-first-question.yaml::disabled", "bounded", "HANG"),
    _bug("slow_shutdown:WaitsBeforeItSaves", "",
         "signals/saved-within-the-grace.yaml", "nothing_lost", "LOST_WORK"),
    _bug("ending:SavesWhatThereIs", "",
         "loop/exception-in-one-rank.yaml::disabled", "whole_or_absent", "HARD_FAIL"),
    _bug("ending:AbandonsAtExit", "E10",
         "loop/exit-with-a-save-in-flight.yaml", "nothing_lost", "LOST_WORK"),
    _bug("ending:GivesUpAfterTwo", "L15",
         "storage/disk-full-until-a-save.yaml::disabled", "bounded", "HARD_FAIL"),
    _bug("resting:VerifiesNothing", "L38 N04",
         "at_rest/shards-of-two-saves-swapped.yaml", "integrity", "SILENT_DIVERGENCE"),
    _bug("resting:UnpicklesMetadata", "L40",
         "at_rest/hostile-pickle.yaml::step_4_.metadata", "no_code_on_load", "HARD_FAIL"),
    _bug("resting:UnpicklesTrainState", "S01",
         "at_rest/hostile-pickle.yaml::step_4_train_state.pt", "no_code_on_load", "HARD_FAIL"),
    _bug("resting:ChecksFreezeTooLate", "",
         "layouts/other-freeze-settings.yaml", "refused", "SILENT_DIVERGENCE"),
    _bug("resting:IgnoresFreeze", "",
         "layouts/other-freeze-settings.yaml", "refused", "SILENT_DIVERGENCE", "frozen"),
    _bug("resting:RefusesInOtherWords", "",
         "layouts/other-freeze-settings.yaml", "refused_alike", "HARD_FAIL"),
    _bug("resting:TidiesUp", "",
         "at_rest/foreign-names.yaml", "retention", "LOST_WORK"),
    _bug("resting:RemembersItsPlace", "",
         "at_rest/directory-elsewhere.yaml::copy", "clean", "LEAK"),
    _bug("resting:DropsTheLastStage", "F02",
         "layouts/two-stages-become-one.yaml::disabled", "resume_exact", "SILENT_DIVERGENCE"),
    _bug("resting:TakesAnyDegree", "L24 J16",
         "layouts/data-parallel-degree-changes.yaml", "refused", "SILENT_DIVERGENCE"),
    _bug("follows_latest:FollowsLatestOnly", "B06 L01",
         "at_rest/latest-is-not-what-it-was.yaml::absent", "nothing_lost", "LOST_WORK"),
    _bug("pruning:CountsTheAbandonedBranch", "",
         "at_rest/rollback-to-other-numbers.yaml", "retention", "LOST_WORK"),
    _bug("highest_step:TakesTheHighestStep", "",
         "at_rest/rollback-and-train-on.yaml::disabled", "nothing_lost", "SILENT_DIVERGENCE",
         "stale-branch"),
    _bug("any_name:TakesAnyName", "Q02",
         "at_rest/foreign-names.yaml", "nothing_lost", "HARD_FAIL"),
    *NAMES,
    *STATE,
    *RANKS,
    *LAYOUTS,
    *FORMS,
)  # fmt: skip


WEAKER = (
    ("slow_shutdown:WaitsBeforeItSaves", "signals/sigterm-to-one-rank.yaml"),
    ("ending:SavesWhatThereIs", "signals/killed-when-the-grace-is-over.yaml::disabled"),
    ("ending:AbandonsAtExit", "async/durable-is-published-at-once.yaml"),
    ("ending:GivesUpAfterTwo", "storage/disk-full-once.yaml::disabled"),
)
"""Bugs of the above with a weaker fault, which does not show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsynced:
    """A missing sync, with a power cut that takes what was not synced.

    The judges follow what was synced, so they name the bug after a kill as well. The disk does not:
    after a kill in the same place the job goes on from `killed`, after the cut from `cut`, which is
    None where no rank can resume.
    """

    manager: str
    scenario: str
    violates: str
    outcome: str
    killed: int
    cut: int | None

    @property
    def implementation(self) -> str:
        """As `--implementation` takes it."""
        return f"tests.mutants.{self.manager}"

    def __str__(self) -> str:
        name, label = self.manager.partition(":")[2], self.scenario.partition("::")[2]
        return f"{name}-{label}"


UNSYNCED = (
    *(
        Unsynced(manager="ordering:ForgetsOneShard", scenario=f"power/after-a-save.yaml::{one}",
                 violates="latest_durable", outcome="HARD_FAIL", killed=4, cut=None)
        for one in ("ext4", "xfs", "btrfs")
    ),
    Unsynced(manager="telling:NeverSyncsTheRoot", scenario="power/after-a-save.yaml::ext4",
             violates="nothing_lost", outcome="LOST_WORK", killed=4, cut=2),
    Unsynced(manager="ordering:ForgetsTheLastSync", scenario="power/after-a-save.yaml::ext4",
             violates="nothing_lost", outcome="LOST_WORK", killed=4, cut=2),
    Unsynced(manager="ordering:RenamesTooEarly",
             scenario="power/between-rename-and-latest.yaml::disabled-kept",
             violates="whole_or_absent", outcome="HARD_FAIL", killed=2, cut=2),
    Unsynced(manager="ordering:PrunesBeforeTheData", scenario="power/in-a-prune.yaml::disabled",
             violates="nothing_lost", outcome="HARD_FAIL", killed=4, cut=None),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Misread:
    """A read that fails, or a newer format, taken for what it is not.

    `check` is a function of `misreading_jobs`; `right` is what it finds with the package, `wrong`
    with the bug.
    """

    manager: str
    check: str
    right: Any
    wrong: Any

    @property
    def implementation(self) -> str:
        """As `--implementation` takes it."""
        return f"tests.mutants.misreading:{self.manager}"

    def __str__(self) -> str:
        return f"{self.manager}-{self.check}"


_UNREADABLE, _NEWER = "UnreadableCheckpointError", "NewerFormatError"

MISREAD = (
    Misread(manager="TakesAReadErrorForDamage", check="shard_fails_once", right="3", wrong="2"),
    Misread(manager="TakesAReadErrorForDamage", check="shard_keeps_failing",
            right=_UNREADABLE, wrong="NoUsableCheckpointError"),
    Misread(manager="NeverTriesAgain", check="shard_fails_once", right="3", wrong=_UNREADABLE),
    Misread(manager="TakesANewerFormatForTorn", check="newer_format",
            right=[_NEWER, _NEWER, True], wrong=["2", "None", True]),
    Misread(manager="DeletesPastTheUnread", check="old_manifest_keeps_failing",
            right=["step_1", "step_2", "step_3", "step_4"], wrong=["step_3", "step_4"]),
    Misread(manager="NumbersPastTheUnread", check="number_beside_the_unread",
            right=["step_4", 4], wrong=["step_3", 3]),
    Misread(manager="ReplacesTheUnread", check="replaced_version_keeps_failing",
            right=[_UNREADABLE, True], wrong=["None", False]),
    Misread(manager="SeesNoLinkWhereItMayNotLook", check="latest_cannot_be_looked_at",
            right=_UNREADABLE, wrong="3"),
    Misread(manager="TakesBackBlindly", check="move_that_cannot_be_seen",
            right=[True, 3], wrong=[False, 3]),
)  # fmt: skip
"""Shown in one process by `test_misreading.py`: faults for one file that no scenario can name."""


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
        return f"tests.mutants.ordering:{self.manager}"

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
                "safe only if step_N is acknowledged after the rename of .latest.new to latest "
                "is durable"),
    # A journal keeps names in their order, and the sync of a file settles those before it.
    _misordered("ForgetsTheDirectory", "posix", "whole_or_absent",
                _NAMED + "the name of .staging-step_N/__0_0.distcp"),
    _misordered("PrunesTooEarly", "posix", "nothing_lost",
                "safe only if the rename of step_N to .removed-step_N is durable after the rename "
                "of .staging-step_N to step_N"),
)  # fmt: skip

_NO_DIRECTORY = "it cannot replace a directory"
_NOT_OURS = "the scenario is about names that only the package has"

_PLAIN_FORMS = "it knows plain models, Adam and extra values of rank 0"
_ONE_TRY = "a read that failed ends its load"

_ONE_WRITE = "it writes a shard at once, so nobody dies within"
_COPIES = "all,-later_saves,-other_ranks,-other_stages,-second_job"
_BEYOND_COPIES = {
    "async/killed-in-flush-past-the-page-cache.yaml*": _ONE_WRITE,
    "async/threads-starved.yaml*": "it saves in the main thread",
    "explore/any-operation-fails.yaml*": "torch's writer hides which error it met",
    "power/past-the-page-cache.yaml*": _ONE_WRITE,
    "at_rest/hostile-pickle-without-manifest.yaml*": _NOT_OURS,
    "at_rest/latest-is-not-what-it-was.yaml::directory": _NO_DIRECTORY,
    "operator/latest-changed-while-the-job-trains.yaml::directory": _NO_DIRECTORY,
    "layouts/o*-on-purpose.yaml": "it has no `ignore_freeze_mismatch`",
    "storage/handle-goes-stale.yaml*": "it gives a save up whose handle is stale",
    "storage/names-cannot-be-swapped.yaml*": "where names cannot be swapped it raises",
    "storage/write-hangs.yaml*": "it waits without a deadline",
    "resume/loader-draws-from-the-global-generator.yaml": _NOT_OURS,
    "state/average-of-the-weights.yaml": _PLAIN_FORMS,
    "state/experts-of-each-rank.yaml::dp_*": _PLAIN_FORMS,
    "state/fused-weights-saved-apart.yaml*": _PLAIN_FORMS,
    "state/gradients-between-two-updates.yaml::dp_shard2": _PLAIN_FORMS,
    "state/optimizer-of-each-stage.yaml": _PLAIN_FORMS,
    "state/optimizers-on-plain-parameters.yaml*": _PLAIN_FORMS,
    "state/optimizers.yaml::l*": _PLAIN_FORMS,
    "state/optimizers.yaml::muon": _PLAIN_FORMS,
    "storage/reads-fail-for-one-start.yaml": "not all ranks are told that a read failed",
}
_BEYOND_SIMPLE = {
    **_BEYOND_COPIES,
    "storage/open-fails-while-loading.yaml::*EMFILE*": _ONE_TRY,
    "storage/read-fails-once.yaml*": _ONE_TRY,
    "storage/stage-of-a-pipeline-full.yaml": "its stages wait for each other without a deadline",
}
_MISSING = {
    "L12": "a deletion that the storage refuses ends rank 0 alone: with the faults of the storage",
    "L17": "the training loop here has no hook that is called when a checkpoint is saved",
    "L20, L30, L32, I08, J18": "defects of a training loop, and there is one loop for all managers",
    "L23, E16": "need a GPU or two; see `scenarios/gpu`",
    "L28, G02": "what an optimizer is before a load, and gradients at a load, are not in the "
    "scenario language; the tests of the package have them",
    "L34, N03": "options and sizes that change between runs are not in the scenario language",
    "L41": "two modes that do the same are slow, not wrong",
    "A04": "one directory for all saves is another layout than `step_N`",
    "D04, D05, M08": "one rank has to be late by chance; `ClearsWhatOthersWrote` is such a race "
    "made certain",
    "E06, E08": "collectives that mix by chance; `OverlapsSaves` is such a mix made certain",
    "J07": "the order of samples here depends on seed and epoch, and on no generator",
    "T02": "there is one format so far, so nothing to migrate from",
}

_CUT = (
    _bug("ordering:ForgetsOneShard", "L35",
         "power/after-a-save.yaml::ext4", "latest_durable", "HARD_FAIL"),
    _bug("ordering:ForgetsTheLastSync", "L35",
         "power/after-a-save.yaml::ext4", "nothing_lost", "LOST_WORK"),
    _bug("ordering:RenamesTooEarly", "L35",
         "power/between-rename-and-latest.yaml::disabled-kept", "whole_or_absent", "HARD_FAIL"),
    _bug("ordering:PrunesBeforeTheData", "L35",
         "power/in-a-prune.yaml::disabled", "nothing_lost", "HARD_FAIL"),
)  # fmt: skip

BUGS = Catalogue(
    bugs=(*MUTANTS, *_CUT),
    correct=(
        Control(implementation=PACKAGE),
        Control(
            implementation=SIMPLE,
            promises=parse_promises(f"{_COPIES},-errors,-file_systems,-integrity,-no_code_on_load"),
            leaves_out=_BEYOND_SIMPLE,
        ),
        Control(implementation=COPIES, promises=parse_promises(_COPIES), leaves_out=_BEYOND_COPIES),
    ),
    missing=_MISSING,
)
"""What `python -m harness mutants` runs."""
