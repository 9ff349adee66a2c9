"""What can be evaluated by name: the papers' protocols with their settings, and what was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infoassign_training.evaluation.settings import Clusters, FineTune, Knn, Linear, Logistic, MultiLabel, Settings, Svm

MUSIC = "MUSIC, app. G; IMSVD, sec. IV"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A protocol with all its settings."""

    name: str
    summary: str
    """One line."""
    source: str
    """Where the settings come from."""
    published: str
    """What the papers reached on ImageNet with ResNet-50, unless it says otherwise; empty if nothing."""
    settings: Settings


def _knn() -> tuple[Protocol, ...]:
    mira = "MIRA, sec. 4.2, after DINO"
    return (
        Protocol(
            name="knn",
            summary="weighted vote of the 20 nearest training images",
            source=mira,
            published="MIRA, 400 epochs, multi-crop: .687",
            settings=Knn(),
        ),
        Protocol(
            name="knn-10",
            summary="the same, of a tenth of the training images",
            source=mira,
            published="MIRA: .607",
            settings=Knn(labelled=0.1),
        ),
        Protocol(
            name="knn-1",
            summary="the same, of a hundredth of the training images",
            source=mira,
            published="MIRA: .478",
            settings=Knn(labelled=0.01),
        ),
        Protocol(
            name="knn-music",
            summary="weighted vote of the 20, and of the 200, nearest training images",
            source="MUSIC, table 3; IMSVD, table II; neither names weights: those of MIRA",
            published="MUSIC, IMSVD: .670 (20), .649 (200)",
            settings=Knn(neighbours=(20, 200)),
        ),
        Protocol(
            name="knn-sela",
            summary="weighted vote of the 50 nearest training images, by 128 principal components",
            source="SeLa, app. A.1: k 50, sigma .1, an embedding of size 128, which it does not describe further",
            published="SeLa, AlexNet: table 6",
            settings=Knn(neighbours=(50,), temperature=0.1, components=128),
        ),
    )


def _trained() -> tuple[Protocol, ...]:
    layers = Linear(
        epochs=36,
        learning_rates=(0.01,),
        drops=(5, 15, 25),
        drop_by=5.0,
        crops="plain",
        layers=True,
        weight_decay=1e-4,
    )
    return (
        Protocol(
            name="linear-mira",
            summary="linear classifier on frozen features, its rate chosen on a part of the training images",
            source="MIRA, sec. 4.2 (published): SGD, batch 1024, cosine, no decay; .075 was chosen for its best model",
            published="MIRA, 400 epochs, multi-crop: .756; table 1",
            settings=Linear(batch_size=1024, learning_rates=(0.0375, 0.075, 0.15, 0.3)),
        ),
        Protocol(
            name="linear-music",
            summary="linear classifier on frozen features",
            source=f"{MUSIC}: SGD, rate .02, cosine, decay 1e-6, batch 256, crops of .2 to 1",
            published="MUSIC, 1000 epochs: .736",
            settings=Linear(learning_rates=(0.02,), weight_decay=1e-6, scale=(0.2, 1.0)),
        ),
        Protocol(
            name="layers",
            summary="linear classifiers on every convolution of an AlexNet",
            source="SeLa, app. A.1; batch 256 and a decay of 1e-4 are ours, it names none",
            published="SeLa, AlexNet: tables 1 to 5, 9",
            settings=layers,
        ),
        Protocol(
            name="layers-10-crops",
            summary="the same, test images also by ten crops",
            source="SeLa, app. A.1",
            published="SeLa, AlexNet: table 9",
            settings=Linear(**{**vars(layers), "ten_crops": True}),
        ),
        Protocol(
            name="places-music",
            summary="linear classifier of Places-205's scenes on frozen features",
            source=f"{MUSIC}, after PIRL: SGD, 14 epochs, rate .01 divided by 10 at 5 and 10, decay 5e-4; batch 256",
            published="MUSIC, IMSVD: .548",
            settings=Linear(epochs=14, learning_rates=(0.01,), drops=(5, 10), weight_decay=5e-4),
        ),
        Protocol(
            name="semi-1",
            summary="encoder and classifier trained on a hundredth of the labels",
            source=f"{MUSIC}: SGD, 20 epochs, batch 256, rates .08 and .1, cosine, no decay; MIRA names no settings",
            published="MUSIC: .540, top-5 .789; MIRA: .556, .805",
            settings=FineTune(labelled=0.01, encoder_rate=0.08, scale=(0.2, 1.0)),
        ),
        Protocol(
            name="semi-10",
            summary="encoder and classifier trained on a tenth of the labels",
            source=f"{MUSIC}: as semi-1, rates .02 and .1",
            published="MUSIC: .691, top-5 .891; MIRA: .699, .900",
            settings=FineTune(labelled=0.1, encoder_rate=0.02, scale=(0.2, 1.0)),
        ),
    )


def _tuned() -> tuple[Protocol, ...]:
    deepcluster = (
        "SeLa, table 7, and its README: DeepCluster's eval_voc_classif.py, rate .003 halved every 5000 of 80,000 steps,"
        " batch 16, decay 1e-6, square crops of .1 to .5, gradients cut at 10, frozen normalisation"
    )
    ours = "whole epochs (256, halved every 16), ten fixed crops for its ten random ones and eleven points are ours"
    area = "by that code's area under the curve, our `map`"
    return (
        Protocol(
            name="voc07-fc6-8",
            summary="AlexNet's linear layers trained anew on frozen convolutions for VOC07's classes",
            source=f"{deepcluster}; {ours}",
            published=f"SeLa: .731, label transfer and RotNet .756; ImageNet's labels .789; {area}",
            settings=MultiLabel(tuned="fc6-8"),
        ),
        Protocol(
            name="voc07-all",
            summary="the same, all layers trained; of a residual network all but the classifier from its weights",
            source=f"{deepcluster}; {ours}, and so is what is not an AlexNet",
            published=f"SeLa: .753, label transfer and RotNet .772; ImageNet's labels .799; {area}",
            settings=MultiLabel(tuned="all"),
        ),
    )


def _solved() -> tuple[Protocol, ...]:
    return (
        Protocol(
            name="transfer",
            summary="logistic regression on frozen features of the eleven data sets, each by its own metric",
            source="MIRA, table 5, after Ericsson et al., 2021: images at 224 x 224, 45 penalties, refit on all",
            published="MIRA: .7986 on average",
            settings=Logistic(resize=1.0, interpolation="bicubic"),
        ),
        Protocol(
            name="voc07-svm",
            summary="support vector machine for every class of VOC07 on frozen features",
            source=f"{MUSIC}, after PIRL: C by cross-validation",
            published="MUSIC, IMSVD: .865",
            settings=Svm(),
        ),
        Protocol(
            name="clusters",
            summary="whether the labels that a model makes are the classes of the test images",
            source="SeLa, table A.1",
            published="SeLa: table A.1",
            settings=Clusters(),
        ),
        Protocol(
            name="clusters-k-means",
            summary="whether k-means clusters of frozen features are the classes of the test images",
            source="the digits' reports",
            published="",
            settings=Clusters(of="k-means"),
        ),
    )


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (*_knn(), *_trained(), *_tuned(), *_solved())}
)
"""All protocols, by name."""
