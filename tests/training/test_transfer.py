"""Label transfer: the file of labels, what is learnt from it, and how images are turned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infoassign_training.methods import labels as files
from infoassign_training.methods import settings
from infoassign_training.methods.labels import read_labels, write_labels
from infoassign_training.methods.method import Batch, Moment, Parts
from infoassign_training.methods.transfer import Transfer, turned

SIZES = (5, 3)
IMAGES = 20
NOW = Moment(0, 9, 3)


def found_labels() -> NDArray[np.int64]:
    random = np.random.default_rng(0)
    return np.stack([random.integers(0, size, IMAGES) for size in SIZES])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "labels.npy"
    write_labels(path, found_labels())
    return path


def transfer(path: Path | str, *, rotation: bool = False, heads: tuple[int, ...] = SIZES) -> Transfer:
    chosen = settings.Transfer(labels=str(path), heads=heads, rotation=rotation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.BatchNorm1d(6), nn.ReLU())
        method = chosen.method(Parts(encoder, nn.Identity(), features=6, projection=6, images=IMAGES, classes=0))
        # The heads start near zero; so that every logit counts:
        for parameter in method.parameters():
            nn.init.normal_(parameter)
    assert isinstance(method, Transfer)
    return method


def batch() -> Batch:
    views = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([3, 19, 0, 7, 7, 12, 1, 5])
    return Batch([views], rows, torch.zeros(8, dtype=torch.int64))


def cross_entropy(logits: Tensor, labels: NDArray[np.int64]) -> float:
    """The mean of - log p(label), each written out."""
    scores = logits.detach().double().numpy()
    terms = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(scores, labels, strict=True)]
    return float(np.mean(terms))


# What is learnt


def test_the_loss_is_the_mean_over_heads(path: Path) -> None:
    method, given = transfer(path), batch()
    method.prepare()
    step = method(given, NOW)
    logits = method.heads(method.encoder(given.views[0]))
    expected = [cross_entropy(some, row[given.rows]) for some, row in zip(logits, found_labels(), strict=True)]
    assert float(step.loss.detach()) == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert step.assignments == ()
    assert step.parts == {}
    step.loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_the_turns_are_learnt_from_all_views_and_the_labels_from_those_not_turned(path: Path) -> None:
    method, given = transfer(path, rotation=True), batch()
    assert method.rotation is not None
    method.prepare()
    step = method(given, NOW)
    # All at once, for batch normalisation sees them all.
    every = [np.rot90(image, turns, (1, 2)) for turns in range(4) for image in given.views[0].numpy()]
    features = method.encoder(torch.from_numpy(np.stack(every)))
    heads = [
        cross_entropy(some[:8], row[given.rows])
        for some, row in zip(method.heads(features), found_labels(), strict=True)
    ]
    rotation = cross_entropy(method.rotation(features), np.arange(4).repeat(8))
    assert float(step.loss.detach()) == pytest.approx(sum(heads) / 2 + rotation, rel=1e-5)
    assert float(step.parts["label_loss"]) == pytest.approx(sum(heads) / 2, rel=1e-5)
    assert float(step.parts["rotation_loss"]) == pytest.approx(rotation, rel=1e-5)
    step.loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_class_r_is_r_quarter_turns() -> None:
    images = batch().views[0]
    for turns, part in enumerate(turned(images).chunk(4)):
        for image, other in zip(images.numpy(), part.numpy(), strict=True):
            again = np.stack([np.rot90(channel, turns) for channel in image])
            assert np.array_equal(other, again)


def test_labels_of_new_images_are_the_first_heads_probabilities(path: Path) -> None:
    method, images = transfer(path, rotation=True), batch().views[0]
    found = method.label(images)
    with torch.no_grad():
        expected = method.heads(method.encoder(images))[0].softmax(dim=1)
    torch.testing.assert_close(found.plan, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.labels, expected.argmax(dim=1))
    assert method.labels == SIZES[0]


def test_a_saved_state_has_the_labels(path: Path) -> None:
    """Also where the file is no longer there."""
    method = transfer(path)
    method.prepare()
    path.unlink()
    other = transfer(path)
    assert (other.targets == -1).all()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.targets, torch.from_numpy(found_labels()))
    assert torch.equal(other(batch(), NOW).loss, method(batch(), NOW).loss)


# The file


def test_labels_come_back(path: Path) -> None:
    again = read_labels(path, sizes=SIZES, images=IMAGES)
    assert again.dtype == np.int64
    assert np.array_equal(again, found_labels())
    assert np.array_equal(np.load(path), found_labels())


def test_one_head_may_have_one_dimension(tmp_path: Path) -> None:
    row = found_labels()[0]
    np.save(tmp_path / "by_hand.npy", row)
    write_labels(tmp_path / "written.npy", row)
    assert np.load(tmp_path / "written.npy").shape == (1, IMAGES)
    for name in ("by_hand.npy", "written.npy"):
        assert np.array_equal(read_labels(tmp_path / name, sizes=(5,), images=IMAGES), row[None])


def test_a_write_that_fails_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(array: Any, dtype: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_labels(path, np.zeros((2, IMAGES), dtype=np.int64))
    monkeypatch.undo()
    assert np.array_equal(np.load(path), found_labels())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.zeros((2, 4), dtype=np.int32), r"int32 of shape \(2, 4\)"),
        (np.zeros((2, 4)), "float64"),
        (np.zeros((1, 2, 4), dtype=np.int64), r"\(1, 2, 4\)"),
    ],
)
def test_only_labels_are_written(labels: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"labels must be int64 of shape .* got .*{found}"):
        write_labels(tmp_path / "labels.npy", labels)
    assert not list(tmp_path.iterdir())


def test_labels_need_a_file() -> None:
    with pytest.raises(ValueError, match=r"give --method.labels FILE, labels.npy of a run"):
        transfer("").prepare()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read from .*missing.npy: No such file or directory"):
        transfer(tmp_path / "missing.npy").prepare()
    with pytest.raises(ValueError, match=r"cannot be read from .*: Is a directory"):
        transfer(tmp_path).prepare()


class Trap:
    """What must not be unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("was unpickled",)


