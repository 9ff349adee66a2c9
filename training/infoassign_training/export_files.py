"""Which files an export has; without torch, so that the command line's help is there at once."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["torchvision", "safetensors", "torch-export", "onnx"]
"""What weights may be written as."""
FILES: Mapping[Format, str] = {
    "torchvision": "torchvision.pth",
    "safetensors": "model.safetensors",
    "torch-export": "encoder.pt2",
    "onnx": "encoder.onnx",
}
"""The file of each."""
CARD = "README.md"
"""The model card, under the name that Hugging Face shows."""
