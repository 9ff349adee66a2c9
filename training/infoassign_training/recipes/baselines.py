"""What the papers' tables compare with: SwAV, Barlow Twins, VICReg, k-means, and the true classes.

Only rows whose numbers the four papers print; each with the settings of its own method's paper and code, where the
table does not say otherwise.

SwAV (MIRA, table 8). ``swav-imagenet-batch512-100`` was run by MIRA's authors, who say of it that the assignment is
SwAV's; its memory and time are those of MIRA without a moving average. So it is that recipe with SwAV's labels, its
epsilon of .05 and 3 iterations, without a queue. ``swav-imagenet-100`` is SimSiam's reproduction, whose settings were
not consulted: it has those of SwAV's code (projector 2048-128, 3000 prototypes held for an epoch, LARS, base rate .3
from .3 to .0048, decay 1e-6), without local views.

Barlow Twins and VICReg (MUSIC and IMSVD, tables of epochs, batch, dimension and CIFAR-10).

==================  ========================  ========================  =========================================
setting             Barlow Twins              VICReg                    source
==================  ========================  ========================  =========================================
projector           8192-8192-8192            8192-8192-8192            both codes
weights             .0051                     25, 25, 1                 both codes
augmentation        VICReg's                  VICReg's                  both codes: the same, but for the order
batch               2048                      2048                      both codes
optimiser           LARS, decay 1e-6          LARS, decay 1e-6          both codes; Barlow Twins' paper has 1.5e-6
base rate           .2                        .3 for 100 epochs, or .2  codes; VICReg's commands for 100 and 1000
warm-up             10 epochs from 0          10 epochs from 0          both codes
end of the cosine   a thousandth, .0016       .002                      code; VICReg's as MUSIC has it (sec. 3)
==================  ========================  ========================  =========================================

Barlow Twins' code has a rate of .0048 for biases and norms, which the optimiser's settings here do not have: they, too,
have .2. VICReg's dimension is that of all three layers. On CIFAR-10 both have a projector of three layers of 1024 and
the settings of MUSIC's rows.

SeLa's (tables 6, 8 and 9, A.2). ``-kmeans`` has DeepCluster's labels in place of SeLa's, every epoch, with a new head
each time; how often it was done is not said. ``-supervised`` has the true classes; app. A.1 says nothing of its
training: on small images all is as for SeLa, on ImageNet there are 90 epochs divided at 30, 60 and 80 as in the code's
retraining. ``sela-alexnet-random`` is evaluated as it was initialised.

Table 8 prints differences to the supervised row that its own numbers do not have: kNN of k-means on full CIFAR-10 is
27.4 below 92.1, not 17.4. The accuracies themselves are copied here.
"""

from collections.abc import Mapping
from dataclasses import replace

from infoassign_training.config import Optimizer, Pretraining
from infoassign_training.data import augmentations
from infoassign_training.data.settings import Torchvision
from infoassign_training.methods import settings
from infoassign_training.models.settings import AlexNet, Projector, ResNet
from infoassign_training.recipes import Recipe, hours, mira, segments, sela

SWAV = settings.Swav(prototypes=3000, temperature=0.1, epsilon=0.05, iterations=3, queue=0, freeze_prototypes_epochs=1)
COMPARED = "32 V100 of 32 GiB (IMSVD, table IV)"
VICREG_PROJECTOR = Projector(hidden=(8192, 8192), projection=8192, hidden_bias=True, last_bias=False)
BARLOW_PROJECTOR = replace(VICREG_PROJECTOR, hidden_bias=False)
LARS = Optimizer(kind="lars", learning_rate=0.2, weight_decay=1e-6)

VICREG = {100: "68.7", 300: "71.2", 1000: "73.2"}
"""Top-1 accuracy by epochs (IMSVD, table I)."""
VICREG_BATCHES = {512: "68.2", 1024: "68.3", 4096: "67.8"}
"""Top-1 accuracy by batch (MUSIC, table 4)."""
VICREG_DIMENSIONS = {1024: "62.4", 2048: "65.1", 4096: "67.3", 16384: "68.8"}
"""Top-1 accuracy by length of the projection (MUSIC, table 7)."""
VICREG_ELSE = "11 h; estimate: what batches of 2048 and projections of 8192 units take (IMSVD, table IV)"
BARLOW_TWINS = {300: "71.4", 1000: "73.2"}
"""Top-1 accuracy by epochs (IMSVD, table I)."""
KMEANS: Mapping[sela.Imbalance, str] = {
    "full": "kNN 64.7, CIFAR-100 19.3; linear 77.5, CIFAR-100 45.6",
    "light": "kNN 64.2, CIFAR-100 18.1; linear 77.0, CIFAR-100 44.8",
    "heavy": "kNN 60.7, CIFAR-100 17.8; linear 75.2, CIFAR-100 44.3",
}
"""Accuracy by imbalance (SeLa, table 8)."""
SUPERVISED: Mapping[sela.Imbalance, str] = {
    "full": "kNN 92.1, CIFAR-100 24.0; linear 90.2, CIFAR-100 54.2 (table 8); kNN 91.9, linear 91.8 (table 6)",
    "light": "kNN 92.0, CIFAR-100 24.0; linear 90.4, CIFAR-100 53.6 (table 8)",
    "heavy": "kNN 86.7, CIFAR-100 22.6; linear 86.8, CIFAR-100 51.4 (table 8)",
}
"""Accuracy by imbalance."""
SUPERVISED_SMALL: Mapping[sela.SmallSet, str] = {
    "cifar100": "linear 71.0, kNN 69.7 (table 6)",
    "svhn": "linear 96.1, kNN 96.5 (table 6)",
}
"""Accuracy by data set."""


