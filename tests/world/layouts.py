"""Programs of several ranks."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from tests.world.models import language_loss, squares, tiny_llama
from tests.world.optimizers import Chain, large, low_bit, matrices, net
from tests.world.thing import Program, Thing, plain_step


def _mesh(*sizes: int, names: tuple[str, ...] = ("dp",)) -> Any:
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)


def _fsdp2_llama() -> Program:
    model = tiny_llama()
    mesh = _mesh(2)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    return Program(model=model, optimizer=optimizer, loss=language_loss(model))


def _sharded(
    make: Callable[[Any], Any], *, model: Callable[[], nn.Sequential] = net, inputs: int = 8
) -> Callable[[], Program]:
    def build() -> Program:
        module = model()
        fully_shard(module, mesh=_mesh(2))
        return Program(
            model=module,
            optimizer=make(list(module.parameters())),
            loss=squares(module, 4, inputs),
        )

    return build


def _sharded_average() -> Program:
    """An average as distributed tensors, which the loop keeps and gives to ``extra``."""
    model = net()
    fully_shard(model, mesh=_mesh(2))
    average = {name: param.detach().clone() for name, param in model.named_parameters()}

    def step(program: Program, _: int) -> torch.Tensor:
        loss = plain_step(program)
        with torch.no_grad():
            for name, param in model.named_parameters():
                average[name].lerp_(param, 0.1)
        return loss

    return Program(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.05),
        loss=squares(model, 4, 8),
        step=step,
        extra=lambda: {"average": average, "decay": 0.9},
        take_extra=lambda extra: average.update(extra["average"]),
    )


def _fsdp1(*, use_orig_params: bool) -> Callable[[], Program]:
    def build() -> Program:
        model = FullyShardedDataParallel(
            net(), device_id=torch.device("cpu"), use_orig_params=use_orig_params
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))

    return build


def _hsdp() -> Program:
    model = net()
    fully_shard(model, mesh=_mesh(2, 2, names=("replicas", "shards")))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))


def _same_batch(*size: int) -> torch.Tensor:
    """The batch of the first rank, on all."""
    batch = torch.randn(*size)
    dist.broadcast(batch, 0)
    return batch


def _tensor_parallel() -> Program:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, _mesh(2, names=("tp",)), plan)
    return Program(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.05),
        loss=lambda: model(_same_batch(4, 8)).pow(2).mean(),
    )


class _Experts(nn.Module):
    """This rank's own experts, under the names that each rank gives to its own."""

    def __init__(self, *, own: int) -> None:
        super().__init__()
        torch.manual_seed(torch.initial_seed() + dist.get_rank())
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(own))

    def forward(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        begin = dist.get_rank() * len(self.experts)
        chosen = gates.argmax(-1)
        out = 0 * (x + gates.sum(-1, keepdim=True))  # so that a rank without tokens goes backward
        for position, expert in enumerate(self.experts):
            mine = chosen == begin + position
            if mine.any():
                gate = gates[mine, begin + position].unsqueeze(-1)
                out = out.index_put((mine.nonzero()[:, 0],), gate * expert(x[mine]))
        found: torch.Tensor = torch.distributed.nn.functional.all_reduce(out)  # type: ignore[no-untyped-call]
        return found


class _MixtureOfExperts(nn.Module):
    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.dense = nn.Linear(8, 8)
        self.experts = experts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.dense(x)
        found: torch.Tensor = self.experts(hidden, self.router(hidden).softmax(-1))
        return found

    def replicas(self) -> list[nn.Parameter]:
        return [*self.router.parameters(), *self.dense.parameters()]


def _expert_parallel() -> Program:
    """An expert that gets no token in a step has no gradient, and may have no moments yet."""
    torch.manual_seed(torch.initial_seed())
    model = _MixtureOfExperts(nn.Module())
    model.experts = _Experts(own=2)

    def step(program: Program, _: int) -> torch.Tensor:
        program.optimizer.zero_grad()
        loss = program.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        for param in model.replicas():
            dist.all_reduce(param.grad)
        program.optimizer.step()
        return loss

    return Program(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.05),
        loss=lambda: model(_same_batch(6, 8)).pow(2).mean(),
        step=step,
    )