@pytest.mark.parametrize("content", ["empty", "text", "pickle", "objects", "cut", "npz", "broken header"])
def test_other_files_are_refused(content: str, path: Path) -> None:
    whole = path.read_bytes()
    match content:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("0 1 2\n" * 50)
        case "pickle":
            np.array([Trap()], dtype=object).dump(path)
        case "objects":
            np.save(path, np.array([[Trap()]], dtype=object), allow_pickle=True)
        case "cut":
            path.write_bytes(whole[:-8])
        case "npz":
            with path.open("wb") as file:
                np.savez(file, labels=found_labels())
        case "broken header":
            path.write_bytes(whole.replace(b"}", b" "))
    with pytest.raises(ValueError, match=r"labels.npy is no .npy file of labels: "):
        transfer(path).prepare()


@pytest.mark.parametrize(
    ("labels", "heads", "message"),
    [
        (found_labels().astype(np.int32), SIZES, "labels must be int64; got int32"),
        (found_labels().astype(float), SIZES, "labels must be int64; got float64"),
        (
            found_labels()[:, :-1],
            SIZES,
            r"expected labels of shape \(T, N\) = \(2, 20\), 2 heads and 20 images; got \(2, 19\)",
        ),
        (found_labels(), (5,), r"= \(1, 20\), 1 head and 20 images; got \(2, 20\)"),
        (found_labels()[0], SIZES, r"= \(2, 20\), .* got \(20,\)"),
        (found_labels()[0, 0], (5,), r"= \(1, 20\), .* got \(\)"),
        (found_labels().T, SIZES, r"got \(20, 2\)"),
        (np.full((2, IMAGES), -1), SIZES, r"labels of head 0 must be in \[0, 5\), as method.heads says; got -1 to -1"),
        (found_labels() * [[1], [2]], SIZES, r"labels of head 1 must be in \[0, 3\), as method.heads says; got 0 to 4"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, heads: tuple[int, ...], message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", labels)
    method = transfer(tmp_path / "labels.npy", heads=heads)
    with pytest.raises(ValueError, match=message):
        method.prepare()
    assert (method.targets == -1).all()


@pytest.mark.parametrize("heads", [(), (5, 1)])
def test_heads_are_checked(heads: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"method\.heads must be numbers of labels"):
        settings.Transfer(heads=heads)