def swav(*, small_batch: bool) -> Recipe:
    """Make SwAV's rows of MIRA's table 8.

    ``torchrun --nproc-per-node 8 -m infoassign_training pretrain swav-imagenet-batch512-100 --data /data/imagenet --out
    runs/swav`` on 8 GPUs of 12 GB, 38 hours: top-1 62.3.
    """
    if small_batch:
        same = mira.batch512(ema=False)
        return replace(
            same,
            name="swav-imagenet-batch512-100",
            summary="SwAV's labels with small batches on ImageNet, 100 epochs",
            published="top-1 linear 62.3 (MIRA, table 8)",
            settings=replace(same.settings, method=SWAV),
        )
    return Recipe(
        name="swav-imagenet-100",
        summary="SwAV without multi-crop on ImageNet, 100 epochs",
        source="SwAV (Caron et al., 2020), its code, but for the local views; MIRA, table 8",
        hardware="16 A100 (MIRA's, table 8; the row does not say)",
        hours=hours.estimate(hours.IMAGENET, 100, 2 * hours.RESNET50, 16),
        published="top-1 linear 66.5 (MIRA, table 8, from SimSiam)",
        settings=Pretraining(
            epochs=100,
            batch_size=4096,
            data=Torchvision(name="imagenet"),
            augmentation=augmentations.Swav(),
            encoder=ResNet(name="resnet50"),
            projector=Projector(hidden=(2048,), projection=128, hidden_bias=True),
            method=SWAV,
            optimizer=replace(LARS, learning_rate=0.3, warmup=0.1, warmup_start=0.3, final=0.0048),
            workers=8,
        ),
    )


def vicreg(name: str, published: str, *, epochs: int = 100, batch: int = 2048, dimension: int = 8192) -> Recipe:
    """Make one of VICReg's rows in MUSIC's and IMSVD's tables.

    ``torchrun --nnodes 4 --nproc-per-node 8 -m infoassign_training pretrain vicreg-imagenet-100 --data /data/imagenet
    --out runs/vicreg`` on each of four machines of 8 V100, 11 hours: top-1 68.7.
    """
    rate = 0.3 if epochs == 100 else 0.2
    return Recipe(
        name=f"vicreg-{name}",
        summary=f"VICReg on ImageNet, {epochs} epochs, batches of {batch}, projections of {dimension} units",
        source="VICReg (Bardes et al., 2022), its code",
        hardware=COMPARED,
        hours=_compared(11, epochs) if batch == 2048 and dimension == 8192 else VICREG_ELSE,
        published=f"top-1 linear {published}",
        settings=_on_imagenet(
            settings.Vicreg(),
            replace(VICREG_PROJECTOR, hidden=(dimension, dimension), projection=dimension),
            replace(LARS, learning_rate=rate, final=0.002),
            epochs=epochs,
            batch=batch,
        ),
    )


def barlow_twins(epochs: int) -> Recipe:
    """Make one of Barlow Twins' rows in IMSVD's table I.

    ``torchrun --nnodes 4 --nproc-per-node 8 -m infoassign_training pretrain barlow-twins-imagenet-300 --data
    /data/imagenet --out runs/barlow`` on each of four machines of 8 V100, 36 hours: top-1 71.4.
    """
    return Recipe(
        name=f"barlow-twins-imagenet-{epochs}",
        summary=f"Barlow Twins on ImageNet, {epochs} epochs",
        source="Barlow Twins (Zbontar et al., 2021), its code",
        hardware=COMPARED,
        hours=_compared(12, epochs),
        published=f"top-1 linear {BARLOW_TWINS[epochs]} (IMSVD, table I)",
        settings=_on_imagenet(
            settings.BarlowTwins(), BARLOW_PROJECTOR, replace(LARS, final=0.0016), epochs=epochs, batch=2048
        ),
    )


def cifar10(method: settings.BarlowTwins | settings.Vicreg, projector: Projector, published: str) -> Recipe:
    """Make one of the baselines of MUSIC's table 11.

    ``infoassign pretrain vicreg-cifar10 --data cifar10:/data --out runs/vicreg`` on one GPU: top-1 88.5.
    """
    return Recipe(
        name=f"{method.kind}-cifar10",
        summary=f"{'VICReg' if method.kind == 'vicreg' else 'Barlow Twins'} on CIFAR-10, ResNet-18, 800 epochs",
        source="MUSIC (Niu et al.), app. H, and IMSVD's code",
        hardware="1 A100 (the paper does not say)",
        hours=hours.estimate(hours.CIFAR, 800, 2 * hours.RESNET18_32, 1),
        published=f"top-1 linear {published} (MUSIC, table 11)",
        settings=segments.on_cifar10(replace(projector, hidden=(1024, 1024), projection=1024), method),
    )