class _GroupedExperts(nn.Module):
    """All experts in one distributed tensor, an expert a row."""

    def __init__(self, mesh: Any) -> None:
        super().__init__()
        self.mesh = mesh
        self.weights = nn.Parameter(distribute_tensor(torch.randn(4, 8, 8) / 3, mesh, [Shard(0)]))

    def forward(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        weights: Any = self.weights
        own = weights.to_local()
        begin = self.mesh.get_local_rank() * own.shape[0]
        mine = gates[:, begin : begin + own.shape[0]]
        out = torch.einsum("bi,eio,be->bo", x, own, mine)
        group = self.mesh.get_group()
        found: torch.Tensor = torch.distributed.nn.functional.all_reduce(out, group=group)  # type: ignore[no-untyped-call]
        return found


def _experts_and_shards() -> Program:
    """Experts on a mesh of their own, the rest sharded by FSDP2."""
    model = _MixtureOfExperts(_GroupedExperts(_mesh(2, names=("ep",))))
    mesh = _mesh(2)
    fully_shard(model.router, mesh=mesh)
    fully_shard(model.dense, mesh=mesh)
    groups = [{"params": model.replicas()}, {"params": list(model.experts.parameters())}]
    return Program(
        model=model,
        optimizer=torch.optim.AdamW(groups, lr=0.05, foreach=False),
        loss=lambda: model(_same_batch(6, 8)).pow(2).mean(),
    )


def _zero() -> Program:
    """torch's ZeRO-1: each rank has the moments of its own part of the parameters."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(net())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.05)
    return Program(
        model=model,
        optimizer=optimizer,
        loss=squares(model, 4, 8),
        watched=lambda: optimizer.optim.state_dict(),
    )


def _compiled_ddp() -> Program:
    model: Any = torch.compile(DistributedDataParallel(net()), backend="eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))


def _local_steps() -> Program:
    """Weights and moments that drift apart by rank, averaged every third step."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)

    def step(program: Program, number: int) -> torch.Tensor:
        loss = plain_step(program)
        if number % 3 == 0:
            for param in model.parameters():
                dist.all_reduce(param.data)
                param.data /= dist.get_world_size()
        return loss

    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8), step=step)


def _sharded_lora() -> Program:
    """A frozen base in bfloat16 and adapters in float32, sharded apart."""
    from peft import LoraConfig, get_peft_model

    base = tiny_llama().to(torch.bfloat16)
    options = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    model: Any = get_peft_model(base, options, autocast_adapter_dtype=False)
    for layer in base.model.layers:
        fully_shard(layer, mesh=_mesh(2))
    fully_shard(model, mesh=_mesh(2))
    trained = [param for param in model.parameters() if param.requires_grad]
    return Program(
        model=model, optimizer=torch.optim.AdamW(trained, lr=0.01), loss=language_loss(model)
    )


def _experts_over_two_axes() -> Program:
    """Experts split over one axis, and each split over the other; the rest over both."""
    mesh = _mesh(2, 2, names=("dp", "ep"))
    experts = _GroupedExperts(mesh["ep"])
    fully_shard(experts, mesh=mesh["dp"])
    model = _MixtureOfExperts(experts)
    flat = mesh._flatten("all")
    fully_shard(model.router, mesh=flat)
    fully_shard(model.dense, mesh=flat)
    groups = [{"params": model.replicas()}, {"params": list(model.experts.parameters())}]
    return Program(
        model=model,
        optimizer=torch.optim.AdamW(groups, lr=0.05, foreach=False),
        loss=lambda: model(_same_batch(6, 8)).pow(2).mean(),
    )


