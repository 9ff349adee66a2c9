"""Colours by batches: each change is torchvision's of one image, and the views are those that workers would draw."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import PIL.Image
import pytest
import torch
from PIL.ImageFilter import GaussianBlur
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from infoassign_training.config import Pretraining
from infoassign_training.data.augmentations import Dino, MultiCrop, Sela, SelaRetraining, Swav, Vicreg
from infoassign_training.data.batched_colours import (
    Draw,
    blurred,
    brightness,
    coloured,
    contrast,
    grey_of,
    hue,
    saturation,
    solarised,
)
from infoassign_training.data.images import ArrayImages
from infoassign_training.data.loader import Batches, ViewLoader
from infoassign_training.data.settings import Synthetic
from infoassign_training.data.views import Views, normalised
from infoassign_training.engine.feed import ViewFeed
from infoassign_training.engine.ranks import Place
from infoassign_training.models.settings import ResNet

LEVEL = 1 / 255
ROUNDING = {"atol": 2e-6, "rtol": 0.0}
COUNT, SIDE = 12, 24
IN_TURN = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
GREY, SIGMA, SOLARISE = 8, 9, 10


def smooth(count: int, side: int) -> Tensor:
    """Images with shapes in them, (count, 3, side, side), uint8; the corner is black, white, grey and full colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    pil = (PIL.Image.fromarray(image).resize((side, side), PIL.Image.Resampling.BICUBIC) for image in coarse)
    images = torch.stack([tv.pil_to_tensor(image) for image in pil])
    # Where hue has its ties and divisions by zero.
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    images[:, :, 0, : len(colours)] = torch.tensor(colours, dtype=torch.uint8).T
    return images


@pytest.fixture
def bytes_() -> Tensor:
    return smooth(COUNT, SIDE)


@pytest.fixture
def images(bytes_: Tensor) -> Tensor:
    return bytes_ / 255


# Each change: one image at a time, by torchvision's function of float32 in [0, 1]


def test_brightness_is_torchvisions(images: Tensor) -> None:
    factors = torch.linspace(0, 2, COUNT)
    expected = torch.stack([tv.adjust_brightness(x, float(f)) for x, f in zip(images, factors, strict=True)])
    assert torch.equal(brightness(images, factors), expected)


def test_contrast_is_torchvisions(images: Tensor) -> None:
    factors = torch.linspace(0, 2, COUNT)
    expected = torch.stack([tv.adjust_contrast(x, float(f)) for x, f in zip(images, factors, strict=True)])
    torch.testing.assert_close(contrast(images, factors), expected, **ROUNDING)


def test_saturation_is_torchvisions(images: Tensor) -> None:
    factors = torch.linspace(0, 2, COUNT)
    expected = torch.stack([tv.adjust_saturation(x, float(f)) for x, f in zip(images, factors, strict=True)])
    torch.testing.assert_close(saturation(images, factors), expected, **ROUNDING)


def test_hue_is_torchvisions(images: Tensor) -> None:
    shifts = torch.linspace(-0.5, 0.5, COUNT)
    expected = torch.stack([tv.adjust_hue(x, float(f)) for x, f in zip(images, shifts, strict=True)])
    torch.testing.assert_close(hue(images, shifts), expected, **ROUNDING)


def test_grey_is_torchvisions(images: Tensor) -> None:
    torch.testing.assert_close(grey_of(images), tv.rgb_to_grayscale(images, 3), **ROUNDING)


def test_solarisation_is_torchvisions_of_bytes(bytes_: Tensor) -> None:
    assert {127, 128} <= set(bytes_.flatten().tolist())
    assert torch.equal((solarised(bytes_ / 255) * 255).round().byte(), tv.solarize(bytes_, 128))


