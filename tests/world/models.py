"""Models that people train, small; packages are imported where they are used."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from tests.world.thing import Program, Thing, plain_step

_VOCABULARY = 64


def language_loss(model: Any) -> Callable[[], torch.Tensor]:
    """Of a causal language model on random tokens."""

    def loss() -> torch.Tensor:
        ids = torch.randint(_VOCABULARY, (2, 8))
        found: torch.Tensor = model(input_ids=ids, labels=ids).loss
        return found

    return loss


def squares(model: Any, *size: int) -> Callable[[], torch.Tensor]:
    """Of a model of vectors: the mean square of what it makes of a random batch."""

    def loss() -> torch.Tensor:
        found: torch.Tensor = model(torch.randn(*size)).pow(2).mean()
        return found

    return loss


def tiny_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        )
    )  # fmt: skip


def _llama() -> Program:
    from transformers import get_cosine_schedule_with_warmup

    model = tiny_llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, 10)
    return Program(model=model, optimizer=optimizer, loss=language_loss(model), scheduler=schedule)


def _llama_bf16_masters() -> Program:
    model = tiny_llama().to(torch.bfloat16)
    return Program(
        model=model, optimizer=MasterWeights(model.parameters(), 0.01), loss=language_loss(model)
    )


class MasterWeights(torch.optim.Optimizer):
    """Momentum on weights of float32, of which the model has those of bfloat16."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if not state:
                    state["master"] = param.float()
                    state["momentum"] = torch.zeros_like(state["master"])
                state["momentum"].mul_(0.9).add_(param.grad)
                state["master"].sub_(state["momentum"], alpha=group["lr"])
                param.copy_(state["master"])


def _gpt2_tied() -> Program:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=_VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    assert model.lm_head.weight is model.transformer.wte.weight
    named = dict(model.named_parameters())
    decayed = [param for name, param in named.items() if param.dim() > 1]
    rest = [param for name, param in named.items() if param.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=0.01
    )
    return Program(model=model, optimizer=optimizer, loss=language_loss(model))


def _lora(**options: Any) -> Program:
    from peft import LoraConfig, get_peft_model

    model: Any = get_peft_model(
        tiny_llama(),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, **options),
    )
    trained = [param for param in model.parameters() if param.requires_grad]
    return Program(
        model=model, optimizer=torch.optim.AdamW(trained, lr=0.01), loss=language_loss(model)
    )


def _mixtral() -> Program:
    from transformers import MixtralConfig, MixtralForCausalLM

    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=_VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, num_local_experts=4,
            num_experts_per_tok=1, max_position_embeddings=32,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return Program(model=model, optimizer=optimizer, loss=language_loss(model))


def _vit() -> Program:
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            image_size=8, patch_size=4, num_labels=3, hidden_dropout_prob=0.1,
        )
    )  # fmt: skip

    def loss() -> torch.Tensor:
        images, labels = torch.randn(2, 3, 8, 8), torch.randint(3, (2,))
        found: torch.Tensor = model(pixel_values=images, labels=labels).loss
        return found

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    return Program(model=model, optimizer=optimizer, loss=loss)


