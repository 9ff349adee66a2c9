"""Assignments that carry information: labels chosen by information-theoretic principles, with proof.

The public names of the library. Functions take arrays of any library that follows the array-API
standard (NumPy, torch, CuPy, JAX, ...) and answer with arrays of the same library and device.
Importing this package imports NumPy and nothing heavier.

Examples
--------
Three rows whose probabilities all favour the first label say little about which row is which. MIRA spreads them apart:

>>> import numpy as np
>>> import infoassign as ia
>>> logits = np.array([[2.0, 0.0], [1.5, 0.0], [1.0, 0.0]])
>>> assignment = ia.mira(logits, beta=0.5)
>>> assignment.status
<Status.CONVERGED: 'converged'>
>>> assignment.plan.round(3)
array([[0.931, 0.069],
       [0.832, 0.168],
       [0.645, 0.355]])
>>> bool(assignment.error_bound <= 1e-5)
True
"""

from infoassign.assignment import assign, mira, sinkhorn
from infoassign.auction import BalancedLabels
from infoassign.codes import entropy_lower_bounds, orthogonal_array
from infoassign.evaluate import dual_objective, duality_gap, kkt_residual, primal_objective
from infoassign.factored import FactoredScores
from infoassign.files import ScoresChangedError
from infoassign.information import conditional_entropy, entropy, kl_divergence, mutual_information
from infoassign.losses import (
    LossAndGradient,
    imsvd_loss,
    imsvd_loss_and_gradient,
    information_objective,
    music_loss,
    music_loss_and_gradient,
)
from infoassign.result import Assignment, Status, Verification
from infoassign.segments import (
    EntropyTerms,
    entropy_terms,
    joint_distribution,
    soft_discretize,
    transform_invariance,
)
from infoassign.sharding import ShardMismatchError
from infoassign.streamed import StreamedScores
from infoassign.subsets import SubsetMean, subset_entropy, total_correlation

__all__ = [
    "Assignment",
    "BalancedLabels",
    "EntropyTerms",
    "FactoredScores",
    "LossAndGradient",
    "ScoresChangedError",
    "ShardMismatchError",
    "Status",
    "StreamedScores",
    "SubsetMean",
    "Verification",
    "assign",
    "conditional_entropy",
    "dual_objective",
    "duality_gap",
    "entropy",
    "entropy_lower_bounds",
    "entropy_terms",
    "imsvd_loss",
    "imsvd_loss_and_gradient",
    "information_objective",
    "joint_distribution",
    "kkt_residual",
    "kl_divergence",
    "mira",
    "music_loss",
    "music_loss_and_gradient",
    "mutual_information",
    "orthogonal_array",
    "primal_objective",
    "sinkhorn",
    "soft_discretize",
    "subset_entropy",
    "total_correlation",
    "transform_invariance",
]
__version__ = "0.1.0"
