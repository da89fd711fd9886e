"""Each rank has its GPU, its part of it and its way to talk; none is touched before the fork."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.jobs import untouched
from harness.jobs.implementation_server import ImplementationServers
from harness.jobs.training.data import Windows, collate
from harness.jobs.training.devices import choose_gpu, take_device
from harness.jobs.untouched import refuse_touched, touched
from harness.plan.model import Gpus, Workload
from harness.scenario.schema import Data
from harness.system.accelerators import open_device
from tests.harness.proving import ROOT, plan_of


def workload(device: str, gpus: Gpus | None = None) -> Workload:
    plain = plan_of("gpu/ranks-share-a-gpu.yaml::dp_shard2").workload
    return plain.model_copy(update={"device": device, "gpus": gpus})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is asked of CUDA, which is not there; the environment is put back afterwards."""
    found: list[object] = []
    monkeypatch.setattr(os, "environ", {"PATH": ""})
    monkeypatch.setattr(torch.cuda, "set_device", lambda name: found.append(("device", name)))
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda part, name: found.append(("memory", part, name)),
    )
    monkeypatch.setattr(
        torch, "use_deterministic_algorithms", lambda mode: found.append(("deterministic", mode))
    )
    return found


def described(beginning: str) -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name.startswith(beginning)}


@pytest.mark.parametrize(
    ("count", "sharing", "size", "places"),
    [
        (2, "gloo", 2, ["cuda:0 nccl", "cuda:1 nccl"]),
        (2, "gloo", 1, ["cuda:0 nccl"]),
        (1, "gloo", 2, ["cuda:0 gloo", "cuda:0 gloo"]),
        (1, "nccl_hostid", 2, ["cuda:0 nccl", "cuda:0 nccl"]),
        (2, "gloo", 3, ["cuda:0 gloo", "cuda:1 gloo", "cuda:0 gloo"]),
    ],
)
def test_ranks_talk_over_nccl_unless_they_share_a_gpu_over_gloo(
    count: int, sharing: str, size: int, places: list[str]
) -> None:
    gpus = Gpus(count=count, memory=0.1, sharing=sharing)
    backends = {"nccl": "cpu:gloo,cuda:nccl", "gloo": "gloo"}
    expected = [(place.split()[0], backends[place.split()[1]]) for place in places]
    assert [choose_gpu(gpus, rank, size) for rank in range(size)] == expected


def test_a_rank_takes_its_gpu_and_its_part_of_the_memory(
    tmp_path: Path, calls: list[object]
) -> None:
    (tmp_path / "gpus.json").write_text(json.dumps(["5", "GPU-8a"]))
    mine = workload("cuda", Gpus(count=2, memory=0.4, sharing="gloo"))
    assert take_device(mine, 1, 2, tmp_path) == ("cuda:1", "cpu:gloo,cuda:nccl")
    assert calls == [("device", "cuda:1"), ("memory", 0.4, "cuda:1"), ("deterministic", True)]
    assert described("CU") == {
        "CUDA_VISIBLE_DEVICES": "5,GPU-8a",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def test_ranks_that_share_a_gpu_over_nccl_pretend_to_be_hosts_of_their_own(
    tmp_path: Path, calls: list[object]
) -> None:
    (tmp_path / "gpus.json").write_text(json.dumps(["0"]))
    mine = workload("cuda", Gpus(count=1, memory=0.4, sharing="nccl_hostid"))
    assert take_device(mine, 1, 2, tmp_path) == ("cuda:0", "cpu:gloo,cuda:nccl")
    assert described("NCCL") == {
        "NCCL_HOSTID": "rank1",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
    }
    assert len(calls) == 3


def test_a_rank_on_the_cpu_asks_nothing_of_cuda_and_sees_no_gpu(
    tmp_path: Path, calls: list[object]
) -> None:
    assert take_device(workload("cpu"), 0, 1, tmp_path) == ("cpu", "gloo")
    assert calls == []
    assert described("CU") == {"CUDA_VISIBLE_DEVICES": ""}


def test_a_rank_without_a_lease_takes_no_gpu(tmp_path: Path, calls: list[object]) -> None:
    with pytest.raises(RuntimeError, match="this job was given no GPU"):
        take_device(workload("cuda"), 0, 1, tmp_path)
    assert calls == []


LOOK = """
import torch
asked = []
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device"):
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))
from harness.jobs.training.preload import preload
preload()
from harness.jobs.untouched import touched
mapped = [line for line in open("/proc/self/maps") if "/libcuda.so" in line]
print([asked, touched(), mapped])
"""


def test_the_warm_server_has_not_touched_cuda_when_it_is_ready_to_fork() -> None:
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert looked.stdout == "[[], None, []]\n"


def test_a_process_that_has_touched_cuda_refuses_to_fork_ranks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuse_touched()
    (tmp_path / "0").symlink_to(os.devnull)
    assert open_device(tmp_path) is None
    (tmp_path / "7").symlink_to("/dev/nvidiactl")
    assert open_device(tmp_path) == "/dev/nvidiactl"
    with monkeypatch.context() as patch:
        patch.setattr(untouched, "open_device", lambda: open_device(tmp_path))
        assert touched() == "/dev/nvidiactl is open"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="before ranks are forked, and CUDA is initialized"):
        refuse_touched()


def test_an_implementation_that_touches_cuda_when_it_is_imported_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "touches_cuda.py").write_text("Manager = object")
    monkeypatch.setattr(untouched, "touched", lambda: "CUDA is initialized")
    implementation_servers = ImplementationServers(lambda _: None, lambda _: None)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, theirs:
        wanted = {"module": "touches_cuda", "path": str(tmp_path)}
        assert not implementation_servers.pass_on(b"a run", theirs.fileno(), wanted)


def test_what_loader_processes_make_is_no_tensor() -> None:
    samples = [Windows(Data())[number] for number in range(2)]
    batch = collate(samples)
    kinds = {type(value).__module__ for value in (batch.text, batch.images, *samples[0])}
    assert kinds == {"numpy", "builtins"}
