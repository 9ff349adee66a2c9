"""From scores, weights and a prior to what the solver works on."""

from math import log
from typing import Any

import array_api_compat as api

from infoassign.objective import Family
from infoassign.validation import check_prior
from infoassign_backends import backend_for
from infoassign_backends.protocol import Array, Sweep


def prepare(scores: Array, epsilon: float, strength: float, prior: Any, *, check_finite: bool) -> tuple[Family, Sweep]:
    """Prepare validated scores, and the member of the family to solve on them; no prior means equal shares."""
    sweep = backend_for(scores).prepare(scores, epsilon)
    columns = scores.shape[-1]
    if prior is None:
        xp = api.array_namespace(scores)
        log_prior = xp.full((columns,), -log(columns), dtype=sweep.vector_dtype, device=api.device(scores))
    else:
        log_prior = check_prior(prior, scores, sweep.vector_dtype, check_finite=check_finite)
    return Family(epsilon, strength, log_prior), sweep
