"""The checkpoint manager, the interface for training loops."""

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from kempnerforge.checkpoint.async_save import make_stager, mode_of
from kempnerforge.checkpoint.bulk.plans import PlanBook
from kempnerforge.checkpoint.bulk.trust import ANY_OBJECT, PLAIN_DATA, Trust
from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    naming,
)
from kempnerforge.checkpoint.loading import Loaded, LoadRequest, Read, StateLoader, load_state
from kempnerforge.checkpoint.protocol.catalog import read_metadata
from kempnerforge.checkpoint.protocol.checkpoint_save import CheckpointSave, save_checkpoint
from kempnerforge.checkpoint.protocol.choosing import Search, cheap_choice
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.loading import Load
from kempnerforge.checkpoint.protocol.pointer import PointerKind, require_possible_if_empty
from kempnerforge.checkpoint.protocol.prune import tidy
from kempnerforge.checkpoint.protocol.reachable import (
    require_reachable,
    require_reachable_by_all,
)
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.retention import RetentionPolicy
from kempnerforge.checkpoint.protocol.save_messages import Published, SaveRequest, StagedState
from kempnerforge.checkpoint.protocol.verification import LoadReport, VerifyPolicy
from kempnerforge.checkpoint.runtime.background import BackgroundCall
from kempnerforge.checkpoint.runtime.collective import make_collective
from kempnerforge.checkpoint.runtime.directories import local_directory
from kempnerforge.checkpoint.runtime.driver import ProtocolRun, carry_out
from kempnerforge.checkpoint.runtime.guarded import guarded
from kempnerforge.checkpoint.runtime.rank import rank_runtime
from kempnerforge.checkpoint.runtime.storage import revocable
from kempnerforge.checkpoint.runtime.worker import Worker
from kempnerforge.checkpoint.settings import CheckpointSettings, Settings
from kempnerforge.checkpoint.state.checked import RestoreCheck
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.handover import (
    Handover,
    Unmatched,
    warn_of_missing,
    warn_of_stateless,
)
from kempnerforge.checkpoint.state.rank_state import RedistributableDataLoader
from kempnerforge.checkpoint.state.rng import set_rng_state
from kempnerforge.checkpoint.state.train_state import build_train_state, split_extra
from kempnerforge.checkpoint.taking import take_state
from kempnerforge.config.schema import AsyncCheckpointMode

__all__ = ["CheckpointManager"]

logger = logging.getLogger(__name__)


