"""Variants of the models: real kinds of training whose state is held in another way.

Each is a module of this package and a word of the language (`harness.words.VARIANTS`).
"""

from __future__ import annotations

from harness.jobs.training.variants import buffers, experts, hooks, idle, lora, tied
from harness.jobs.training.variants.variant import PLAIN, Variant

VARIANTS: dict[str, Variant] = {
    "plain": PLAIN,
    "experts": experts.VARIANT,
    "hooks": hooks.VARIANT,
    "tied": tied.VARIANT,
    "lora": lora.VARIANT,
    "idle": idle.VARIANT,
    "buffers": buffers.VARIANT,
}
