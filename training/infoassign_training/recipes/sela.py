"""SeLa's tables: Asano et al., Self-labelling via simultaneous clustering and representation learning.

"[K x T]" are T heads of K labels. Settings of all rows on ImageNet, unless the row says otherwise; "code" is what the
authors released.

==================  =======================  ================================================================
setting             value                    source
==================  =======================  ================================================================
encoder             AlexNet, (96, 256)       sec. 4.1; with batch normalisation, without Sobel's filter: code
ResNet-50           torchvision's            sec. 4.1; the code's is pre-activation, its later models torchvision's
sharpness lambda    25                       app. A.1
relabellings        80 in 160 epochs         sec. 4.2 (tables 1 to 4)
relabellings        100 in 400 epochs        code; the paper says no number
schedule of these   ((i - 1) / (M - 1))^2    app. A.1, as in the code (the paper has i for i - 1)
label pass          1 random view            sec. 3.4; with augmentation and batch statistics: code
augmentation        Sela's, one view         app. A.1; its numbers: code
batch               256                      code
optimiser           SGD, momentum .9         app. A.1; momentum: code
decay               1e-5                     code
rate                .05                      app. A.1; one version of the code has .08
divided by ten      at 150, 300 and 350      app. A.1, of 400 epochs
==================  =======================  ================================================================

The tables differ in epochs. "Unless otherwise noted" there are 400 (app. A.1), but the relabellings are counted in 160
"in total" (sec. 4.2, table 1), and the row with 80 of them has the number that tables 2 and 4 have for [3k x 1]: so all
rows of AlexNet in tables 1 to 4 are taken to have 160, and their rate to be divided at 60, 120 and 140, the same shares
of the training; that is not said. AlexNet [3k x 10] has 46.7 at conv4 in tables 3 and 5, and 47.1 in table 9 with ten
crops; the first is taken for 160 epochs and the second for 400. ResNet-50 [3k x 10] has 61.5 in tables 3 and 10 both,
so ResNet-50 has 400 epochs here.

The paper says that there is at most one relabelling in an epoch (sec. 4.2); the code, and this package, follow the
schedule whatever the epochs, so that the first few come close together. The code stops Sinkhorn's iteration when
``sum |c / c_new - 1| <= .1``, in double precision; here the shares of the labels are even to ``method.tolerance``.

Small data sets (tables 6 and 8). AlexNet on images enlarged to 224:

==================  =======================  ================================================================
setting             value                    source
==================  =======================  ================================================================
batch, rate         128, .03                 app. A.1
epochs              400                      app. A.1, and the code's script
divided by ten      at 150, 300 and 350      app. A.1; the code's at 240 and 320 of 400
decay               5e-4                     code
sharpness lambda    25                       app. A.1; the code for CIFAR has 10
relabellings        400, or 40 of ten heads  code: one head in every epoch, evenly; here all heads, ever more rarely
augmentation        the code's for CIFAR     app. A.1 names the same kinds; SVHN is treated alike
==================  =======================  ================================================================

Which of the two made the published numbers is not known; the code for CIFAR was released after the paper. To have its
settings: ``--method.sharpness 10 --optimizer.drops 240 320``.

==================================  ========================  ====================================================
recipe                              published                 what it is
==================================  ========================  ====================================================
``sela-relabel-0``, ``-40``, ...    table 1                   [3k x 1], 0, 40 or 160 relabellings in 160 epochs
``sela-alexnet-1k``, ``-5k``, ...   tables 1, 2, 4            [1k x 1], [3k x 1], [5k x 1], [10k x 1], 160 epochs
``sela-alexnet-3k-10heads-160``     tables 3, 5               [3k x 10], 160 epochs
``sela-alexnet-3k-10heads``         tables 7, 9               [3k x 10], 400 epochs
``sela-alexnet-small-3k``           table 4                   [3k x 1], (64, 192) filters first, 160 epochs
``sela-resnet50-3k``                tables 3, 4, 5            [3k x 1], 400 epochs
``sela-resnet50-3k-10heads``        tables 3, 5, 10           [3k x 10], 400 epochs
``sela-cifar10``, ``-cifar100``     table 6                   [128 x 10], [512 x 10]
``sela-svhn``                       table 6                   [128 x 1]
``sela-transfer-...``               tables 5, 7, 9            AlexNet learns the labels of another run
``sela-cifar10-full``, ...          table 8                   [128 x 1]; ``-light``, ``-heavy``: imbalanced
==================================  ========================  ====================================================

Label transfer (sec. 4.3) is for 90 epochs. ``sela-transfer-FROM`` learns the labels of the last epoch of the run
``sela-FROM``, which are given by ``--method.labels FILE``; it is an error to forget that. Its other settings are those
of the code's retraining: rate .05, divided by ten at 30, 60 and 80, decay 1e-5; with turned images as well
(``-rotation``) batch 64, of which each image is there four times. The batch without them is not said and 256 here.
``-more`` adds one of equalize, autocontrast and sharpening (app. A.1). The last line of either part of table 9 is that
of ResNet-50's labels [3k x 10].

Without relabelling, in table 1, random labels are learnt all along. Baselines of these tables are in
:mod:`infoassign_training.recipes.baselines`.

The published accuracies on ImageNet are of linear probes of conv3, conv4 and conv5 with ten crops (AlexNet), or of a
linear classifier on pooled features (ResNet-50); on small data sets, of a linear classifier on conv5 and of weighted
kNN. Hours are estimates, each relabelling counted as a pass over the images without a backward pass; reading and
augmenting images may well be slower than AlexNet.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.data.augmentations import Sela as Crops
from infoassign_training.data.augmentations import SelaRetraining
from infoassign_training.data.settings import Torchvision
from infoassign_training.methods.settings import Sela, Settings, Transfer
from infoassign_training.models.settings import AlexNet, Encoder, ResNet
from infoassign_training.recipes import Recipe, hours

SmallSet: TypeAlias = Literal["cifar10", "cifar100", "svhn"]
Imbalance: TypeAlias = Literal["full", "light", "heavy"]

PAPER = "SeLa (Asano et al., ICLR 2020)"
GPUS = "4 GPUs (the released scripts; the paper does not say)"
ONE_GPU = "1 GPU (the released script; the paper does not say)"
OPTIMIZER = Optimizer(
    kind="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-5, warmup=0.0, drops=(150, 300, 350)
)
SHORTER = replace(OPTIMIZER, drops=(60, 120, 140))
"""For 160 epochs."""
RETRAINING = replace(OPTIMIZER, drops=(30, 60, 80))
"""For 90 epochs of given labels."""
EXTRAS = {"": "", "-rotation": " and rotations", "-rotation-more": " and rotations, with more augmentation"}
"""What recipes of label transfer add to the labels."""
SMALL_IMAGES = replace(OPTIMIZER, learning_rate=0.06, weight_decay=5e-4)
"""For batches of 128, at a rate of 0.03."""

RELABELLED = {
    0: "not legible in the copy that was read",
    40: "not legible in the copy that was read",
    160: "conv3 to conv5 42.4 44.6 40.7",
}
"""Accuracy by relabellings (table 1); with 80 it is that of 3000 labels."""
LABELS = {1: "40.1 42.1 38.8", 3: "43.0 44.7 40.9", 5: "42.5 43.9 40.2", 10: "42.2 43.8 39.7"}
"""Accuracy by thousands of labels (table 2)."""
SMALL: Mapping[SmallSet, tuple[int, int, str, str]] = {
    "cifar10": (128, 10, "83.4", "77.6"),
    "cifar100": (512, 10, "57.4", "44.2"),
    "svhn": (128, 1, "94.5", "92.8"),
}
"""Labels, heads, and accuracy of the linear classifier and of kNN by data set (table 6)."""
IMBALANCED: Mapping[Imbalance, str] = {
    "full": "kNN 72.9, CIFAR-100 28.9; linear 79.8, CIFAR-100 49.4",
    "light": "kNN 71.7, CIFAR-100 28.2; linear 79.5, CIFAR-100 48.6",
    "heavy": "kNN 67.6, CIFAR-100 26.7; linear 77.2, CIFAR-100 47.5",
}
"""Accuracy by imbalance (table 8)."""
IMAGES: Mapping[str, int] = {
    "cifar10": hours.CIFAR,
    "cifar100": hours.CIFAR,
    "svhn": hours.SVHN,
    "cifar10-full": hours.CIFAR,
    "cifar10-light": 47_500,
    "cifar10-heavy": 22_500,
}
"""Training images by data set; half of a class is 2500, and 10, 20, ... 100 % of ten classes are 27,500."""


def relabel(times: int) -> Recipe:
    """Make a row of table 1.

    ``torchrun --nproc-per-node 4 -m infoassign_training pretrain sela-relabel-160 --data /data/imagenet --out
    runs/sela``: conv4 44.6.
    """
    return _on_imagenet(
        f"relabel-{times}", AlexNet(), (3000,), 160, times, f"{RELABELLED[times]} (table 1)", source="table 1"
    )


def alexnet(thousands: int) -> Recipe:
    """Make a row of table 2; that of 3000 labels is also in tables 1, 3 and 4.

    ``torchrun --nproc-per-node 4 -m infoassign_training pretrain sela-alexnet-3k --data /data/imagenet --out
    runs/sela``: conv4 44.7.
    """
    published = f"conv3 to conv5 {LABELS[thousands]} (table 2)"
    return _on_imagenet(f"alexnet-{thousands}k", AlexNet(), (1000 * thousands,), 160, 80, published, source="table 2")


def large() -> tuple[Recipe, ...]:
    """Make the rows of tables 3, 4, 9 and 10 with several heads or other networks.

    ``torchrun --nproc-per-node 4 -m infoassign_training pretrain sela-resnet50-3k-10heads --data /data/imagenet --out
    runs/sela``: top-1 61.5.
    """
    ten, one = (3000,) * 10, (3000,)
    resnet, small = ResNet(name="resnet50"), AlexNet(size="small")
    conv = (
        "conv1 to conv5 22.5 37.4 44.7 47.1 44.1 with ten crops, 20.3 32.2 38.6 41.4 39.6 with one;"
        " Places 26.7 34.9 39.9 41.8 39.7 and 24.5 31.9 36.7 38.0 37.0 (table 9);"
        " VOC07 75.3, fc6-8 73.1, detection 55.9, VOC12 segmentation 43.7 (table 7)"
    )
    return (
        _on_imagenet("alexnet-3k-10heads", AlexNet(), ten, 400, 100, conv, source="table 9"),
        _on_imagenet("alexnet-3k-10heads-160", AlexNet(), ten, 160, 80, "conv4 46.7 (table 5)", source="table 3"),
        _on_imagenet("alexnet-small-3k", small, one, 160, 80, "conv4 41.3 (table 4)", source="table 4"),
        _on_imagenet("resnet50-3k", resnet, one, 400, 100, "top-1 linear 51.8 (table 4)", source="table 4"),
        _on_imagenet(
            "resnet50-3k-10heads",
            resnet,
            ten,
            400,
            100,
            "top-1 linear 61.5, top-5 84.0 (table 10)",
            source="table 10",
        ),
    )


def transfer() -> tuple[Recipe, ...]:
    """Make the rows of tables 5 and 9 that learn the labels of another run, all with AlexNet.

    ``infoassign pretrain sela-transfer-resnet50-3k-10heads-rotation --data /data/imagenet --method.labels
    runs/sela/labels.npy --out runs/transfer`` on one GPU: conv4 49.7 with ten crops.
    """
    labels = "resnet50-3k-10heads"
    unread = "not legible in the copy that was read (table 5)"
    rotated = (
        "conv1 to conv5 22.8 37.8 46.7 49.7 48.4 with ten crops, 20.6 32.3 40.4 43.1 42.3 with one;"
        " Places 26.8 35.5 41.0 43.0 41.3 and 24.0 31.7 37.1 39.0 37.6 (table 9);"
        " VOC07 77.2, fc6-8 75.6, detection 59.2, VOC12 segmentation 45.7 (table 7)"
    )
    more = (
        "conv1 to conv5 21.9 37.1 46.0 50.0 50.0 with ten crops, 19.2 32.6 40.8 44.4 44.7 with one;"
        " Places 23.4 33.0 39.4 41.4 39.9 and 21.1 30.4 36.5 37.9 37.3 (table 9)"
    )
    return (
        _transferred("alexnet-3k-10heads-160", 10, "as its source, conv4 46.7 (sec. 4.3)", source="table 5"),
        _transferred("resnet50-3k", 1, unread, source="table 5"),
        _transferred(labels, 10, f"{unread}; VOC07 75.9 (table 7)", source="table 5"),
        _transferred(labels, 10, rotated, source="table 9", suffix="-rotation"),
        _transferred(labels, 10, more, source="table 9", suffix="-rotation-more"),
    )


def small_images(name: SmallSet) -> Recipe:
    """Make a row of table 6.

    ``infoassign pretrain sela-cifar10 --data cifar10:/data --out runs/sela`` on one GPU: linear 83.4, kNN 77.6.
    """
    labels, heads, linear, nearest = SMALL[name]
    return _on_small_images(
        name,
        Torchvision(name=name),
        heads=(labels,) * heads,
        published=f"linear {linear}, kNN {nearest} (table 6)",
        source="table 6",
    )


def imbalanced(imbalance: Imbalance) -> Recipe:
    """Make a row of table 8: CIFAR-10 whole, light or heavy.

    ``infoassign pretrain sela-cifar10-heavy --data cifar10:/data --out runs/sela`` on one GPU: linear 77.2, kNN 67.6.
    """
    return _on_small_images(
        f"cifar10-{imbalance}",
        Torchvision(name="cifar10", imbalance=imbalance),
        heads=(128,),
        published=f"{IMBALANCED[imbalance]} (table 8)",
        source="table 8",
    )


def recipes() -> tuple[Recipe, ...]:
    """SeLa's own rows of tables 1 to 6, and 8 to 10."""
    return (
        *map(relabel, RELABELLED),
        *map(alexnet, LABELS),
        *large(),
        *transfer(),
        *map(small_images, SMALL),
        *map(imbalanced, IMBALANCED),
    )