class CheckpointManager:
    """Saves, publishes, retains and loads the checkpoints of one training job.

    The constructor, :meth:`save`, :meth:`load`, :meth:`wait` and :meth:`flush_pending_save` are
    collective: all ranks must call them in the same order, from the training thread. Methods of one
    manager must not run concurrently. Communication uses separate gloo groups, so it can overlap
    with that of training.

    Args:
        config: A :class:`~kempnerforge.config.schema.CheckpointConfig`, or any object with its
            documented fields.
        model: The model, plain or sharded; with pipeline parallelism this rank's stage, with the
            global names of its parameters.
        optimizer: Its optimizer.
        process_group: The ranks of this rank's pipeline stage. Accepted for compatibility, but not
            used: ``pp_rank`` identifies the stage, and all ranks agree on commits.
        pp_rank: This rank's pipeline stage; None without pipeline parallelism.

    Raises:
        ValueError: ``config.dir`` is empty, a URL, or names an environment variable that is not
            set; or ``config.latest`` is unknown.
        UnreachableDirectoryError: The directory exists, but some rank cannot list it.
        UnsupportedStorageError: The directory is empty and does not support the configured kind of
            ``latest``. If that cannot be seen yet, the first save raises it.
        PeerLostError: Not all ranks made this call within ``config.commit_timeout_s`` seconds.
    """

    def __init__(
        self,
        config: CheckpointSettings,
        model: nn.Module,
        optimizer: Optimizer,
        process_group: dist.ProcessGroup | None = None,
        pp_rank: int | None = None,
    ) -> None:
        del process_group
        self._config = settings = Settings(config)
        self._model = model
        self._optimizer = optimizer
        self._stage = pp_rank
        self._root = local_directory(config.dir)
        self._timeout_s = settings.timeout_s
        self._mode = mode_of(config.async_mode)
        self._stager = make_stager(self._mode, direct=settings.direct_io)
        self._latest = PointerKind(settings.latest)
        self._plans = PlanBook()
        self._collective = make_collective(timeout_s=self._timeout_s)
        self._runtime = rank_runtime(
            self._root,
            rank=self._collective.rank,
            world_size=self._collective.world_size,
            follow=settings.follow_moved_dir,
        )
        self._register = Register(self._runtime.process)
        with Worker("looking into the checkpoint directory") as worker:
            looking = require_reachable_by_all(
                self._root, self._look, self._runtime, timeout_s=self._timeout_s
            )
            carry_out(looking, self._collective, worker)
        self._pending: BackgroundCall[Published] | None = None
        self._handover = Handover()
        self._said_stateless = False
        self._parent: str | None = None
        self._last_load: LoadReport | None = None
        self._damaged: frozenset[str] = frozenset()

    @property
    def last_load(self) -> LoadReport | None:
        """The report on the last :meth:`load` that found a checkpoint; None before.

        It says which checkpoint was loaded and which were passed over. Not collective. The same on
        every rank, except for the part on this rank's dataloader.
        """
        return self._last_load

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any | None = None,
        dataloader: Any | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a checkpoint of ``step``. Collective.

        In mode ``disabled``, the checkpoint is durable on return and ``latest`` names it. In the
        asynchronous modes, the state is copied on return and the rest happens in the background; a
        background save still in progress is waited for first. A checkpoint of the same step is
        replaced. Training is not affected: no random draw, no gradient, no optimizer step.

        Args:
            step: Current training step.
            tokens_seen: Tokens processed so far.
            scheduler: Anything with ``state_dict()``.
            dataloader: Anything with ``state_dict()``; each rank's own position is saved. Without
                ``state_dict()`` nothing is saved, and a warning is logged.
            extra: More values to save; ``vlm_freeze`` among them also goes to ``metadata.json``.

        Raises:
            UnreadableCheckpointError: A checkpoint of this step exists but cannot be read at
                present, so it is not replaced.
            NewerFormatError: A checkpoint of this step was written by a newer version of this
                package.
            DirectoryChangedError: On some rank, the checkpoint directory is gone or is another one.
            StillPublishedError: This save failed at its last step, but its checkpoint may exist;
                the message says what the next start will load.
            UnsupportedStorageError: The file system has no symbolic links, and ``config.latest`` is
                ``link``.
            CheckpointError: This save failed on some rank, or the background save before it did. In
                the latter case this save was carried out nevertheless.
        """
        earlier = self._settle()
        self._say_what_is_lost(dataloader)
        try:
            with naming(f"saving step {step} to {self._root}", step=step, path=str(self._root)):
                self._collective.renew()
        except CheckpointError as error:
            raise earlier or error from None
        job = self._job(step, tokens_seen, scheduler, dataloader, extra)
        if self._mode is AsyncCheckpointMode.disabled:
            self._note(job.run())
        else:
            self._pending = BackgroundCall(
                job.run, name=f"saving step {step}", timeout_s=4 * self._timeout_s
            )
        if earlier is not None:
            raise earlier

    def wait(self) -> None:
        """Blocks until no save is in progress and all saves are durable and published. Collective.

        Raises:
            CheckpointError: The pending save failed; raised once.
        """
        error = self._settle()
        if error is not None:
            raise error

    def flush_pending_save(self) -> None:
        """Same as :meth:`wait`; to be called before the model's freeze state changes. Collective.

        Raises:
            CheckpointError: See :meth:`wait`.
        """
        self.wait()

    def peek_saved_step(self, path: str | None = None) -> int | None:
        """Returns the step that :meth:`load` would load; not collective, reads no shards.

        The content of files is not verified, so :meth:`load` can fall back to another checkpoint
        if this one is damaged. To be certain, pass the path returned by ``resolve_resume_path``.

        Args:
            path: See :meth:`load`.

        Returns:
            The step from ``metadata.json``, or None if there is no checkpoint or no such file.

        Raises:
            UnreachableDirectoryError: The directory exists but cannot be listed.
            UnreadableCheckpointError: A checkpoint that may be newest cannot be read at present.
            NewerFormatError: The checkpoint was written by a newer version of this package.
        """
        search = self._search(path)
        if search.concerns_root:
            self._runtime.identity.confirm(self._runtime.storage)
        try:
            found = cheap_choice(search, self._runtime)
        except CheckpointNotFoundError:
            return None
        step = None if found is None else read_metadata(found, self._runtime.storage).get("step")
        return step if isinstance(step, int) else None

    def load(
        self,
        path: str | None = None,
        scheduler: Any | None = None,
        dataloader: Any | None = None,
        exclude_keys: Sequence[str] | None = None,
        vlm_freeze_expected: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[int, int, dict[str, Any]]:
        """Loads a checkpoint and restores all state. Collective.

        All files are verified before anything changes, as far as ``config.verify_on_load`` asks.
        Without a path, a damaged checkpoint is passed over and the newest one that verifies is
        loaded; the log and :attr:`last_load` report this. An explicit path is loaded or refused.

        Args:
            path: Checkpoint directory. None means ``config.load_path``, or else ``latest``, or else
                the newest committed checkpoint.
            scheduler: Restored if passed.
            dataloader: Restored if passed; otherwise its state is kept for
                :meth:`apply_dataloader_state`. If the data-parallel degree has changed, a loader
                with ``load_state_dicts`` gets the positions of all saved ranks
                (:class:`~kempnerforge.checkpoint.state.rank_state.RedistributableDataLoader`).
            exclude_keys: State to leave alone, such as ``optimizer``, ``scheduler``,
                ``dataloader``, ``rng`` or ``model.head``; added to ``config.exclude_from_loading``.
            vlm_freeze_expected: Freeze state of this run at the saved step, compared on the modules
                that the checkpoint names too.

        Returns:
            Step, tokens seen and the extra values; ``(0, 0, {})`` if nothing was ever saved.

        Raises:
            FreezeMismatchError: The freeze states differ (a ValueError).
            UnreadableCheckpointError: The checkpoint to load, or one that may be newer, cannot be
                read at present on some rank; raised on every rank.
            NewerFormatError: The checkpoint was written by a newer version of this package.
            DirectoryChangedError: See :meth:`save`.
            CheckpointError: No checkpoint is usable, or the given one cannot be loaded; raised on
                every rank. Or the background save before it failed on some rank, so nothing was
                loaded; raised once.
        """
        earlier = self._settle()
        exclude = Exclusion((*self._config.exclude_from_loading, *(exclude_keys or ())))
        place = str(path or self._root)
        with naming(f"loading {place}", path=place), Worker("checkpoint load") as worker:
            request = LoadRequest(
                search=self._search(path),
                trust=self._trust,
                exclude=exclude,
                freeze_expected=vlm_freeze_expected,
                ignore_freeze_mismatch=self._config.ignore_freeze_mismatch,
                redistributes=isinstance(dataloader, RedistributableDataLoader),
                check=RestoreCheck(self._config.check_restored),
            )
            runtime = self._runtime_for(worker, self._runtime.access.confirm_brief)
            apply = partial(self._apply, given=(scheduler, dataloader), exclude=exclude)
            load = self._load(runtime, request, apply)
            try:
                self._collective.renew(worker)
                loaded = carry_out(load_state(load, earlier), self._collective, worker)
            except CheckpointError as error:
                if earlier is None:
                    raise
                raise earlier from (earlier.__cause__ or error)
            if loaded is None:
                logger.info("nothing to load in %s", self._root)
                return 0, 0, {}
        given = {"scheduler": scheduler, "dataloader": dataloader}
        return self._finish_load(loaded, given, exclude)

    def apply_dataloader_state(self, dataloader: Any) -> None:
        """Restores ``dataloader`` from the state that :meth:`load` kept; not collective.

        Each rank's loader gets that rank's own state, once. The loader is left alone if there is no
        state or it has no ``load_state_dict``. If that method raises, the exception propagates and
        the state is kept. Afterwards the random generators are set again to their saved state,
        because building the loader may have drawn from them. They are not set if no position is
        left to restore, or after the first save.
        """
        self._handover.give(dataloader)
        report = self._last_load
        if report is None or self._handover.pending:
            return
        self._last_load = report.with_restored("dataloader")
        if self._handover.found_missing():
            warn_of_missing("dataloader", report.path)
            self._last_load = report.with_missing("dataloader")

    def _say_what_is_lost(self, dataloader: Any) -> None:
        """Warns, before a save, of a position that no loader took or that will not be saved."""
        if self._handover.training_goes_on() and self._last_load is not None:
            self._last_load = self._last_load.with_left("dataloader")
        stateless = dataloader is not None and not hasattr(dataloader, "state_dict")
        if stateless and not self._said_stateless:
            self._said_stateless = True
            warn_of_stateless(dataloader)

    def _settle(self) -> BaseException | None:
        """Waits for the pending save; returns its error, if it failed, once."""
        if self._pending is None:
            return None
        try:
            self._note(self._pending.result())
        except Exception as error:  # noqa: BLE001  # raised by the caller once it has done its own part
            self._stager.drop()
            self._pending = None
            return error
        # Not before: after an interrupt the save is still pending.
        self._pending = None
        return None

    def _note(self, saved: Published) -> None:
        self._parent = saved.save_id
        assert saved.step is not None
        self._runtime.identity.note(saved.step, saved.save_id)

    def _look(self) -> None:
        """Checks that the directory can be listed, and remembers which one it is."""
        require_reachable(self._root, self._runtime.storage)
        self._runtime.identity.confirm(self._runtime.storage)
        if self._runtime.rank == 0:
            self._require_pointer()

    def _job(
        self,
        step: int,
        tokens_seen: int,
        scheduler: Any,
        dataloader: Any,
        extra: Mapping[str, Any] | None,
    ) -> ProtocolRun[Published]:
        step, tokens_seen = int(step), int(tokens_seen)
        staged = take_state(
            self._model,
            self._optimizer,
            self._stager,
            self._plans,
            rounds=self._collective,
            build=lambda: build_train_state(step, tokens_seen, scheduler, dataloader, extra),
        )
        worker = Worker(f"writing step {step}")
        metadata: dict[str, Any] = {"step": step, "tokens_seen": tokens_seen}
        if extra is not None and "vlm_freeze" in extra and isinstance(staged, StagedState):
            # A copy, because the next freeze stage can begin before it is written.
            metadata["vlm_freeze"] = deepcopy(extra["vlm_freeze"])
        to = CheckpointSave(
            runtime=self._runtime_for(worker, self._runtime.access.confirm),
            root=self._root,
            stage=self._stage,
            request=SaveRequest(
                step=step, tokens_seen=tokens_seen, metadata=metadata, parent=self._parent
            ),
            staged=staged,
            retention=RetentionPolicy.of(self._config.given),
            register=self._register,
            save_id=self._runtime.process.new_save_id(),
            latest=self._latest,
            damaged=self._damaged,
        )
        return ProtocolRun(save_checkpoint(to, timeout_s=self._timeout_s), self._collective, worker)

    def _search(self, path: str | None) -> Search:
        explicit = self._config.load_path if path is None else path
        return Search(
            root=self._root,
            explicit=None if explicit is None else local_directory(explicit),
            verify=VerifyPolicy(self._config.verify_on_load),
            shards=self._trust,
        )

    @property
    def _trust(self) -> Trust:
        return ANY_OBJECT if self._config.allow_unsafe_pickle else PLAIN_DATA

    def _require_pointer(self) -> None:
        """Checks that ``latest`` can be created, in a directory that is still unused."""
        save_id = self._runtime.process.new_save_id()
        require_possible_if_empty(self._root, self._runtime.storage, self._latest, save_id=save_id)

    def _runtime_for(self, worker: Worker, confirm: Callable[[], None]) -> Runtime:
        """Returns a runtime for a worker's calls; its storage is revoked if the worker hangs."""
        mine = guarded(self._runtime.storage, confirm)
        return replace(self._runtime, storage=revocable(mine, revoked=lambda: worker.stuck))

    def _load(
        self,
        runtime: Runtime,
        request: LoadRequest,
        apply: Callable[[Mapping[str, Any]], None],
    ) -> Load[Read]:
        loader = StateLoader(
            runtime=runtime,
            model=self._model,
            optimizer=self._optimizer,
            stage=self._stage,
            request=request,
            apply=apply,
        )
        return Load(
            search=request.search,
            runtime=runtime,
            loader=loader,
            tidy=lambda: self._finish_off(runtime),
            timeout_s=self._timeout_s,
        )

    def _finish_off(self, runtime: Runtime) -> None:
        """Completes what a dead run left half done, unless another job may be doing so.

        Does nothing, and logs nothing, if the directory is read-only for this process.
        """
        self._runtime.identity.confirm(runtime.storage)
        with runtime.access.briefly() as mine:
            if mine and runtime.storage.may_change(self._root):
                tidy(self._root, runtime, self._register)
                self._register.leave_note(self._root, runtime.storage)
            else:
                self._register.look(self._root, runtime)
        self._register.accept()

    def _apply(
        self, state: Mapping[str, Any], *, given: tuple[Any, Any], exclude: Exclusion
    ) -> None:
        scheduler, dataloader = given
        if scheduler is not None and "scheduler" in state and not exclude.covers("scheduler"):
            scheduler.load_state_dict(state["scheduler"])
        asked = dataloader is None and not exclude.covers("dataloader")
        self._handover = Handover(state, asked=asked)
        if dataloader is not None:
            self._handover.give(dataloader)

    def _finish_load(
        self, loaded: Loaded, given: Mapping[str, Any], exclude: Exclusion
    ) -> tuple[int, int, dict[str, Any]]:
        state, choice = loaded.train_state, loaded.choice
        self._damaged |= choice.damaged
        self._parent = choice.manifest.save_id if choice.manifest else None
        if choice.manifest is not None and choice.path.parent == self._root:
            self._runtime.identity.note(choice.manifest.step, choice.manifest.save_id)
        self._runtime.access.forget_loss()
        if "rng" in state:
            set_rng_state(state["rng"])
            if given["dataloader"] is None or self._handover.pending:
                self._handover.keep_generators(state["rng"])
        unmatched = Unmatched.of(state, given, exclude, pending=self._handover.pending)
        unmatched.say(choice.path)
        self._last_load = LoadReport(
            path=choice.path,
            step=int(state["step"]),
            passed_over=choice.passed_over,
            verified=VerifyPolicy(self._config.verify_on_load),
            not_saved=unmatched.not_saved,
            not_restored=(*unmatched.not_restored, *loaded.not_taken),
        )
        logger.info("loaded step %d from %s", state["step"], choice.path)
        return int(state["step"]), int(state.get("tokens_seen", 0)), split_extra(state)
