"""Random views: what decides them, how they are distributed, and the values of the papers."""

from dataclasses import replace
from math import sqrt

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from infoassign_training.data.augmentations import (
    KINDS,
    Dino,
    Distortions,
    MultiCrop,
    Sela,
    SelaRetraining,
    Swav,
    Vicreg,
    View,
)
from infoassign_training.data.images import ArrayImages
from infoassign_training.data.synthetic import SyntheticImages
from infoassign_training.data.views import Views, normalised, pipeline, seed_of

NOTHING = View(
    size=16,
    scale=(1.0, 1.0),
    interpolation="bilinear",
    flip=0,
    jitter=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    grey=0,
    grey_first=False,
    blur=0,
    sigma=(0.1, 2.0),
    solarise=0,
    enhance=0,
)
SMALL = Dino(global_size=16, local_views=2, local_size=8)


def draws(view: View, image: Tensor, count: int) -> Tensor:
    """Draw views of one image, (count, 3, S, S)."""
    draw = pipeline(view)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([draw(image) for _ in range(count)])


@pytest.fixture
def square() -> Tensor:
    """One image of 16 x 16, in all colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return v2.functional.pil_to_tensor(PIL.Image.fromarray(coarse).resize((16, 16), PIL.Image.Resampling.BICUBIC))


def within(rate: float, probability: float, count: int) -> bool:
    """Whether a rate is within five standard deviations of a probability."""
    return abs(rate - probability) <= 5 * sqrt(probability * (1 - probability) / count) + 1e-9


# What decides a view


def crops_of(views: Views, epoch: int, index: int) -> list[Tensor]:
    return views[epoch, index][0]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_same_seed_epoch_and_image_give_the_same_views() -> None:
    source = SyntheticImages(10, size=24)
    first, again = Views(source, SMALL, seed=1), Views(source, SMALL, seed=1)
    expected = [crops_of(first, 2, i) for i in range(10)]
    for i in (7, 3, 3, 9):  # in whichever order
        assert same(crops_of(again, 2, i), expected[i])


@pytest.mark.parametrize("change", ["seed", "epoch", "index", "view"])
def test_each_of_them_matters(change: str) -> None:
    pixels = np.repeat(SyntheticImages(1, size=24).image(0).numpy()[None], 10, axis=0)  # ten times the same
    views = Views(ArrayImages("x", pixels), SMALL, seed=0)
    before = crops_of(views, 0, 0)
    if change == "view":
        assert not torch.equal(before[2], before[3])
    else:
        other = {
            "seed": lambda: crops_of(Views(ArrayImages("x", pixels), SMALL, seed=1), 0, 0),
            "epoch": lambda: crops_of(views, 1, 0),
            "index": lambda: crops_of(views, 0, 1),
        }[change]()
        assert not any(torch.equal(a, b) for a, b in zip(before, other, strict=True))


def test_views_do_not_depend_on_how_many_others_there_are() -> None:
    source = SyntheticImages(3, size=24)
    few, many = Views(source, SMALL, seed=0), Views(source, replace(SMALL, local_views=5), seed=0)
    assert same(crops_of(few, 0, 0), crops_of(many, 0, 0)[:4])


def test_the_callers_random_state_is_left_alone() -> None:
    views = Views(SyntheticImages(3, size=24), SMALL, seed=0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = crops_of(views, 0, 0)
    assert torch.equal(torch.rand(3), expected)
    assert same(crops_of(views, 0, 0), before)


def test_the_callers_random_state_is_left_alone_by_an_error() -> None:
    views = Views(ArrayImages("x", np.zeros((1, 2, 4, 4), dtype=np.uint8)), SMALL, seed=0)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="2"):  # channels
        views[0, 0]
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_do_not_repeat() -> None:
    seeds = {seed_of(a, b, c, d) for a in range(2) for b in range(3) for c in range(100) for d in range(8)}
    assert len({seed & 0xFFFFFFFF for seed in seeds}) >= 2 * 3 * 100 * 8 - 1


def test_pil_images_and_tensors_are_treated_alike() -> None:
    class Pil(ArrayImages):
        def image(self, index: int) -> PIL.Image.Image:  # type: ignore[override]
            return v2.functional.to_pil_image(super().image(index))

    pixels = np.stack([SyntheticImages(2, size=24).image(i).numpy() for i in range(2)])
    for i in range(2):
        first, second = (Views(kind("x", pixels), SMALL, seed=0) for kind in (ArrayImages, Pil))
        assert same(crops_of(first, 0, i), crops_of(second, 0, i))


# How views are distributed


def test_no_distortion_gives_the_image_back(square: Tensor) -> None:
    assert torch.equal(draws(NOTHING, square, 1)[0], square)


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.05, 0.14)])
def test_crops_have_areas_within_the_scale(scale: tuple[float, float]) -> None:
    """The image's values are its coordinates, so that a crop shows where its corners are."""
    side = 240
    ramp = torch.arange(side, dtype=torch.uint8)
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)]).byte()
    crops = draws(replace(NOTHING, scale=scale, size=24), image, 200).float()
    # Of 24 columns of means the outer two are 23/24 of the width apart.
    width = (crops[:, 0, 12, -1] - crops[:, 0, 12, 0]) * 24 / 23
    height = (crops[:, 1, -1, 12] - crops[:, 1, 0, 12]) * 24 / 23
    area = width * height / side**2
    slack = 0.03
    assert scale[0] - slack < area.min() < scale[0] + 0.1
    assert scale[1] - 0.1 < area.max() < scale[1] + slack
    ratio = width / height
    assert (ratio > 0.7).all()
    assert (ratio < 1.4).all()
    # Areas are uniform (where the image's shape allows it), ratios symmetric.
    assert abs(ratio.log().mean()) < 0.05