def kmeans(imbalance: sela.Imbalance) -> Recipe:
    """Make a row of SeLa's table 8 with k-means in place of its labels.

    ``infoassign pretrain sela-cifar10-heavy-kmeans --data cifar10:/data --out runs/kmeans`` on one GPU: linear 75.2.
    """
    same = sela.imbalanced(imbalance)
    return replace(
        same,
        name=f"{same.name}-kmeans",
        summary=f"k-means in place of SeLa [128 x 1] on cifar10-{imbalance}, AlexNet, 400 epochs",
        published=f"{KMEANS[imbalance]} (table 8)",
        settings=replace(same.settings, method=settings.DeepCluster(clusters=128, every_epochs=1)),
    )


def supervised(same: Recipe, published: str) -> Recipe:
    """Make a supervised row of SeLa's tables 6 or 8 from SeLa's.

    ``infoassign pretrain sela-svhn-supervised --data svhn:/data --out runs/supervised`` on one GPU: linear 96.1.
    """
    where = same.name.removeprefix("sela-")
    return replace(
        same,
        name=f"{same.name}-supervised",
        summary=f"the true classes of {where}, AlexNet, 400 epochs",
        source=f"{sela.PAPER}, tables 6 and 8; the training was chosen to be SeLa's",
        hours=hours.estimate(sela.IMAGES[where], 400, hours.ALEXNET, 1),
        published=published,
        settings=replace(same.settings, method=settings.Supervised()),
    )


def alexnet() -> tuple[Recipe, ...]:
    """Make SeLa's supervised and random AlexNets (tables 9 and A.2).

    ``torchrun --nproc-per-node 4 -m infoassign_training pretrain sela-alexnet-supervised --data /data/imagenet --out
    runs/supervised``: conv4 52.9 with ten crops.
    """
    trained = replace(
        sela.on_imagenet(AlexNet(), settings.Supervised()),
        epochs=90,
        optimizer=sela.RETRAINING,
    )
    return (
        Recipe(
            name="sela-alexnet-supervised",
            summary="the true classes of ImageNet, AlexNet, 90 epochs",
            source=f"{sela.PAPER}, table 9; the training was chosen",
            hardware=sela.GPUS,
            hours=hours.estimate(hours.IMAGENET, 90, hours.ALEXNET, 4),
            published="conv1 to conv5 21.6 37.2 46.9 52.9 54.4, Places 22.6 33.2 39.0 41.3 39.7, ten crops (table 9)",
            settings=trained,
        ),
        Recipe(
            name="sela-alexnet-random",
            summary="AlexNet's initial weights",
            source=f"{sela.PAPER}, table A.2",
            hardware="none to train",
            hours="0 h: nothing is learnt",
            published="conv1 to conv5 17.6 20.3 20.6 17.8 11.0 with ten crops, 15.6 16.8 17.4 15.6 10.6 with one"
            " (table A.2)",
            settings=replace(trained, epochs=0),
        ),
    )


def recipes() -> tuple[Recipe, ...]:
    """Baselines of MIRA's table 8, of MUSIC's and IMSVD's, and of SeLa's tables 6, 8 and 9."""
    return (
        swav(small_batch=False),
        swav(small_batch=True),
        *(vicreg(f"imagenet-{n}", f"{top} (IMSVD, table I)", epochs=n) for n, top in VICREG.items()),
        *(vicreg(f"batch-{n}", f"{top} (MUSIC, table 4)", batch=n) for n, top in VICREG_BATCHES.items()),
        *(vicreg(f"dimension-{n}", f"{top} (MUSIC, table 7)", dimension=n) for n, top in VICREG_DIMENSIONS.items()),
        *map(barlow_twins, BARLOW_TWINS),
        cifar10(settings.Vicreg(), VICREG_PROJECTOR, "88.5"),
        cifar10(settings.BarlowTwins(), BARLOW_PROJECTOR, "88.2"),
        *map(kmeans, KMEANS),
        *(supervised(sela.imbalanced(imbalance), published) for imbalance, published in SUPERVISED.items()),
        *(supervised(sela.small_images(name), published) for name, published in SUPERVISED_SMALL.items()),
        *alexnet(),
    )


def _on_imagenet(
    method: settings.Vicreg | settings.BarlowTwins,
    projector: Projector,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch: int,
) -> Pretraining:
    return Pretraining(
        epochs=epochs,
        batch_size=batch,
        data=Torchvision(name="imagenet"),
        augmentation=augmentations.Vicreg(),
        encoder=ResNet(name="resnet50", zero_init_residual=True),
        projector=projector,
        method=method,
        optimizer=replace(optimizer, warmup=10 / epochs),
        workers=8,
    )


def _compared(per_hundred: int, epochs: int) -> str:
    return f"{per_hundred * epochs / 100:g} h ({per_hundred} per 100 epochs, IMSVD, table IV)"