def on_imagenet(
    encoder: Encoder, method: Settings, *, epochs: int = 400, optimizer: Optimizer = OPTIMIZER
) -> Pretraining:
    """Make the settings of a row on ImageNet."""
    return Pretraining(
        epochs=epochs,
        batch_size=256,
        data=Torchvision(name="imagenet"),
        augmentation=Crops(),
        encoder=encoder,
        projector=None,
        method=method,
        optimizer=optimizer,
        workers=8,
    )


def on_small_images(data: Torchvision, method: Sela) -> Pretraining:
    """Make the settings of a row on CIFAR or SVHN."""
    return Pretraining(
        epochs=400,
        batch_size=128,
        data=data,
        augmentation=Crops.cifar(),
        encoder=AlexNet(),
        projector=None,
        method=method,
        optimizer=SMALL_IMAGES,
        workers=4,
    )


def _on_imagenet(
    name: str,
    encoder: AlexNet | ResNet,
    heads: tuple[int, ...],
    epochs: int,
    relabellings: int,
    published: str,
    *,
    source: str,
) -> Recipe:
    method = Sela(heads=heads, sharpness=25.0, relabellings=relabellings, label_views=1)
    if isinstance(encoder, ResNet):
        network, gmac = "ResNet-50", hours.RESNET50
    elif encoder.size == "small":
        network, gmac = "AlexNet (small)", hours.ALEXNET_SMALL
    else:
        network, gmac = "AlexNet", hours.ALEXNET
    return Recipe(
        name=f"sela-{name}",
        summary=f"SeLa [{heads[0]} x {len(heads)}] on ImageNet, {network}, {epochs} epochs, {relabellings} labellings",
        source=f"{PAPER}, app. A.1, {source}",
        hardware=GPUS,
        hours=hours.estimate(hours.IMAGENET, epochs + relabellings / 3, gmac, 4),
        published=published,
        settings=on_imagenet(encoder, method, epochs=epochs, optimizer=OPTIMIZER if epochs == 400 else SHORTER),
    )