@pytest.mark.parametrize("aspect", [(1.0, 1.0), (2.0, 2.0), (1.0, 1.5)])
def test_crops_have_shapes_within_the_aspect(aspect: tuple[float, float]) -> None:
    side = 240
    ramp = torch.arange(side, dtype=torch.uint8)
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)]).byte()
    crops = draws(replace(NOTHING, scale=(0.1, 0.4), aspect=aspect, size=24), image, 100).float()
    ratio = (crops[:, 0, 12, -1] - crops[:, 0, 12, 0]) / (crops[:, 1, -1, 12] - crops[:, 1, 0, 12])
    # Edges lie on whole pixels and means on whole values: one of at least 53, up and down.
    slack = 1.04
    assert (ratio > aspect[0] / slack).all()
    assert (ratio < aspect[1] * slack).all()
    assert ratio.max() / ratio.min() >= (aspect[1] / aspect[0]) ** 0.8


def test_an_aspect_out_of_range_is_refused() -> None:
    for aspect in ((0.0, 1.0), (2.0, 1.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match="aspect must rise from above 0"):
            replace(NOTHING, aspect=aspect)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_flips_happen_as_often_as_asked(square: Tensor, p: float) -> None:
    views = draws(replace(NOTHING, flip=p), square, 200)
    flipped = (views == square.flip(-1)).flatten(1).all(dim=1)
    assert ((views == square).flatten(1).all(dim=1) ^ flipped).all()
    assert within(float(flipped.float().mean()), p, 200)


def test_grey_is_torchvisions(square: Tensor) -> None:
    views = draws(replace(NOTHING, grey=0.2), square, 200)
    grey = (views[:, 0] == views[:, 1]).flatten(1).all(dim=1) & (views[:, 1] == views[:, 2]).flatten(1).all(dim=1)
    assert within(float(grey.float().mean()), 0.2, 200)
    expected = v2.functional.rgb_to_grayscale(square, 3).int()
    assert (views[grey].int() - expected).abs().max() <= 1


def test_solarisation_is_pils(square: Tensor) -> None:
    views = draws(replace(NOTHING, solarise=0.2), square, 200)
    expected = v2.functional.pil_to_tensor(ImageOps.solarize(v2.functional.to_pil_image(square)))
    solarised = (views == expected).flatten(1).all(dim=1)
    assert within(float(solarised.float().mean()), 0.2, 200)
    assert torch.equal(views[~solarised][0], square)


def enhanced(image: Tensor) -> list[Tensor]:
    """Equalised, with full contrast, and sharpened, each by PIL."""
    pil = v2.functional.to_pil_image(image)
    made = (ImageOps.equalize(pil), ImageOps.autocontrast(pil), ImageEnhance.Sharpness(pil).enhance(2))
    return [v2.functional.pil_to_tensor(one) for one in made]


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_one_of_three_enhancements_is_made(square: Tensor, p: float) -> None:
    faint = square // 2 + 40  # with contrast to gain
    views = draws(replace(NOTHING, enhance=p), faint, 300)
    kinds = torch.stack([(views == one).flatten(1).all(dim=1) for one in (faint, *enhanced(faint))])
    assert (kinds.sum(dim=0) == 1).all()
    rates = kinds.float().mean(dim=1)
    assert all(within(float(rate), p / 3, 300) for rate in rates[1:])
    assert within(float(rates[0]), 1 - p, 300)


def test_retraining_enhances_the_usual_views() -> None:
    """To the pixel: nothing before is drawn otherwise."""
    source = SyntheticImages(40, size=24)
    usual = Views(source, Sela(global_size=16), seed=0)
    views = Views(source, SelaRetraining(global_size=16), seed=0)
    seen = set()
    for index in range(40):
        (before,), (view,) = crops_of(usual, 0, index), crops_of(views, 0, index)
        found = [kind for kind, one in enumerate([before, *enhanced(before)]) if torch.equal(view, one)]
        assert found
        seen |= set(found[:1])
    assert seen == {0, 1, 2, 3}


def test_blur_is_pils_with_sigma_in_its_range(square: Tensor) -> None:
    views = draws(replace(NOTHING, blur=0.5), square, 200)
    blurred = (views != square).flatten(1).any(dim=1)
    # Of sigmas from 0.1 to 2 the smallest few do not show.
    assert 0.3 < float(blurred.float().mean()) < 0.65
    image = v2.functional.to_pil_image(square)
    strongest = v2.functional.pil_to_tensor(image.filter(ImageFilter.GaussianBlur(2.0))).float()
    assert views.float().std(dim=(2, 3)).mean(dim=1).min() >= strongest.std(dim=(1, 2)).mean() - 0.5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_every_change_of_colour_is_made(square: Tensor, name: str) -> None:
    view = replace(NOTHING, jitter=0.8, **{name: 0.4})
    views = draws(view, square, 100)
    unchanged = (views == square).flatten(1).all(dim=1)
    assert within(float(unchanged.float().mean()), 0.2, 100) or name == "saturation"
    image = square.float()
    bound = {
        "brightness": lambda: views.float().mean(dim=(1, 2, 3)) / image.mean(),
        "contrast": lambda: views.float().std(dim=(1, 2, 3)) / image.std(),
        "saturation": lambda: (views.float().std(dim=1).mean(dim=(1, 2))) / image.std(dim=0).mean(),
        "hue": lambda: torch.ones(1),
    }[name]()
    assert (bound < 1.42).all()
    assert (bound > 0.58).all()


def test_grey_first_leaves_grey_images_grey(square: Tensor) -> None:
    """Colours cannot change what is grey already: only its brightness and contrast do."""
    view = replace(NOTHING, jitter=1, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, grey=1, grey_first=True)
    for order in (view, replace(view, grey_first=False)):
        views = draws(order, square, 50).int()
        assert (views[:, 0] - views[:, 1]).abs().max() <= 1
    first, last = draws(view, square, 50), draws(replace(view, grey_first=False), square, 50)
    assert not torch.equal(first, last)


def test_normalised_is_the_formula_by_channel() -> None:
    crops = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    for augmentation in (Dino(), Dino.cifar()):
        theirs = v2.Normalize(augmentation.mean, augmentation.std)(crops.float() / 255)
        ours = normalised(crops, augmentation)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-6)


