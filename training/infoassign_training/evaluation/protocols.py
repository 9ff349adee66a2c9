"""The protocols on frozen features: features in, numbers out."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from infoassign_training.data.images import Images, TaggedImages
from infoassign_training.data.subsets import rows_of
from infoassign_training.engine import ranks
from infoassign_training.evaluation import clusters as clustering
from infoassign_training.evaluation import svm as machines
from infoassign_training.evaluation.features import features_of, pause
from infoassign_training.evaluation.knn import weighted_votes
from infoassign_training.evaluation.logistic import TOL, Classifier, Regression, summed
from infoassign_training.evaluation.metrics import measured, precisions
from infoassign_training.evaluation.settings import Clusters, Knn, Logistic, Svm
from infoassign_training.evaluation.task import Found, Task, subset, whole
from infoassign_training.methods.finished import open_model

Item = TypeVar("Item")


def knn(task: Task, chosen: Knn) -> Found:
    """Score the vote of the nearest neighbours."""
    source, notes = subset(task.benchmark.train, chosen, chosen.seed)
    bank = task.features(source, chosen, "training images")
    queries = whole(task.features(task.benchmark.test, chosen, "test images")).to(task.device)
    if chosen.components:
        bank, queries = principal(bank, queries, chosen.components)
    classes = whole(task.truth(task.benchmark.test)).numpy()
    results: dict[str, float] = {}
    votes = weighted_votes(
        bank,
        task.truth(source),
        queries,
        neighbours=chosen.neighbours,
        temperature=chosen.temperature,
        count=task.classes,
    )
    for number, found in zip(chosen.neighbours, votes, strict=True):
        several = f" (k {number})" if len(chosen.neighbours) > 1 else ""
        scores = measured(found.numpy(), classes, task.benchmark.metric)
        results |= {name + several: value for name, value in scores.items()}
    return Found(results, notes=notes)


def principal(bank: Tensor, queries: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Project this rank's part of a bank, and all queries, on the principal components of the whole bank."""
    rows = summed(torch.tensor(float(len(bank)), dtype=torch.float64, device=bank.device))
    most = min(int(rows), bank.shape[1])
    if components > most:
        raise ValueError(f"there are at most {most} principal components; got protocol.components {components}")
    mean = (summed(bank.sum(dim=0, dtype=torch.float64)) / rows).to(bank.dtype)
    centred = bank - mean
    product = summed((centred.T @ centred).double())
    # Of the first rank: rounding might differ between machines.
    axes = ranks.of_first(torch.linalg.eigh(product)[1][:, -components:].to(bank.dtype).contiguous())
    return centred @ axes, (queries - mean) @ axes


def logistic(task: Task, chosen: Logistic) -> Found:
    """Score a logistic regression whose penalty was chosen on validation images, and which was then fitted to all."""
    train, held = task.benchmark.train, task.benchmark.validation
    dtype = {"float64": torch.float64, "float32": torch.float32}[chosen.precision]
    features, truth = task.features(train, chosen, "training images").to(dtype), task.truth(train)
    if held is not None:
        mask = torch.zeros(len(features), dtype=torch.bool)
        features = torch.cat([features, task.features(held, chosen, "validation images").to(dtype)])
        truth = torch.cat([truth, task.truth(held)])
        mask = torch.cat([mask, torch.ones(len(features) - len(mask), dtype=torch.bool)])
        of = f"the {len(held)} validation images"
    else:
        drawn = held_out(train, chosen.held_out, chosen.seed)
        mask = drawn[task.place.part(len(train))]
        of = f"{int(drawn.sum())} training images, drawn with seed {chosen.seed}"
    mask = mask.to(task.device)
    regression = Regression(features[~mask], truth[~mask], task.classes)
    judges, judged = features[mask], whole(truth[mask]).numpy()
    best: tuple[float, float, Classifier] | None = None
    start: Classifier | None = None
    for strength in _shown(sorted(chosen.strengths), "penalties", task):
        start = regression.fit(strength, start, max_iterations=chosen.max_iterations)
        score = first(measured(whole(start(judges)).double().numpy(), judged, task.benchmark.metric))
        if best is None or score > best[0]:
            best = score, strength, start
    assert best is not None
    score, strength, start = best
    final = Regression(features, truth, task.classes).fit(strength, start, max_iterations=chosen.max_iterations)
    scores = whole(final(task.features(task.benchmark.test, chosen, "test images"))).double().numpy()
    results = measured(scores, whole(task.truth(task.benchmark.test)).numpy(), task.benchmark.metric)
    notes: tuple[str, ...] = (f"C was chosen on {of}; the final fit is on them and the other training images together",)
    if strength in (min(chosen.strengths), max(chosen.strengths)) and len(chosen.strengths) > 1:
        notes += ("the chosen C is at the end of the range that was searched",)
    if final.slope > TOL:
        notes += (
            f"the last fit ended after {chosen.max_iterations} iterations, before its gradient was below {TOL:g}",
        )
    return Found(
        results,
        {"C": strength, f"validation {task.benchmark.metric}": score, "largest slope": final.slope},
        notes,
    )


