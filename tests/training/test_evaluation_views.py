"""How evaluations look at images: as torchvision does, in order, whoever does the work."""

import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from image_files import pixels, write_image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from infoassign_training.data.digits import digit_images, digits
from infoassign_training.data.evaluation_views import Look, Looks, centred, in_order, ten_crops
from infoassign_training.data.folder import open_folder
from infoassign_training.data.images import ImagesError

# Odd and even, upright and wide, smaller than what they are scaled to and larger.
SHAPES = [(301, 215), (37, 256), (256, 256), (100, 101), (19, 23)]


def images_of(shape: tuple[int, int]) -> list[PIL.Image.Image | Tensor]:
    image = PIL.Image.fromarray(pixels(sum(shape), *shape))
    return [image, transforms.pil_to_tensor(image)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (63, 64), (32, 32), (27, 40)])
@pytest.mark.parametrize("interpolation", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
def test_the_centre_is_that_of_torchvisions_preset(
    shape: tuple[int, int], size: int, resize: int, interpolation: InterpolationMode
) -> None:
    preset = ImageClassification(
        crop_size=size, resize_size=resize, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1)
    )
    for image in images_of(shape):
        look = centred(size, resize, interpolation)(image)
        assert look.shape == (3, size, size)
        assert look.dtype == torch.uint8
        # Of tensors the preset interpolates in floating point, and rounds last.
        atol = 1 / 255 if isinstance(image, Tensor) else 0
        torch.testing.assert_close(look.float() / 255, preset(image), rtol=0, atol=atol * 1.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_crops_are_corners_and_centre_and_their_mirror_images(shape: tuple[int, int]) -> None:
    for image in images_of(shape):
        looks = ten_crops(27, 40)(image)
        theirs = v2.Compose([v2.Resize(40), v2.TenCrop(27), v2.PILToTensor()])(image)
        assert looks.shape == (10, 3, 27, 27)
        assert looks.dtype == torch.uint8
        assert torch.equal(looks, torch.stack(theirs))
        assert torch.equal(looks[4], centred(27, 40)(image))
        if isinstance(image, Tensor):
            scaled = v2.Resize(40)(image)
            assert torch.equal(looks[3], scaled[:, -27:, -27:])
            assert torch.equal(looks[5], scaled.flip(2)[:, :27, :27])


def test_an_image_of_the_size_is_left_as_it_is() -> None:
    images = digit_images(digits()[1])
    assert torch.equal(centred(8, 8)(images.image(3)), images.image(3))


@pytest.mark.parametrize("make", [centred, ten_crops])
def test_sizes_that_make_no_sense_are_refused(make: type[Look]) -> None:
    for size, resize in ((257, 256), (0, 256)):
        with pytest.raises(ValueError, match=rf"from 1 to resize; got {size} of {resize}"):
            make(size, resize)


def test_looks_can_be_sent_to_other_processes() -> None:
    looks = Looks(digit_images(digits()[1]), ten_crops(6, 8))
    again = pickle.loads(pickle.dumps(looks))
    assert len(again) == len(looks) == 450
    assert torch.equal(again[7][0], looks[7][0])
    assert again[7][1] == 7


@pytest.mark.parametrize("rows", [range(450), range(100, 205), range(3, 450, 7), range(5, 5)])
def test_images_come_in_the_order_of_the_rows(rows: range) -> None:
    images = digit_images(digits()[1])
    state = torch.random.get_rng_state()
    batches = list(in_order(images, centred(6, 8), rows, batch_size=50))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [len(numbers) for _, numbers in batches] == [min(50, len(rows) - k) for k in range(0, len(rows), 50)]
    assert [number for _, numbers in batches for number in numbers.tolist()] == [*rows]
    for looks, numbers in batches:
        assert torch.equal(looks, torch.stack([centred(6, 8)(images.image(int(number))) for number in numbers]))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Ten images, of which the eighth is none."""
    for number in range(10):
        write_image(tmp_path / f"{number}.jpg", seed=number)
    (tmp_path / "7.jpg").write_bytes(b"no image")
    return tmp_path


def test_a_damaged_image_is_named(damaged: Path) -> None:
    batches = in_order(open_folder(damaged, labelled=False), centred(8, 8), range(10), batch_size=4)
    next(batches)
    with pytest.raises(ImagesError, match=r"^\S*7\.jpg cannot be decoded \(8 bytes\): no image format that is known$"):
        next(batches)


@pytest.mark.deep
@pytest.mark.filterwarnings(
    "ignore:This process.*is multi-threaded:DeprecationWarning", "ignore:os.fork:RuntimeWarning"
)
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_number_of_workers_changes_nothing(damaged: Path, context: str) -> None:
    images = open_folder(damaged, labelled=False)
    alone, helped = (
        in_order(images, ten_crops(8, 10), range(7), batch_size=3, workers=workers, context=context)
        for workers in (0, 2)
    )
    for (ours, rows), (theirs, numbers) in zip(alone, helped, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(rows, numbers)
    with pytest.raises(ImagesError, match=r"^\S*7\.jpg cannot be decoded \(8 bytes\): no image format that is known$"):
        list(in_order(images, centred(8, 8), range(10), batch_size=4, workers=2, context=context))


def test_pixels_of_a_source_in_memory_are_not_shared() -> None:
    images = digit_images(digits()[1])
    before = np.array(images.pixels[0])
    centred(8, 8)(images.image(0)).fill_(1)
    assert np.array_equal(images.pixels[0], before)