# The values of the papers


def test_dinos_views_are_those_of_its_code() -> None:
    views = Dino(local_views=6).views
    assert [view.size for view in views] == [224] * 2 + [96] * 6
    assert [view.scale for view in views] == [(0.14, 1)] * 2 + [(0.05, 0.14)] * 6
    assert [view.blur for view in views] == [1.0, 0.1] + [0.5] * 6
    assert [view.solarise for view in views] == [0, 0.2] + [0] * 6
    assert {(v.brightness, v.contrast, v.saturation, v.hue, v.jitter, v.grey, v.flip) for v in views} == {
        (0.4, 0.4, 0.2, 0.1, 0.8, 0.2, 0.5)
    }
    assert {view.interpolation for view in views} == {"bicubic"}


def test_vicregs_views_differ_in_blur_and_solarisation() -> None:
    first, second = Vicreg().views
    assert (first.blur, first.solarise, second.blur, second.solarise) == (1.0, 0.0, 0.1, 0.2)
    assert first == replace(second, blur=1.0, solarise=0.0)
    assert first.scale == (0.08, 1.0)


def test_swavs_views_are_alike() -> None:
    views = Swav(local_views=6).views
    assert len({replace(view, size=1, scale=(1, 1)) for view in views}) == 1
    assert (views[0].brightness, views[0].contrast, views[0].saturation, views[0].hue) == (0.8, 0.8, 0.8, 0.2)
    assert views[0].blur == 0.5


