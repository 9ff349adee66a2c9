"""DeepCluster: label all images by k-means, learn the labels with a new head, and label anew."""

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training.methods import settings
from infoassign_training.methods.method import Batch, Method, Moment, Pass, Step


class DeepCluster(Method):
    """An encoder and a head for the clusters that its own features fell into."""

    targets: Tensor

    def __init__(self, encoder: nn.Module, features: int, images: int, chosen: settings.DeepCluster) -> None:
        super().__init__()
        self.settings = chosen
        self.labels = chosen.clusters
        self.encoder = encoder
        self.head = nn.Linear(features, chosen.clusters)
        self.register_buffer("targets", torch.full((images,), -1))

    @torch.no_grad()
    def before(self, now: Moment, images: Pass) -> tuple[ia.Assignment, ...]:
        """Cluster all images at the first step of every few epochs; the head starts from nothing."""
        if now.step % (now.steps_per_epoch * self.settings.every_epochs):
            return ()
        features: Tensor | None = None
        for rows, (view,) in images(1):
            part = F.normalize(self.encoder(view))
            features = part.new_empty(len(self.targets), part.shape[1]) if features is None else features
            features[rows] = part
        assert features is not None
        clusters = KMeans(self.settings.clusters, n_init=1, random_state=now.step).fit_predict(features.numpy())
        self.targets.copy_(torch.from_numpy(clusters))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(now.step)  # the same also if the run was resumed
            self.head.reset_parameters()
        # Certain labels as an assignment, so that they are logged like others.
        certain = F.one_hot(self.targets, self.settings.clusters).double()
        return (ia.mira(100 * certain, beta=0),)

    def forward(self, batch: Batch, now: Moment) -> Step:
        """Return the cross-entropy with the clusters."""
        return Step(F.cross_entropy(self.head(self.encoder(batch.views[0])), self.targets[batch.rows]))

    @torch.no_grad()
    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) by the head's probabilities."""
        self.eval()
        return ia.mira(self.head(self.encoder(images)), beta=0)
