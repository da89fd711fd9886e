"""Managers that mistake one rank of a mesh for another."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class KeepsTheShardOfOnePeer(SimpleManager):
    """Tensor-parallel peers save their shards under one name, as if they were copies."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        below: Any = simple_manager
        save, load = below.dcp_save, below.dcp_load
        below.dcp_save = lambda state, **told: save(_as_copies(state), **told)
        below.dcp_load = lambda state, **told: load(_as_copies(state), **told)
        super().__init__(*args, **kwargs)


def _as_copies(state: dict[str, Any]) -> dict[str, Any]:
    return {key: _local(value) for key, value in state.items()}


def _local(value: Any) -> Any:
    peers = isinstance(value, DTensor) and value.device_mesh.mesh_dim_names == ("tp",)
    return value.to_local() if peers else value


class GeneratorsOfTheFirstReplica(SimpleManager):
    """Replicas hold the same weights, so only those of the first replica save their generators."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        result = super().load(*args, **kwargs)
        group = _group(next(self._model.parameters()), "dp_replicate")
        if group is not None:
            generators: list[Any] = [simple_manager._get_generators()]
            dist.broadcast_object_list(generators, group_src=0, group=group)
            simple_manager._set_generators(generators[0])
        return result


def _group(param: Tensor, axis: str) -> dist.ProcessGroup | None:
    mesh: DeviceMesh | None = param.device_mesh if isinstance(param, DTensor) else None
    if mesh is None or axis not in (mesh.mesh_dim_names or ()):
        return None
    return mesh.get_group(axis)