def test_selas_noise_is_of_colours() -> None:
    (view,) = Sela().views
    assert (view.brightness, view.contrast, view.saturation, view.hue, view.jitter) == (0.4, 0.4, 0.4, 0.4, 1.0)
    assert (view.grey, view.grey_first, view.blur, view.solarise) == (0.2, True, 0, 0)
    assert SelaRetraining().views == (replace(view, enhance=0.5),)
    assert (Sela.cifar().views[0].size, Sela.cifar().views[0].grey_first) == (224, False)


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind is not Distortions])
def test_every_augmentation_draws(kind: type[MultiCrop]) -> None:
    augmentation = kind(global_size=12, local_views=1, local_size=8)
    crops, index = Views(SyntheticImages(3, size=20), augmentation, seed=0)[4, 2]
    assert [tuple(crop.shape) for crop in crops] == [(3, view.size, view.size) for view in augmentation.views]
    assert {crop.dtype for crop in crops} == {torch.uint8}
    assert index == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"global_views": 0}, "global_views must be at least 1; got 0"),
        ({"local_views": -1}, "local_views must not be negative"),
        ({"global_size": 0}, "global views: size must be at least 1; got 0"),
        ({"local_size": 0}, "local views: size must be at least 1; got 0"),
        ({"global_scale": (0.5, 0.2)}, r"global views: scale must rise within \(0, 1\]; got \(0.5, 0.2\)"),
        ({"local_scale": (0.0, 0.2)}, "local views: scale"),
        ({"interpolation": "nearest"}, "no such interpolation: 'nearest'"),
        ({"flip": 1.2}, "flip is a probability; got 1.2"),
        ({"blur": (0.5, -0.1)}, "blur is a probability; got -0.1"),
        ({"solarise": (0.0, float("nan"))}, "solarise is a probability; got nan"),
        ({"enhance": 1.5}, "enhance is a probability; got 1.5"),
        ({"brightness": -1.0}, "brightness must be finite and not negative"),
        ({"hue": 0.6}, r"hue must be in \[0, 0.5\]"),
        ({"sigma": (0.0, 1.0)}, "sigma must rise from above 0"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"mean": (float("inf"), 0.0, 1.0)}, "mean must be finite"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiCrop(**setting)  # type: ignore[arg-type]


def test_bad_seeds_are_refused() -> None:
    for seed in (-1, 2**31):
        with pytest.raises(ValueError, match="seed must be in"):
            Views(SyntheticImages(3, size=20), SMALL, seed)
