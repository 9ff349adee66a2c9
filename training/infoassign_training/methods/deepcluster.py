"""DeepCluster: label all images by k-means, learn the labels with a new head, and label anew."""

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.methods import settings
from infoassign_training.methods.method import Batch, Method, Moment, Pass, Step, agreement


class DeepCluster(Method):
    """An encoder and a head for the clusters that its own features fell into."""

    targets: Tensor

    def __init__(self, encoder: nn.Module, features: int, images: int, chosen: settings.DeepCluster) -> None:
        super().__init__()
        self.settings = chosen
        self.labels = chosen.clusters
        self.encoder = encoder
        self.head = nn.Linear(features, chosen.clusters)
        self.register_buffer("targets", torch.full((1, images), -1))

    @torch.no_grad()
    def before(self, now: Moment, images: Pass) -> tuple[ia.Assignment, ...]:
        """Cluster all images at the first step of every few epochs; the head starts from nothing."""
        if now.step % (now.steps_per_epoch * self.settings.every_epochs):
            return ()
        rows, features = zip(*((rows, F.normalize(self.encoder(view))) for rows, (view,) in images(1)), strict=True)
        whole = ranks.spread(torch.cat(features), torch.cat(rows), self.targets.shape[1])
        clusters = KMeans(self.settings.clusters, n_init=1, random_state=now.step).fit_predict(whole.cpu().numpy())
        # The first rank's for all: others could round differently.
        self.targets[0] = ranks.of_first(torch.from_numpy(clusters).to(self.targets))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(now.step)  # the same on every rank, and also if the run was resumed
            fresh = nn.Linear(self.head.in_features, self.head.out_features, device="cpu")
        self.head.load_state_dict(fresh.state_dict())
        # Certain labels as an assignment, so that they are logged like others.
        certain = F.one_hot(self.targets[0], self.settings.clusters).double()
        return (ia.mira(100 * certain, beta=0),)

    def outputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return the features of the view, (B, F)."""
        return [self.encoder(views[0])]

    def loss(self, outputs: list[Tensor], constants: list[Tensor], batch: Batch, now: Moment) -> Step:
        """Return the cross-entropy with the clusters."""
        logits, targets = self.head(outputs[0]), self.targets[0, batch.rows]
        return Step(F.cross_entropy(logits, targets), watched={"agreement": agreement(logits, targets)})

    def pseudo_labels(self) -> Tensor:
        """Return the labels that are being learnt, shape (T, N)."""
        return self.targets

    @torch.no_grad()
    def logits(self, images: Tensor) -> list[Tensor]:
        """Score images (B, C, H, W) by the head, (B, K)."""
        self.eval()
        return [self.head(self.encoder(images))]

    def label(self, images: Tensor) -> ia.Assignment:
        """Label images (B, C, H, W) by the head's probabilities."""
        return ia.mira(self.logits(images)[0], beta=0)
