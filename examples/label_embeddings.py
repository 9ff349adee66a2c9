"""Label embeddings that you have, in clusters of equal size, and see what the labels are worth.

Run it with ``python examples/label_embeddings.py``; it needs scikit-learn. The embeddings are the pixels of its 1797
digits, of which there are about as many of every class; the classes are looked at only to judge the labels.
"""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from infoassign.estimator import InfoAssign


def main() -> None:
    """Find ten clusters of 179 or 180 images each; print the certificate, the agreement, and every cluster."""
    embeddings, classes = load_digits(return_X_y=True)
    model = InfoAssign(n_clusters=10, method="sinkhorn", balanced=True, n_init=5, random_state=0).fit(embeddings)
    labels, found = model.labels_, model.assignment_

    print("Given the prototypes, the soft labels are certified, and the hard ones are the best of their sizes:")
    print(f"  status               {found.status.value} in {found.sweeps} sweeps")
    print(f"  shares off by        {found.marginal_error:.0e}")
    print(f"  soft labels off by   {found.error_bound:.0e} at most (mean total variation to the optimal ones)")
    print(f"  hard labels lose     {found.balanced_labels().optimality_loss:.0e} of the mean score, at most")

    print("\nagreement with the classes    NMI    ARI  sizes of the clusters")
    rival = KMeans(10, n_init=5, random_state=0).fit(embeddings).labels_
    for name, these in (("balanced", labels), ("k-means", rival)):
        nmi, ari = normalized_mutual_info_score(classes, these), adjusted_rand_score(classes, these)
        sizes = np.bincount(these)
        print(f"  {name:<24}  {nmi:.3f}  {ari:.3f}  {sizes.min()} to {sizes.max()}")

    print("\ncluster  images  mostly a  that is")
    for cluster in range(10):
        counts = np.bincount(classes[labels == cluster], minlength=10)
        print(f"{cluster:7d}  {counts.sum():6d}  {counts.argmax():8d}  {counts.max() / counts.sum():7.0%}")


if __name__ == "__main__":
    main()
