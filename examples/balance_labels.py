"""Hard labels with clusters of the sizes that you want, and what they cost.

Run it with ``python examples/balance_labels.py``; it needs no framework.
"""

import numpy as np

import infoassign as ia


def main() -> None:
    """Label samples by their similarity to prototypes: greedily, in equal shares, and in shares that are known."""
    # Samples around eight centres, of which the first is eight times as common as the last.
    random = np.random.default_rng(0)
    shares = np.arange(8, 0, -1) / 36
    centres = random.normal(size=(8, 16))
    classes = random.choice(8, size=1800, p=shares)
    samples = centres[classes] + 1.5 * random.normal(size=(1800, 16))
    scores = samples @ centres.T / 4

    greedy = scores.argmax(axis=1)
    equal = ia.sinkhorn(scores, epsilon=0.3)
    known = ia.sinkhorn(scores, epsilon=0.3, prior=shares)
    for assignment in (equal, known):
        assert assignment.converged, assignment.status.advice
    labelled = {
        "greedy": greedy,
        "equal shares": equal.balanced_labels().labels,
        "known shares": known.balanced_labels().labels,
    }

    print(f"{'labels':<13}  {'mean score':>10}  {'right':>6}  sizes of the clusters")
    for name, labels in labelled.items():
        score = scores[np.arange(len(labels)), labels].mean()
        print(f"{name:<13}  {score:10.3f}  {(labels == classes).mean():6.1%}  {np.bincount(labels, minlength=8)}")
    print(
        f"\nKnown shares, before rounding to hard labels: at most {known.error_bound:.0e} from the optimal soft labels."
    )


if __name__ == "__main__":
    main()
