"""How the ranks of a job are arranged: the axes, their order, and which ranks belong together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.part import Part

ScheduleName = Literal["gpipe", "1f1b", "interleaved"]
CHUNKS = {"gpipe": 1, "1f1b": 1, "interleaved": 2}
"""Parts of the model that a rank holds, by schedule."""


class World(Part):
    """How the ranks are arranged, from the outermost axis to the innermost.

    A rank is ((stage x `dp_replicate` + replica) x `dp_shard` + shard) x `tp` + its place among the
    tensor-parallel peers. One rule decides the wrapping: with one replica the model is
    FSDP2-sharded over `dp_shard` ranks, even if that is one; with more replicas it is DDP if
    `dp_shard` is 1 and HSDP if it is more. Under `tp` without `dp_shard` nothing is wrapped in
    FSDP2.
    """

    pp: int = Field(1, ge=1, le=4, description="pipeline stages")
    dp_replicate: int = Field(1, ge=1, description="replicas: DDP, or HSDP with `dp_shard`")
    dp_shard: int = Field(1, ge=1, description="FSDP2 ranks in each stage and replica")
    tp: int = Field(1, ge=1, description="tensor-parallel ranks; they read the same samples")
    schedule: ScheduleName = Field(
        "gpipe", description="of the stages; `interleaved` gives each rank two parts of the model"
    )

    nodes: int = Field(1, ge=1, le=2, description="machines that the ranks run on, in order")

    @model_validator(mode="after")
    def _is_a_layout_that_the_job_builds(self) -> World:
        if self.dp_replicate > 1 and (self.pp > 1 or self.tp > 1):
            other = "pp" if self.pp > 1 else "tp"
            raise ValueError(
                f"`dp_replicate` is DDP or HSDP, and the job builds neither under `{other}`: "
                "use `dp_shard` there"
            )
        if self.schedule != "gpipe" and self.pp == 1:
            raise ValueError(
                f"`schedule: {self.schedule}` needs pipeline stages: `pp` of 2 or more"
            )
        return self

    @property
    def size(self) -> int:
        """Number of ranks of the job."""
        return self.pp * self.stage_size

    @property
    def stage_size(self) -> int:
        """Number of ranks of a stage."""
        return self.degree * self.tp

    @property
    def degree(self) -> int:
        """The data-parallel degree: into how many shares a batch is divided."""
        return self.dp_replicate * self.dp_shard

    @property
    def chunks(self) -> int:
        """Parts of the model that each rank holds."""
        return CHUNKS[self.schedule]

    @property
    def is_ddp(self) -> bool:
        """Whether each rank holds the whole model and DDP adds up the gradients."""
        return self.dp_replicate > 1 and self.dp_shard == 1

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP2 holds the parameters."""
        return not self.is_ddp and (self.dp_shard > 1 or self.tp == 1)

    def stage_of(self, rank: int) -> int:
        """Returns the pipeline stage of a rank."""
        return rank // self.stage_size

    def data_rank_of(self, rank: int) -> int:
        """Returns the share of a batch that a rank reads; equal in all stages and for tp peers."""
        return rank % self.stage_size // self.tp

    def node_of(self, rank: int) -> int:
        """Returns the node of a rank."""
        return rank * self.nodes // self.size

    def same_inside(self, other: World) -> bool:
        """Whether a stage of the other has the same ranks with the same shards."""
        return all(
            getattr(self, axis) == getattr(other, axis)
            for axis in ("dp_replicate", "dp_shard", "tp")
        )

    def __str__(self) -> str:
        where = f" on {self.nodes} nodes" if self.nodes > 1 else ""
        return " x ".join((self._stages(), *self._inside())) + where

    @property
    def brief(self) -> str:
        """The axes along which there is more than one rank."""
        stages = (self._stages(),) if self.pp > 1 else ()
        inside = self._inside() if self.stage_size > 1 else ()
        return " x ".join((*stages, *inside)) or "1 rank"

    def _stages(self) -> str:
        return f"pp{self.pp}" + ("" if self.schedule == "gpipe" else f" {self.schedule}")

    def _inside(self) -> tuple[str, ...]:
        if self.is_ddp:
            return (f"ddp{self.dp_replicate}",)
        if self.dp_replicate > 1:
            return (f"hsdp{self.dp_replicate}x{self.dp_shard}",)
        sharded = (f"fsdp{self.dp_shard}",) if self.is_sharded else ()
        return (*sharded, *((f"tp{self.tp}",) if self.tp > 1 else ()))
