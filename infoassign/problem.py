"""From scores, weights and a prior to what the solver works on."""

from math import log
from typing import Any

import array_api_compat as api

from infoassign.objective import Family
from infoassign.scores import Scores
from infoassign.validation import check_prior
from infoassign_backends.protocol import Sweep


def prepare(scores: Scores, epsilon: float, strength: float, prior: Any, *, check_finite: bool) -> tuple[Family, Sweep]:
    """Prepare validated scores, and the member of the family to solve on them; no prior means equal shares."""
    sweep = scores.prepare(epsilon, check_finite=check_finite)
    like = scores.like
    columns = like.shape[-1]
    if prior is None:
        xp = api.array_namespace(like)
        log_prior = xp.full((columns,), -log(columns), dtype=sweep.vector_dtype, device=api.device(like))
    else:
        log_prior = check_prior(prior, like, sweep.vector_dtype, check_finite=check_finite)
    return Family(epsilon, strength, log_prior), sweep