def _experts_on_half() -> Program:
    """Experts that two of four ranks have, on a mesh of those two."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    params = list(model.parameters())
    mesh = DeviceMesh("cpu", [0, 1], mesh_dim_names=("ep",))
    if dist.get_rank() < 2:
        model.register_parameter(
            "expert", nn.Parameter(distribute_tensor(torch.randn(4), mesh, [Shard(0)]))
        )

    def loss() -> torch.Tensor:
        found: torch.Tensor = model(torch.randn(4, 8)).pow(2).mean()
        own: Any = getattr(model, "expert", None)
        return found if own is None else found + own.to_local().pow(2).sum()

    groups: list[dict[str, Any]] = [
        {"params": params},
        {"params": list({*model.parameters()} - {*params}), "lr": 0.02},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.05, foreach=False)
    return Program(model=model, optimizer=optimizer, loss=loss)


def _wrapped_twice() -> Program:
    """Activation checkpointing within torch.compile within DDP."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    inner = nn.Sequential(checkpoint_wrapper(net()), nn.Linear(4, 2))
    model = DistributedDataParallel(torch.compile(inner, backend="eager"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))


def _in_backward() -> Program:
    """One optimizer a parameter, as where each steps as soon as its gradient is there."""
    model = net()
    fully_shard(model, mesh=_mesh(2))
    chain = Chain(*(torch.optim.AdamW([param], lr=0.05) for param in model.parameters()))
    return Program(model=model, optimizer=chain, loss=squares(model, 4, 8))


def _post_local_sgd() -> Program:
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torch.distributed.optim import PostLocalSGDOptimizer

    model = net()
    averager = PeriodicModelAverager(period=3, warmup_steps=2)
    optimizer = PostLocalSGDOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), averager
    )
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))


def _local_batch_norm() -> Program:
    """Batch statistics that each rank gathers for itself."""
    inner = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model = DistributedDataParallel(inner, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))


def _uneven_muon() -> Program:
    """Shards of unequal size, one of them empty, and two optimizers in a chain."""
    model = nn.Sequential(nn.Linear(8, 3), nn.Tanh(), nn.Linear(3, 1))
    fully_shard(model, mesh=_mesh(2))
    params = list(model.parameters())
    optimizer = Chain(
        torch.optim.SGD([p for p in params if p.dim() == 2], lr=0.02, momentum=0.9),
        torch.optim.AdamW([p for p in params if p.dim() != 2], lr=0.01),
    )
    assert any(isinstance(p, DTensor) and not p.to_local().numel() for p in params) == (
        dist.get_rank() == 1
    )
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 8))


LAYOUTS = {
    "llama under fsdp2": Thing(build=_fsdp2_llama, ranks=2, needs=("transformers",)),
    "torchao AdamW8bit under fsdp2": Thing(
        build=_sharded(low_bit("AdamW8bit"), model=large, inputs=64), ranks=2, needs=("torchao",)
    ),
    "average as distributed tensors in extra": Thing(build=_sharded_average, ranks=2),
    "fsdp1": Thing(build=_fsdp1(use_orig_params=True), ranks=2),
    "fsdp1, flat parameters": Thing(build=_fsdp1(use_orig_params=False), ranks=2),
    "hsdp": Thing(build=_hsdp, ranks=4),
    "tensor parallel": Thing(build=_tensor_parallel, ranks=2),
    "expert parallel": Thing(build=_expert_parallel, ranks=2),
    "experts on a mesh of their own": Thing(build=_experts_and_shards, ranks=2),
    "zero redundancy optimizer": Thing(build=_zero, ranks=2),
    "lora under fsdp2": Thing(build=_sharded_lora, ranks=2, needs=("transformers", "peft")),
    "experts over two axes": Thing(build=_experts_over_two_axes, ranks=4),
    "experts on half of the ranks": Thing(build=_experts_on_half, ranks=4),
    "checkpoints, compile and ddp": Thing(build=_wrapped_twice, ranks=2),
    "an optimizer a parameter": Thing(build=_in_backward, ranks=2),
    "muon under fsdp2": Thing(
        build=_sharded(lambda params: torch.optim.Muon(params, lr=0.02), model=matrices), ranks=2
    ),
    "compiled ddp": Thing(build=_compiled_ddp, ranks=2),
    "local steps": Thing(build=_local_steps, ranks=2),
    "post-local sgd": Thing(build=_post_local_sgd, ranks=2),
    "batch norm by rank": Thing(build=_local_batch_norm, ranks=2),
    "uneven shards, chained optimizers": Thing(build=_uneven_muon, ranks=2),
}
