"""Read: the weights of a GGUF file, expanded, into a transformers model of the same shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from harness.errors import InvalidFile
from harness.forms.gguf.families import places


def read_weights(path: Path, model: Any) -> Any:
    """Put the dequantized tensors of the file at ``path`` in the place of ``model``'s weights.

    Raises:
        InvalidFile: a weight of the model is not in the file, or has another shape.
    """
    import torch

    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    state = model.state_dict()
    for place in places(model):
        if place.tensor not in tensors:
            raise InvalidFile(f"no tensor {place.tensor}", where=path)
        tensor, target = tensors[place.tensor], state[place.parameter]
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        if values.shape != tuple(target.shape):
            raise InvalidFile(
                f"{place.tensor} has shape {values.shape}",
                where=path,
                expected=f"{tuple(target.shape)} of {place.parameter}",
            )
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.array(place.back(values))))
    return model
