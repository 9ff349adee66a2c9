"""Checkpoints that can be used, and those that cannot."""

from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
import torch
from digit_runs import built

from infoassign import files
from infoassign_training.config import Pretraining
from infoassign_training.data.digits import LabelledImages
from infoassign_training.engine import checkpoint
from infoassign_training.engine.checkpoint import Checkpoint, CheckpointError
from infoassign_training.models.settings import SmallResNet

IMAGES = LabelledImages(torch.zeros(128, 1, 8, 8), torch.zeros(128, dtype=torch.int64))
"""What a model is built for; only the shape counts."""


@pytest.fixture
def saved(tmp_path: Path, small: Pretraining) -> Path:
    method = built(small, IMAGES)
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, state_of(method, 3))
    return path


def state_of(method: torch.nn.Module, step: int) -> Checkpoint:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    return Checkpoint(step, method.state_dict(), optimizer.state_dict(), {}, {})


def test_comes_back(saved: Path, small: Pretraining) -> None:
    state = checkpoint.load(saved)
    assert state is not None
    assert state.step == 3
    other = built(replace(small, seed=5), IMAGES)
    state.restore_method(other)
    for one, two in zip(other.state_dict().values(), built(small, IMAGES).state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_none_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "checkpoint.pt") is None


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_truncated_file_is_named(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read as a checkpoint, it is damaged"):
        checkpoint.load(saved)


def test_a_foreign_file_is_named(saved: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, saved)
    with pytest.raises(CheckpointError, match="is not a checkpoint of infoassign"):
        checkpoint.load(saved)


def test_code_in_a_file_is_not_run(saved: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (saved.with_name("pwned"),)

    torch.save({"format": checkpoint.FORMAT, "code": Code()}, saved)
    with pytest.raises(CheckpointError, match="damaged or foreign"):
        checkpoint.load(saved)
    assert not saved.with_name("pwned").exists()


def test_a_newer_version_asks_for_an_update(saved: Path) -> None:
    state = torch.load(saved, weights_only=True)
    torch.save(state | {"version": checkpoint.VERSION + 1}, saved)
    with pytest.raises(CheckpointError, match="has format version 3 and this program reads up to 2; update"):
        checkpoint.load(saved)


def test_a_checkpoint_without_all_its_parts_is_named(saved: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "version": 1, "epochs": 3}, saved)
    with pytest.raises(CheckpointError, match="lacks step, method, optimizer, scaler, summary; if it is a copy, copy"):
        checkpoint.load(saved)


def test_only_who_trains_is_told_to_delete_it(saved: Path) -> None:
    saved.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="delete it to train from the start"):
        checkpoint.load(saved, to_train=True)
    saved.with_name(checkpoint.GOOD).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"put checkpoint-good\.pt in its place, or delete it"):
        checkpoint.load(saved, to_train=True)
    with pytest.raises(CheckpointError, match=r"there is also checkpoint-good\.pt") as told:
        checkpoint.load(saved)
    assert "delete" not in str(told.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_an_os_error(saved: Path, small: Pretraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes go to a device that is always full, through torch's serialisation and all."""
    before = saved.read_bytes()

    def on_the_full_device(_: Path) -> IO[bytes]:
        return open("/dev/full", "wb")  # noqa: PTH123 - replacing() closes it

    monkeypatch.setattr(files, "_open_unnamed", on_the_full_device)
    method = built(small, IMAGES)
    with pytest.raises(OSError, match=r"No space left on device.*what it held before is kept"):
        checkpoint.save(saved, state_of(method, 4))
    assert saved.read_bytes() == before


def test_another_model_is_named(saved: Path, small: Pretraining) -> None:
    state = checkpoint.load(saved)
    assert state is not None
    with pytest.raises(CheckpointError, match="belongs to another model"):
        state.restore_method(built(replace(small, encoder=SmallResNet(features=7)), IMAGES))