@pytest.mark.parametrize("radius", [1, 8, SIDE - 1])
def test_blur_is_torchvisions(images: Tensor, radius: int) -> None:
    sigmas = torch.linspace(0.1, 2, COUNT)
    size = [2 * radius + 1] * 2
    expected = torch.stack([tv.gaussian_blur(x, size, [float(s)]) for x, s in zip(images, sigmas, strict=True)])
    torch.testing.assert_close(blurred(images, sigmas, radius), expected, **ROUNDING)


def test_the_blur_is_wide_enough(images: Tensor) -> None:
    """Less than a fiftieth of a grey level from one that ends at the border of the image."""
    sigmas = torch.full((COUNT,), 2.0)
    assert (blurred(images, sigmas, 8) - blurred(images, sigmas, SIDE - 1)).abs().max() < LEVEL / 50


def test_the_blur_is_near_pils() -> None:
    """PIL's is three boxes, and repeats the border instead of reflecting the image."""
    pixels = smooth(4, 64)
    for sigma in (0.6, 1.0, 2.0):
        theirs = [tv.pil_to_tensor(tv.to_pil_image(image).filter(GaussianBlur(sigma))) for image in pixels]
        ours = blurred(pixels / 255, torch.full((4,), sigma), 8) * 255
        apart = (ours - torch.stack(theirs)).abs()
        assert apart.mean() < 1
        assert apart[..., 8:-8, 8:-8].max() < 4


# All of them


def planned(order: tuple[int, ...], number: int) -> Tensor:
    """What is to be done to image `number`: everything, in a certain order."""
    drawn = torch.zeros(11)
    drawn[:4] = torch.tensor(order).argsort()  # the turn of each
    drawn[4:8] = torch.tensor([0.6, 1.3, 0.8, -0.1]) + 0.02 * number
    drawn[[GREY, SIGMA, SOLARISE]] = torch.tensor([float(number % 4 == 0), 0.5 + 0.1 * number, float(number % 3 == 0)])
    return drawn


def expected_of(crop: Tensor, drawn: Tensor, grey_first: bool) -> Tensor:
    """One image, by torchvision."""
    image = crop / 255
    if grey_first and drawn[GREY]:
        image = tv.rgb_to_grayscale(image, 3)
    for turn in range(4):
        for which in (drawn[:4] == turn).nonzero().flatten().tolist():
            image = IN_TURN[which](image, float(drawn[4 + which]))
    if not grey_first and drawn[GREY]:
        image = tv.rgb_to_grayscale(image, 3)
    if drawn[SIGMA]:
        image = tv.gaussian_blur(image, [17, 17], [float(drawn[SIGMA])])
    return tv.solarize(image, 128 / 255) if drawn[SOLARISE] else image


