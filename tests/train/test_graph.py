"""Which micro-batches are recorded as CUDA graphs: decided by time, without a GPU."""

from __future__ import annotations

import numpy as np

from harness.train.collate import StreamSize, make_stream_batch
from harness.train.graph import MicroBatchTimes, choose_shapes
from tests.train.tiny import tiny_row

# As measured on one H100 with a slow host.
SMALL_MODEL = MicroBatchTimes(launch=0.081, token=5.3e-6)  # SmolLM2's shape
LARGE_MODEL = MicroBatchTimes(launch=0.078, token=2.3e-5)  # Phi-2's


def sizes_of(tokens: list[int]) -> list[StreamSize]:
    return [StreamSize(size, 8, size // 2, min(size, 512)) for size in tokens]


def test_a_small_model_is_recorded_although_a_third_is_filling() -> None:
    sizes = sizes_of([2100, 2500, 2900, 3300] * 10)
    shapes = choose_shapes(sizes, SMALL_MODEL)

    assert all(
        shape is not None and shape.tokens >= size.tokens
        for size, shape in zip(sizes, shapes, strict=True)
    )


def test_equal_micro_batches_of_a_large_model_are_recorded() -> None:
    shapes = choose_shapes(sizes_of([16_380, 16_384, 16_300, 16_384] * 30), LARGE_MODEL)
    assert len(set(shapes)) == 1
    assert shapes[0] is not None


def test_large_micro_batches_of_unequal_length_are_launched_as_they_are() -> None:
    """The device is busy without a recording; filling would only cost it time."""
    rng = np.random.default_rng(0)
    shapes = choose_shapes(sizes_of(rng.integers(8_000, 16_000, 40).tolist()), LARGE_MODEL)
    assert shapes == [None] * 40


def test_a_few_long_micro_batches_do_not_fill_up_the_short_ones() -> None:
    sizes = sizes_of([150] * 90 + [30_000] * 10)
    shapes = choose_shapes(sizes, LARGE_MODEL)

    filled = sum(
        shape.tokens if shape else size.tokens for size, shape in zip(sizes, shapes, strict=True)
    )
    assert all(shape is not None for shape in shapes[:60])
    assert filled < 1.5 * sum(size.tokens for size in sizes)


def test_a_short_training_is_not_recorded() -> None:
    assert choose_shapes(sizes_of([2000] * 5), SMALL_MODEL) == [None] * 5


def test_every_micro_batch_has_the_tensors_of_its_shape() -> None:
    """A recording copies into tensors of fixed sizes."""
    rng = np.random.default_rng(0)
    micros = [
        [tiny_row(rng, *map(int, rng.integers(3, 40, 2))) for _ in range(3)] for _ in range(120)
    ]
    shapes = choose_shapes([StreamSize.of(rows) for rows in micros], MicroBatchTimes(0.2, 1e-3))
    assert len(set(shapes)) > 1
    for shape in set(shapes):
        assert shape is not None
        batches = [
            make_stream_batch(rows, shape)
            for rows, own in zip(micros, shapes, strict=True)
            if own == shape
        ]
        for name, tensor in batches[0].tensors.items():
            assert {batch.tensors[name].shape for batch in batches} == {tensor.shape}