def _of_vectors(model: nn.Module, *size: int) -> Program:
    """With AdamW on random batches of vectors."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return Program(model=model, optimizer=optimizer, loss=squares(model, *size))


def _batch_norm() -> Program:
    return _of_vectors(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()), 2, 3, 5, 5
    )


def _channels_last() -> Program:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    return _of_vectors(model.to(memory_format=torch.channels_last), 2, 3, 5, 5)  # type: ignore[call-overload]


def _weight_norm() -> Program:
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 6)),
        parametrizations.spectral_norm(nn.Linear(6, 6)),
        parametrizations.orthogonal(nn.Linear(6, 6)),
    )
    return _of_vectors(model, 4, 6)


def _old_norms() -> Program:
    model = nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(6, 6)),
        prune.random_unstructured(nn.Linear(6, 6), "weight", amount=0.5),  # type: ignore[no-untyped-call]
    )
    return _of_vectors(model, 4, 6)


def _lazy() -> Program:
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(2))
    model(torch.randn(4, 6))
    return _of_vectors(model, 4, 6)


class _Rotating(nn.Module):
    """Complex weights, complex buffers, an integer one, and one that is not saved."""

    phases: torch.Tensor
    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(6, 6, dtype=torch.complex64))
        self.register_buffer("phases", torch.polar(torch.ones(6), torch.randn(6)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("conjugate", torch.randn(3, dtype=torch.complex128).conj())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        self.phases *= self.phases[0].clone()
        return (x * self.phases @ self.mix).abs()


def _complex() -> Program:
    return _of_vectors(_Rotating(), 4, 6)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_VOCABULARY, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, dropout=0.1)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.attention(self.lstm(self.embedding(ids))[0])
        return found


def _recurrent() -> Program:
    model = _Recurrent()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, centered=True, momentum=0.5)
    return Program(
        model=model,
        optimizer=optimizer,
        loss=lambda: model(torch.randint(_VOCABULARY, (5, 2))).pow(2).mean(),
    )


def _sparse_embedding() -> Program:
    model = nn.EmbeddingBag(_VOCABULARY, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    return Program(
        model=model,
        optimizer=optimizer,
        loss=lambda: model(torch.randint(_VOCABULARY, (3, 5))).pow(2).mean(),
    )


def _thawed_backbone() -> Program:
    """The backbone joins the optimizer, in a group of its own, at step 3."""
    model = nn.ModuleDict({"backbone": nn.Linear(6, 6), "head": nn.Linear(6, 2)})
    model["backbone"].requires_grad_(False)
    optimizer = torch.optim.AdamW(model["head"].parameters(), lr=0.02)

    def thaw() -> None:
        model["backbone"].requires_grad_(True)
        optimizer.add_param_group({"params": model["backbone"].parameters(), "lr": 0.001})

    def step(program: Program, number: int) -> torch.Tensor:
        if number == 3:
            thaw()
        return plain_step(program)

    return Program(
        model=model,
        optimizer=optimizer,
        loss=lambda: model["head"](model["backbone"](torch.randn(4, 6)).relu()).pow(2).mean(),
        step=step,
        on_resume=lambda at: thaw() if at >= 3 else None,
    )


def _fake_quantized() -> Program:
    """Observers whose buffers take their size from the first batch that they see."""
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model.qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_qat(model.train())  # type: ignore[no-untyped-call]
    return _of_vectors(prepared, 4, 6)


def _int8_weights() -> Program:
    """Weights that are a tensor subclass and trained as such."""
    from torchao.prototype.quantized_training import int8_weight_only_quantized_training
    from torchao.quantization import quantize_

    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    quantize_(model, int8_weight_only_quantized_training())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 16))


def _nf4_base() -> Program:
    """A frozen base of four bits, and adapters that are trained."""
    from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import linear_nf4, to_nf4

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = to_nf4(torch.randn(64, 64), 64, 64)
            self.base = nn.Parameter(base, requires_grad=False)
            self.down, self.up = nn.Linear(64, 4, bias=False), nn.Linear(4, 64, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = linear_nf4(x, self.base) + self.up(self.down(x))
            return found

    model = Adapted()
    trained = [*model.down.parameters(), *model.up.parameters()]
    return Program(
        model=model, optimizer=torch.optim.AdamW(trained, lr=0.05), loss=squares(model, 4, 64)
    )


class _Fused(nn.Module):
    """One weight, which the state dict has as three: by public hooks, as torchtitan does it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18, bias=False)
        self.register_state_dict_post_hook(_split)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_join)  # type: ignore[no-untyped-call]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.qkv(x)
        return found


def _split(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name, part in zip("qkv", state.pop(f"{prefix}qkv.weight").chunk(3), strict=True):
        state[f"{prefix}{name}.weight"] = part.clone()


def _join(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    parts = [state.pop(f"{prefix}{name}.weight") for name in "qkv"]
    state[f"{prefix}qkv.weight"] = torch.cat(parts)


def _fused() -> Program:
    return _of_vectors(nn.Sequential(_Fused(), nn.Linear(18, 2)), 4, 6)


def _plateau() -> Program:
    """A scheduler that looks at the loss, and gradients that are clipped."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=0)
    loss_of = squares(model, 4, 6)

    def step(program: Program, _: int) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        plateau.step(float(loss))
        return loss

    return Program(model=model, optimizer=optimizer, loss=loss_of, step=step, scheduler=plateau)


def _schedules_in_turn() -> Program:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, amsgrad=True)
    rates = torch.optim.lr_scheduler
    schedule = rates.SequentialLR(
        optimizer,
        [rates.LinearLR(optimizer, 0.1, total_iters=3), rates.CosineAnnealingLR(optimizer, 9)],
        milestones=[3],
    )
    return Program(model=model, optimizer=optimizer, loss=squares(model, 4, 6), scheduler=schedule)


MODELS = {
    "llama": Thing(build=_llama, needs=("transformers",)),
    "llama, bf16 with masters": Thing(build=_llama_bf16_masters, needs=("transformers",)),
    "gpt2, tied": Thing(build=_gpt2_tied, needs=("transformers",)),
    "lora": Thing(build=_lora, needs=("transformers", "peft")),
    "dora and a whole head": Thing(
        build=lambda: _lora(use_dora=True, modules_to_save=["lm_head"]),
        needs=("transformers", "peft"),
    ),
    "mixtral": Thing(build=_mixtral, needs=("transformers",)),
    "vit": Thing(build=_vit, needs=("transformers",)),
    "batch norm": Thing(build=_batch_norm),
    "convolutions, channels last": Thing(build=_channels_last),
    "parametrizations": Thing(build=_weight_norm),
    "spectral norm by hooks, pruning": Thing(build=_old_norms),
    "lazy modules": Thing(build=_lazy),
    "complex buffers": Thing(build=_complex),
    "lstm and attention": Thing(build=_recurrent),
    "sparse embedding": Thing(build=_sparse_embedding),
    "thawed backbone": Thing(build=_thawed_backbone),
    "fake quantization": Thing(build=_fake_quantized),
    "int8 weights": Thing(build=_int8_weights, needs=("torchao",)),
    "nf4 base": Thing(build=_nf4_base, needs=("torchao",)),
    "weights fused by hooks": Thing(build=_fused),
    "plateau schedule": Thing(build=_plateau),
    "schedules in turn": Thing(build=_schedules_in_turn),
}
