"""Label a batch of logits so that the labels say as much as they can about their rows.

Run it with ``python examples/label_a_batch.py``; it needs no framework.
"""

import numpy as np

import infoassign as ia


def main() -> None:
    """Compare MIRA's labels with the model's own probabilities for several beta."""
    # A model that is sure of little and likes some labels better than others.
    random = np.random.default_rng(0)
    logits = random.normal(size=(512, 32)) + np.linspace(2, 0, 32)

    print(f"{'beta':>5}  {'information':>11}  {'labels in use':>13}  {'sweeps':>6}  certified error")
    for beta in (0.0, 0.5, 2 / 3, 0.9):
        assignment = ia.mira(logits, beta=beta)
        assert assignment.converged, assignment.status.advice
        print(
            f"{beta:5.2f}  {assignment.mutual_information:6.3f} nats  {assignment.perplexity:13.1f}"
            f"  {assignment.sweeps:6d}  {assignment.error_bound:.1e}"
        )
    print("\nbeta = 0 is the softmax itself; the information can be at most ln 32 = 3.466 nats.")


if __name__ == "__main__":
    main()