def assert_same(found: Tensor, expected: Tensor) -> None:
    """To rounding; where that decides on solarisation, which jumps by a grey level there, to a grey level."""
    apart = (found - expected).abs()
    assert apart.max() < 1.01 * LEVEL
    assert (apart > 1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("grey_first", [False, True])
def test_the_whole_chain_is_torchvisions_in_any_order(bytes_: Tensor, grey_first: bool) -> None:
    augmentation = replace(Dino(), grey_first=grey_first)
    orders = list(permutations(range(4)))
    for start in (0, COUNT):
        drawn = torch.stack([planned(order, n) for n, order in enumerate(orders[start : start + COUNT])])
        found = coloured(bytes_, drawn, augmentation)
        assert found.dtype == torch.float32
        expected = [expected_of(*pair, grey_first) for pair in zip(bytes_, drawn, strict=True)]
        assert_same(found, torch.stack(expected))


@pytest.mark.parametrize("augmentation", [Dino(local_views=1), Swav(), Vicreg.cifar(), Sela()])
def test_what_is_drawn_is_done_as_torchvision_would(bytes_: Tensor, augmentation: MultiCrop) -> None:
    for view in augmentation.views:
        drawn = drawn_of(augmentation, augmentation.views.index(view), COUNT)
        found = coloured(bytes_, drawn, augmentation)
        expected = [expected_of(*pair, view.grey_first) for pair in zip(bytes_, drawn, strict=True)]
        assert_same(found, torch.stack(expected))


def drawn_of(augmentation: MultiCrop, number: int, count: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw = Draw(augmentation.views[number])
        return torch.stack([draw() for _ in range(count)])


def test_nothing_drawn_is_nothing_done(bytes_: Tensor) -> None:
    still = replace(Vicreg.cifar(), jitter=0.0, grey=0.0)
    assert torch.equal(coloured(bytes_, drawn_of(still, 0, COUNT), still), bytes_ / 255)
    unmoved = replace(still, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    assert torch.equal(coloured(bytes_, drawn_of(unmoved, 0, COUNT), unmoved), bytes_ / 255)


def test_an_image_does_not_depend_on_the_others_of_its_batch(bytes_: Tensor) -> None:
    drawn = drawn_of(Dino(), 0, COUNT)
    whole = coloured(bytes_, drawn, Dino())
    for rows in ([3], [5, 1, 3], range(4, COUNT)):
        part = coloured(bytes_[list(rows)], drawn[list(rows)], Dino())
        torch.testing.assert_close(part, whole[list(rows)], **ROUNDING)


def test_images_smaller_than_the_blur_is_wide() -> None:
    for side in (1, 2, 8):
        crops = smooth(2, 24)[..., -side:, -side:]
        drawn = drawn_of(Dino(), 0, 2)
        assert drawn[:, SIGMA].min() > 0
        found = coloured(crops, drawn, Dino())
        assert found.shape == crops.shape
        assert found.isfinite().all()


def test_parameters_are_distributed_as_they_are_set() -> None:
    count = 2000
    drawn = drawn_of(replace(Dino(), jitter=0.8, grey=0.2), 1, count)
    jittered = drawn[:, 0] >= 0
    rates = {0.8: jittered, 0.2: drawn[:, GREY], 0.1: drawn[:, SIGMA] > 0}
    for probability, happened in rates.items():
        assert abs(float(happened.float().mean()) - probability) < 0.045
    assert abs(float(drawn[:, SOLARISE].mean()) - 0.2) < 0.045
    turns, factors = drawn[jittered, :4], drawn[jittered, 4:8]
    assert torch.equal(turns.sort(dim=1).values, torch.arange(4.0).expand_as(turns))
    assert len(turns.unique(dim=0)) == 24
    for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
        values = factors[:, column]
        assert low <= values.min() < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)
    sigmas = drawn[:, SIGMA][drawn[:, SIGMA] > 0]
    assert 0.1 <= sigmas.min() < sigmas.max() <= 2


# Views


@pytest.mark.parametrize(
    "augmentation", [Dino(global_size=48, local_views=2, local_size=32), Swav(global_size=48), Sela(global_size=48)]
)
def test_views_are_those_that_workers_would_draw(augmentation: MultiCrop) -> None:
    """But for PIL's bytes, its hue of 8 bits and its blur: crop, flip and all that is drawn are the same."""
    source = ArrayImages("x", smooth(30, 60).numpy())
    by_workers, crops_alone = Views(source, augmentation, 3), Views(source, augmentation, 3, "device")
    for index in range(30):
        expected, _ = by_workers[2, index]
        (*crops, drawn), found_index = crops_alone[2, index]
        assert found_index == index
        assert drawn.shape == (len(expected), 11)
        for number, (view, crop) in enumerate(zip(expected, crops, strict=True)):
            assert crop.dtype == torch.uint8
            found = coloured(crop[None], drawn[None, number], augmentation)[0] * 255
            apart = (found - view).abs()
            assert apart.mean() < 4
            assert apart.median() < 3


@pytest.mark.deep  # forks, which other tests' libraries warn of
def test_batches_do_not_depend_on_workers_or_on_ranks() -> None:
    views = Views(ArrayImages("x", smooth(12, 30).numpy()), Dino(global_size=16), 0, "device")

    def loaded(**changes: int) -> list[list[Tensor]]:
        batches = Batches(count=12, batch_size=6, seed=0, **{k: v for k, v in changes.items() if k != "workers"})
        return [found for found, _ in ViewLoader(views, batches, workers=changes.get("workers", 0)).epoch(1)]

    alone, helped = loaded(), loaded(workers=1)
    shares = [loaded(rank=rank, world=2) for rank in range(2)]
    for number, batch in enumerate(alone):
        for place, tensor in enumerate(batch):
            assert torch.equal(tensor, helped[number][place])
            assert torch.equal(tensor, torch.cat([share[number][place] for share in shares]))


SETTINGS = Pretraining(
    batch_size=6,
    data=Synthetic(count=20, size=16),
    augmentation=Dino(global_size=8, local_views=1, local_size=4),
    encoder=ResNet(),
    device="cpu",
    colours="device",
)


def test_a_run_can_be_fed_with_them() -> None:
    assert isinstance(SETTINGS.augmentation, Dino)
    source = ArrayImages("x", smooth(20, 16).numpy())
    feed = ViewFeed(source, SETTINGS, Place(), torch.device("cpu"))
    views = Views(source, SETTINGS.augmentation, SETTINGS.seed, "device")
    for batch in feed.epoch(1):
        assert [view.shape for view in batch.views] == [(6, 3, 8, 8), (6, 3, 8, 8), (6, 3, 4, 4)]
        for place, row in enumerate(batch.rows.tolist()):
            *crops, drawn = views[1, row][0]
            for number, crop in enumerate(crops):
                alone = coloured(crop[None], drawn[None, number], SETTINGS.augmentation)
                expected = normalised(alone, SETTINGS.augmentation)[0]
                torch.testing.assert_close(batch.views[number][place], expected, atol=1e-4, rtol=0)
    ((rows, passed),) = feed.everything(3, 2)
    assert len(rows) == 20
    assert [view.shape for view in passed] == [(20, 3, 8, 8), (20, 3, 8, 8)]


def test_floats_are_normalised_as_bytes_are(bytes_: Tensor) -> None:
    expected = normalised(bytes_, Dino())
    torch.testing.assert_close(normalised(bytes_ / 255, Dino()), expected, atol=2e-6, rtol=1e-6)


def test_what_cannot_be_done_on_the_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not enhanced; got enhance 0\.5"):
        Views(ArrayImages("x", smooth(1, 24).numpy()), SelaRetraining(), 0, "device")
    one = replace(SelaRetraining(), global_views=2)
    with pytest.raises(ValueError, match=r"colours device cannot enhance: .* or augmentation\.enhance 0"):
        replace(SETTINGS, augmentation=one)
    assert replace(SETTINGS, augmentation=replace(one, enhance=0.0)).colours == "device"
    with pytest.raises(ValueError, match="of no use with the digits' distortions"):
        Pretraining(colours="device")
    with pytest.raises(ValueError, match="colours must be worker or device; got 'gpu'"):
        replace(SETTINGS, colours="gpu")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_devices_agree(bytes_: Tensor) -> None:
    drawn = drawn_of(Swav(), 0, COUNT)
    assert_same(coloured(bytes_.cuda(), drawn, Swav()).cpu(), coloured(bytes_, drawn, Swav()))


def test_torchvision_draws_in_the_order_that_is_taken_for_granted() -> None:
    """The state of the generator after a view is the same: nothing more and nothing less was drawn."""
    image = smooth(1, 24)[0]
    for augmentation in (Dino(global_size=16), Sela(global_size=16)):
        for seed in range(20):
            states = []
            for colours in ("worker", "device"):
                views = Views(ArrayImages("x", image[None].numpy()), augmentation, 0, colours)  # type: ignore[arg-type]
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    views._pipelines[0](image)
                    if views._draws:
                        views._draws[0]()
                    states.append(torch.get_rng_state())
            assert torch.equal(*states)
