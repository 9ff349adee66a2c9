"""The augmentations of the papers: how a view is drawn from an image, as settings that are checked when made.

Where a paper and its released code say different things, or the paper says nothing, the docstring says whose the values
are. Methods not named here use another's: MIRA `Dino` with both scales split at 0.14, MUSIC and IMSVD `Vicreg`.

Examples
--------
>>> [(view.size, view.scale) for view in Dino(local_views=1).views]
[(224, (0.14, 1.0)), (224, (0.14, 1.0)), (96, (0.05, 0.14))]
>>> Swav(global_views=0)
Traceback (most recent call last):
    ...
ValueError: global_views must be at least 1; got 0
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar, Literal, TypeAlias

from infoassign_training.checks import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's pixels, red, green and blue in [0, 1], as all the papers' code has it."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
"""Mean of CIFAR-10's pixels, as in the code of MIRA, SeLa and IMSVD."""
CIFAR10_STD = (0.247, 0.243, 0.261)
"""Standard deviation of the same, as in MIRA's code; SeLa's and IMSVD's have the mean of the images' own deviations."""
ASPECT = (3 / 4, 4 / 3)
"""Range of width over height of a crop, torchvision's, which all the papers' code has in pretraining."""


@dataclass(frozen=True, kw_only=True)
class Distortions:
    """Random distortions of small grey images; 0 everywhere, and a scale of 1, give back the image."""

    kind: ClassVar[str] = "distortions"
    rotation: float = 15.0
    """Largest rotation, in degrees."""
    scale: float = 1.25
    """Largest factor of zoom, in or out; 1 for none."""
    aspect: float = 0.25
    """Largest stretch of width against height, as a logarithm."""
    shear: float = 0.3
    """Largest horizontal shear."""
    shift: float = 0.2
    """Largest shift, in half image widths."""
    elastic: float = 0.08
    """Standard deviation of the elastic field, in half image widths, at a 4 x 4 grid of knots."""
    gamma: float = 0.4
    """Largest change of gamma, as a logarithm."""
    blur: float = 0.3
    """Probability of a 3 x 3 blur."""
    gain: float = 0.3
    """Largest relative change of brightness."""
    noise: float = 0.08
    """Standard deviation of the pixel noise; pixels lie in [0, 1]."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(
                isfinite(value) and value >= 0,
                f"augmentation.{name} must be finite and not negative; got {value}",
            )
        require(self.scale >= 1, f"augmentation.scale must be at least 1; got {self.scale}")
        require(self.blur <= 1, f"augmentation.blur is a probability; got {self.blur}")


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view is drawn: crop, flip, colours, blur, solarisation, enhancement, in this order."""

    size: int
    """Height and width in pixels."""
    resized: int = 0
    """Shorter side that the image is brought to before a crop of `size`; 0 for a crop of any size, resized."""
    scale: tuple[float, float]
    """Range of the crop's share of the image's area."""
    aspect: tuple[float, float] = ASPECT
    """Range of the crop's width over its height, before it is resized."""
    interpolation: Literal["bilinear", "bicubic"]
    """Of the crop, which is resized to `size` with antialiasing."""
    flip: float
    """Probability of a horizontal flip."""
    jitter: float
    """Probability that the four changes of colour are made, in random order."""
    brightness: float
    """Largest relative change."""
    contrast: float
    """Largest relative change."""
    saturation: float
    """Largest relative change."""
    hue: float
    """Largest change, as a share of the colour circle; at most 0.5."""
    grey: float
    """Probability of grey."""
    grey_first: bool
    """Whether grey comes before the changes of colour, not after."""
    blur: float
    """Probability of a Gaussian blur."""
    sigma: tuple[float, float]
    """Range of the blur's standard deviation, in pixels of the view."""
    solarise: float
    """Probability that values of 128 and above are inverted."""
    enhance: float
    """Probability of one of equalize, autocontrast and sharpening, which are equally likely."""

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size must be at least 1; got {self.size}")
        require(
            self.resized == 0 or self.resized >= self.size,
            f"resized must be 0 or at least size {self.size}; got {self.resized}",
        )
        low, high = self.scale
        require(0 < low <= high <= 1, f"scale must rise within (0, 1]; got {self.scale}")
        low, high = self.aspect
        require(0 < low <= high and isfinite(high), f"aspect must rise from above 0; got {self.aspect}")
        require(self.interpolation in ("bilinear", "bicubic"), f"no such interpolation: {self.interpolation!r}")
        for name in ("flip", "jitter", "grey", "blur", "solarise", "enhance"):
            require(0 <= getattr(self, name) <= 1, f"{name} is a probability; got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(isfinite(value) and value >= 0, f"{name} must be finite and not negative; got {value}")
        require(0 <= self.hue <= 0.5, f"hue must be in [0, 0.5]; got {self.hue}")
        low, high = self.sigma
        require(0 < low <= high and isfinite(high), f"sigma must rise from above 0; got {self.sigma}")


@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """Global views, and smaller local ones (Caron et al., 2020, SwAV, section 3.3), with settings common to both.

    `blur` and `solarise` are those of the global views in turn: the first has the first value, the second the second,
    the third the first again.
    """

    global_views: int = 2
    """Number of global views."""
    global_size: int = 224
    """Their height and width."""
    global_scale: tuple[float, float] = (0.08, 1.0)
    """Their crops' share of the area."""
    local_views: int = 0
    """Number of local views."""
    local_size: int = 96
    """Their height and width."""
    local_scale: tuple[float, float] = (0.05, 0.14)
    """Their crops' share of the area."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Of the crops."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of changed colours."""
    brightness: float = 0.4
    """Largest relative change."""
    contrast: float = 0.4
    """Largest relative change."""
    saturation: float = 0.2
    """Largest relative change."""
    hue: float = 0.1
    """Largest change, as a share of the colour circle."""
    grey: float = 0.2
    """Probability of grey."""
    grey_first: bool = False
    """Whether grey comes before the changes of colour, not after."""
    blur: tuple[float, float] = (1.0, 0.1)
    """Probabilities of blur, global views."""
    local_blur: float = 0.5
    """Probability of blur, local views."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation, in pixels."""
    solarise: tuple[float, float] = (0.0, 0.2)
    """Probabilities of solarisation, global views; local views have none."""
    enhance: float = 0.0
    """Probability of one of equalize, autocontrast and sharpening, which are equally likely."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from the channels, which lie in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Divides the channels after that."""

    def __post_init__(self) -> None:
        require(self.global_views >= 1, f"global_views must be at least 1; got {self.global_views}")
        require(self.local_views >= 0, f"local_views must not be negative; got {self.local_views}")
        require(all(map(isfinite, self.mean)), f"mean must be finite; got {self.mean}")
        require(all(isfinite(s) and s > 0 for s in self.std), f"std must be positive and finite; got {self.std}")
        # What cannot be used must fail here, where it was set, even with no local views.
        for make in (self._global, self._local):
            for turn in range(2):
                make(turn)

    @property
    def views(self) -> tuple[View, ...]:
        """All views, the global ones first."""
        return (*map(self._global, range(self.global_views)), *map(self._local, range(self.local_views)))

    def _global(self, number: int) -> View:
        return self._view(
            self.global_size, self.global_scale, self.blur[number % 2], self.solarise[number % 2], "global"
        )

    def _local(self, _: int) -> View:
        return self._view(self.local_size, self.local_scale, self.local_blur, 0.0, "local")

    def _view(self, size: int, scale: tuple[float, float], blur: float, solarise: float, which: str) -> View:
        try:
            return View(
                size=size,
                scale=scale,
                interpolation=self.interpolation,
                flip=self.flip,
                jitter=self.jitter,
                brightness=self.brightness,
                contrast=self.contrast,
                saturation=self.saturation,
                hue=self.hue,
                grey=self.grey,
                grey_first=self.grey_first,
                blur=blur,
                sigma=self.sigma,
                solarise=solarise,
                enhance=self.enhance,
            )
        except ValueError as error:
            raise ValueError(f"{which} views: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Dino(MultiCrop):
    """DINO's (Caron et al., 2021, appendix), which is BYOL's with local views; MIRA's, too.

    The scales are those of DINO's code for ResNet-50 (its README), which MIRA's code has as well, also without local
    views; DINO's default, for transformers, splits at 0.4. MIRA has six local views, or none. For CIFAR MIRA's code has
    :meth:`cifar`.

    Examples
    --------
    >>> [(view.size, view.blur, view.solarise) for view in Dino(local_views=1).views]
    [(224, 1.0, 0.0), (224, 0.1, 0.2), (96, 0.5, 0.0)]
    """

    kind: ClassVar[str] = "dino"
    global_scale: tuple[float, float] = (0.14, 1.0)

    @classmethod
    def cifar(cls) -> "Dino":
        """Return what MIRA's code has for CIFAR-10 and -100: two views of 32 pixels without blur.

        Examples
        --------
        >>> Dino.cifar().global_size, Dino.cifar().blur
        (32, (0.0, 0.0))
        """
        return cls(
            global_size=32,
            global_scale=(0.2, 1.0),
            interpolation="bilinear",
            blur=(0.0, 0.0),
            mean=CIFAR10_MEAN,
            std=CIFAR10_STD,
        )


@dataclass(frozen=True, kw_only=True)
class Swav(MultiCrop):
    """SwAV's (Caron et al., 2020, appendix A): SimCLR's colours at full strength, every view alike.

    Two views of 224 pixels and six of 96 are its best. Its code divides red by 0.228, a slip that is not repeated here.
    """

    kind: ClassVar[str] = "swav"
    global_scale: tuple[float, float] = (0.14, 1.0)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    blur: tuple[float, float] = (0.5, 0.5)
    hue: float = 0.2
    solarise: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Vicreg(MultiCrop):
    """VICReg's (Bardes et al., 2022), after Barlow Twins' and BYOL's: blur and solarisation differ between two views.

    The values are those of the code as it was first released (crop scale 0.08 to 1, blur 1.0 and 0.1, solarisation 0.0
    and 0.2). MUSIC and IMSVD use them with "the same parameters" (MUSIC, section 4; IMSVD, section IV); for CIFAR-10
    IMSVD's code has :meth:`cifar`.
    """

    kind: ClassVar[str] = "vicreg"

    @classmethod
    def cifar(cls) -> "Vicreg":
        """Return what IMSVD's code has for CIFAR-10: two views of 32 pixels, neither blurred nor solarised.

        Examples
        --------
        >>> Vicreg.cifar().global_size, Vicreg.cifar().blur
        (32, (0.0, 0.0))
        """
        return cls(
            global_size=32,
            global_scale=(0.2, 1.0),
            interpolation="bilinear",
            saturation=0.4,
            blur=(0.0, 0.0),
            solarise=(0.0, 0.0),
            mean=CIFAR10_MEAN,
            std=CIFAR10_STD,
        )


@dataclass(frozen=True, kw_only=True)
class Sela(MultiCrop):
    """SeLa's (Asano et al., 2020, appendix A.1): crops, flips "and adding noise, as in (Wu et al., 2018)".

    The noise is of colours: Wu et al.'s code turns a fifth of the images grey and then changes all colours by up to
    0.4, and so does SeLa's for ImageNet. Its crops there have torchvision's scale, 0.08 to 1; Wu et al.'s start at 0.2.
    One view a step. For CIFAR its code has :meth:`cifar`, and the paper names the same for SVHN.
    """

    kind: ClassVar[str] = "sela"
    global_views: int = 1
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    jitter: float = 1.0
    saturation: float = 0.4
    hue: float = 0.4
    grey_first: bool = True
    blur: tuple[float, float] = (0.0, 0.0)
    local_blur: float = 0.0
    solarise: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def cifar(cls) -> "Sela":
        """Return what SeLa's code has for CIFAR: a view of 224 pixels (the network is AlexNet), grey last.

        The code enlarges the images to 256 pixels before it crops; here the crop is enlarged once.

        Examples
        --------
        >>> Sela.cifar().global_size, Sela.cifar().blur
        (224, (0.0, 0.0))
        """
        return cls(global_scale=(0.2, 1.0), grey_first=False, mean=CIFAR10_MEAN, std=CIFAR10_STD)


@dataclass(frozen=True, kw_only=True)
class SelaRetraining(Sela):
    """SeLa's for label transfer, "+ more aug." of table 9, which fixed labels allow.

    "In addition to the usual augmentations, we further randomly apply one of equalize, autocontrast and sharpening"
    (appendix A.1). Neither the paper nor its code, which does not have this, says how often and how sharp. Here it is
    half of the views, so that the network sees images as they are evaluated, too, and a sharpness of 2, both as
    torchvision's documentation has them.
    """

    kind: ClassVar[str] = "sela-retraining"
    enhance: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Plain(MultiCrop):
    """What linear classifiers are trained on: one crop, mirrored or not, its colours as they are."""

    kind: ClassVar[str] = "plain"
    global_views: int = 1
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    jitter: float = 0.0
    grey: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    local_blur: float = 0.0
    solarise: tuple[float, float] = (0.0, 0.0)
    resized: int = 0
    """Shorter side that images are brought to before crops of the network's size; 0 for crops of any size, resized."""
    aspect: tuple[float, float] = ASPECT
    """Range of the width over the height of crops that are resized."""

    def _view(self, size: int, scale: tuple[float, float], blur: float, solarise: float, which: str) -> View:
        view = super()._view(size, scale, blur, solarise, which)
        return replace(view, resized=self.resized if which == "global" else 0, aspect=self.aspect)


Augmentation: TypeAlias = Distortions | Dino | Swav | Vicreg | Sela | SelaRetraining | Plain
"""Those of some augmentation."""
KINDS: Mapping[str, type[Augmentation]] = {
    kind.kind: kind for kind in (Distortions, Dino, Swav, Vicreg, Sela, SelaRetraining, Plain)
}
"""All of them by name."""