def held_out(images: Images, share: float, seed: int) -> Tensor:
    """Draw images to choose on, the same share of every class: shape (N,), bool."""
    classes = images.classes
    if classes is None:
        raise ValueError("images with several classes need a data set with validation images")
    held = np.zeros(len(images), dtype=bool)
    for number in range(len(images.names)):
        rows = np.random.default_rng((seed, number, 1)).permutation(np.flatnonzero(classes == number))
        # One of each class is left to be fitted to.
        held[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    if not held.any():
        raise ValueError("no class has two training images, so none can be held out to choose on")
    return torch.from_numpy(held)


def _shown(items: Iterable[Item], title: str, task: Task) -> Iterable[Item]:
    """Show how far the first rank is with some items."""
    bar: Iterable[Item] = tqdm(items, desc=title, mininterval=pause(), disable=task.place.rank > 0)
    return bar


def first(results: dict[str, float]) -> float:
    """Return the number that counts."""
    return next(iter(results.values()))


def svm(task: Task, chosen: Svm) -> Found:
    """Score a support vector machine for every class; each rank fits some of them."""
    train, test = task.benchmark.with_validation(), task.benchmark.test
    if not isinstance(train, TaggedImages):
        raise ValueError(f"svm is for images with several classes, as voc2007 has; {task.benchmark.name} has one each")
    features = whole(task.features(train, chosen, "training images")).numpy()
    queries = whole(task.features(test, chosen, "test images")).numpy()
    presence = train.presence
    mine = task.place.part(task.classes)
    scores, strengths = torch.zeros(task.classes, len(queries)).double(), torch.zeros(task.classes).double()
    for number in _shown(range(mine.start, mine.stop), "classes", task):
        machine, strength = machines.fitted(features, presence[:, number], chosen.strengths, folds=chosen.folds)
        scores[number], strengths[number] = torch.from_numpy(machine.decision_function(queries)), strength
    every = whole(scores[mine]).T.numpy()
    costs = whole(strengths[mine]).tolist()
    truth = whole(task.truth(test)).numpy()
    named = {f"C of {name}": cost for name, cost in zip(train.names, costs, strict=True)}
    return Found(precisions(every, truth), dict(named), ("C was chosen class by class in cross-validation",))


def clusters(task: Task, chosen: Clusters) -> Found:
    """Compare labels of the test images with their classes."""
    truth = whole(task.truth(task.benchmark.test)).numpy()
    if truth.ndim > 1:
        raise ValueError("clusters are compared with one class an image; these have several")
    labels, said = _k_means(task, chosen) if chosen.of == "k-means" else _likeliest(task, chosen)
    notes = (said, f"{len(np.unique(labels))} labels are in use; there are {task.classes} classes")
    return Found(clustering.agreement(truth, labels), notes=notes)


def _k_means(task: Task, chosen: Clusters) -> tuple[NDArray[np.int64], str]:
    source = task.benchmark.train
    fitted = f"{len(source)} training images"
    if len(source) > chosen.fitted_to:
        rows = np.random.default_rng(chosen.seed).permutation(len(source))[: chosen.fitted_to]
        source, fitted = rows_of(source, np.sort(rows)), f"{len(rows)} training images, drawn with seed {chosen.seed}"
    train = whole(task.features(source, chosen, "training images")).numpy()
    test = whole(task.features(task.benchmark.test, chosen, "test images")).numpy()
    labels = np.zeros(len(test), dtype=np.int64)
    if task.place.rank == 0:
        labels = clustering.k_means(train, test, task.classes, seed=chosen.seed)
    labels = ranks.of_first(torch.from_numpy(labels).to(task.device)).cpu().numpy()
    return labels, f"k-means of {fitted} with {task.classes} clusters, the best of 20 starts by its own criterion"


def _likeliest(task: Task, chosen: Clusters) -> tuple[NDArray[np.int64], str]:
    if task.pretrained.pretraining is None:
        raise ValueError("the labels of a run of ours are compared; of others' weights take clusters-k-means")
    if not task.pretrained.evaluated:
        raise ValueError("labels are made by the encoder that the run evaluates; leave --weights out")
    method = open_model(task.checkpoint).method.to(task.device)
    drawn = int(np.random.default_rng(chosen.seed).integers(2**31))
    heads = []

    def forward(images: Tensor) -> list[Tensor]:
        every = method.logits(images)
        heads.append(len(every))
        return [every[drawn % len(every)]]

    (scores,) = features_of(forward, task.benchmark.test, task.look(chosen), "test images")
    head = f"head {drawn % heads[0]} of {heads[0]}, drawn with seed {chosen.seed}" if heads[0] > 1 else "its one head"
    return whole(scores.argmax(dim=1)).numpy(), f"the model's likeliest labels, by {head}"