def _transferred(labels: str, heads: int, published: str, *, source: str, suffix: str = "") -> Recipe:
    rotation = bool(suffix)
    retrained = on_imagenet(
        AlexNet(), Transfer(heads=(3000,) * heads, rotation=rotation), epochs=90, optimizer=RETRAINING
    )
    if rotation:
        # Each image is in the batch four times; the rate of its steps stays the same.
        retrained = replace(retrained, batch_size=64, optimizer=replace(RETRAINING, learning_rate=0.2))
    if suffix.endswith("-more"):
        retrained = replace(retrained, augmentation=SelaRetraining())
    return Recipe(
        name=f"sela-transfer-{labels}{suffix}",
        summary=f"AlexNet learns the labels of sela-{labels}{EXTRAS[suffix]} (needs --method.labels)",
        source=f"{PAPER}, sec. 4.3 and app. A.1, {source}; the released code's retraining",
        hardware="1 GPU (the released code; the paper does not say)",
        hours=hours.estimate(hours.IMAGENET, 90, hours.ALEXNET * (4 if rotation else 1), 1),
        published=published,
        settings=retrained,
    )


def _on_small_images(name: str, data: Torchvision, *, heads: tuple[int, ...], published: str, source: str) -> Recipe:
    relabellings = 400 // len(heads)
    method = Sela(heads=heads, sharpness=25.0, relabellings=relabellings, label_views=1)
    return Recipe(
        name=f"sela-{name}",
        summary=f"SeLa [{heads[0]} x {len(heads)}] on {name}, AlexNet, 400 epochs",
        source=f"{PAPER}, app. A.1, {source}",
        hardware=ONE_GPU,
        hours=hours.estimate(IMAGES[name], 400 + relabellings / 3, hours.ALEXNET, 1),
        published=published,
        settings=on_small_images(data, method),
    )
