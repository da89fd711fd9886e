"""Makes the inputs and targets of a pass from a batch."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from harness.jobs.training.data import Batch, Bytes
from harness.jobs.training.models import VOCABULARY
from harness.jobs.training.parallel import Place
from harness.scenario.schema import Model


def prepare(batch: Batch, model: Model, place: Place) -> tuple[tuple[Tensor, ...], Tensor]:
    """Returns the inputs and targets of one step, on the device.

    Some bytes are replaced by random ones, half of them drawn from `random` and half from numpy, so
    that a generator that was not restored changes the loss: on the first stage the bytes that are
    read, on the last stage the bytes to be predicted.
    """
    text = batch.text.copy()
    if place.is_first:
        _corrupt(text[:, :-1])
    if place.is_last:
        _corrupt(text[:, 1:])
    tokens = torch.from_numpy(text).to(place.device, torch.int64)
    # Stages of torch 2.11 compare strides with those of the example that they were given.
    inputs: tuple[Tensor, ...] = (tokens[:, :-1].contiguous(),)
    if model.preset == "tiny_vlm" and place.is_first:
        pixels = torch.from_numpy(batch.images).to(place.device, torch.float32)
        inputs = (*inputs, pixels / 255 - 0.5)
    return inputs, tokens[:, 1:]


def _corrupt(text: Bytes) -> None:
    rows, length = text.shape
    for row in range(rows):
        text[row, random.randrange(length)] = random.randrange(VOCABULARY)
    # Normal draws come in pairs, of which a generator keeps the second: that is state, too.
    text[0, 0] = int(abs(random.gauss(0.0, 40.0)) + abs(np.random.normal(0.0, 40.0))) % VOCABULARY
    columns = np.random.randint(length, size=rows)
    text[np.arange(rows), columns] = np.random.randint(VOCABULARY, size=rows)
