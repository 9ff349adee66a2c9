"""MIRA's labels beside SwAV's where classes are equally large, and where they are not: a table and a picture.

Run it with ``python examples/mira_and_swav_on_a_long_tail.py [picture.png]``; it needs scikit-learn and matplotlib.
The scores are cosines of digits with ten prototypes, each the mean of 30 other images of a class, which stand in for
what a network has learnt. Nothing is trained: this is what one labelling does, at the papers' temperatures.
"""

import sys
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.preprocessing import normalize

import infoassign as ia

PIXELS, CLASSES = load_digits(return_X_y=True)
SIZES = {"equal": np.full(10, 140), "long tail": np.round(140 * 10 ** (-np.arange(10) / 9)).astype(int)}
THREE_STEPS = {"start": "columns", "tol": 0, "max_sweeps": 3, "acceleration": None}
METHODS = {
    "nearest prototype": lambda scores, shares: scores.argmax(axis=1),
    "MIRA": lambda scores, shares: ia.mira(scores, beta=2 / 3, temperature=0.225).labels,
    "SwAV, three steps": lambda scores, shares: ia.sinkhorn(scores, epsilon=0.05, **THREE_STEPS).labels,
    "SwAV, converged": lambda scores, shares: ia.sinkhorn(scores, epsilon=0.05).labels,
    "the true shares": lambda scores, shares: ia.sinkhorn(scores, epsilon=0.05, prior=shares).labels,
}


def drawn(sizes, seed):
    """Return the cosines with the prototypes of so many images of each class; which class is how large is random."""
    random = np.random.default_rng(seed)
    images = normalize(PIXELS - PIXELS.mean(axis=0))
    members = [random.permutation(np.flatnonzero(name == CLASSES)) for name in random.permutation(10)]
    prototypes = normalize([images[rows[:30]].mean(axis=0) for rows in members])
    chosen = [rows[30 : 30 + size] for rows, size in zip(members, sizes, strict=True)]
    return images[np.concatenate(chosen)] @ prototypes.T


def confusion(label, sizes):
    """Return how many images of each class (row) are given each label (column), the mean of ten draws."""
    classes = np.repeat(np.arange(10), sizes)
    labels = [label(drawn(sizes, seed), sizes / sizes.sum()) for seed in range(10)]
    return np.mean([np.histogram2d(classes, found, bins=(10, np.arange(11)))[0] for found in labels], axis=0)


picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(gettempdir()) / "long-tail.png"
figure = Figure(figsize=(9, 3.4), layout="constrained")
left, right = figure.subplots(1, 2)
largest, *_, smallest = sizes = SIZES["long tail"]
left.plot(range(1, 11), sizes, color="black", linestyle="--", label="images there are")
print(f"{'labelled right':<17}  equal classes  long tail: all  the largest of {largest}  the smallest of {smallest}")
for name, label in METHODS.items():
    equal, tail = (confusion(label, of) for of in SIZES.values())
    hit = tail.diagonal() / sizes
    all_of = [found.trace() / found.sum() for found in (equal, tail)]
    print(f"{name:<17}  {all_of[0]:13.1%}  {all_of[1]:14.1%}  {hit[0]:18.1%}  {hit[9]:18.1%}")
    left.plot(range(1, 11), tail.sum(axis=0), marker="o", label=name)
    right.plot(range(1, 11), hit, marker="o")
for axes, title in ((left, "Images that are given each label"), (right, "Share of each class labelled right")):
    axes.set(title=title, xlabel="class, from the largest", xticks=range(1, 11))
    axes.set_ylim(bottom=0)
left.legend(frameon=False, fontsize=8)
figure.savefig(picture, dpi=100)
print(f"Of every class: {picture}")
