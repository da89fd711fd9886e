"""The layout of a job's ranks, as recorded in the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Arrangement", "all_meshes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """The pipeline stages and device meshes of a job's ranks."""

    stage_of_rank: tuple[int | None, ...]
    """Pipeline stage of each rank; None without pipeline stages."""
    meshes: tuple[Mapping[str, Any], ...]
    """Device meshes of the parameters of all ranks, from :func:`model_state.mesh_signature`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the form kept in the manifest."""
        return {"stage_of_rank": list(self.stage_of_rank), "meshes": list(self.meshes)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Arrangement":
        """Reverses :meth:`to_json`."""
        return Arrangement(
            stage_of_rank=tuple(value["stage_of_rank"]), meshes=tuple(value["meshes"])
        )

    def ranks_of(self, stage: int | None) -> tuple[int, ...]:
        """Returns the ranks of a stage in order; without stages, None and 0 both mean all ranks."""
        return tuple(
            rank for rank, other in enumerate(self.stage_of_rank) if (other or 0) == (stage or 0)
        )


def all_meshes(of_ranks: Iterable[Sequence[Mapping[str, Any]]]) -> tuple[Mapping[str, Any], ...]:
    """Returns the device meshes of all ranks, by their axes and without duplicates."""
    found = {
        (tuple(mesh["axes"]), tuple(mesh["sizes"])): mesh for meshes in of_ranks for mesh in meshes
    }
    return tuple(found[key] for key in sorted(found))
