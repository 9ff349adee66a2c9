"""What an epoch looked like, gathered step by step."""

from math import exp, log
from typing import Any

import torch

import infoassign as ia
from infoassign_training.methods.mira import Step


class Summary:
    """Running means over the steps of an epoch; empty before the first step."""

    def __init__(self, prototypes: int) -> None:
        self._log_k = log(prototypes)
        self._steps = 0
        self._loss = 0.0
        self._assignments = 0
        self._information = 0.0
        self._sweeps = 0
        self._converged = 0
        self._error_bound = 0.0
        self._marginal = torch.zeros(prototypes, dtype=torch.float64)
        self._used = torch.zeros(prototypes, dtype=torch.bool)

    def add(self, step: Step) -> None:
        """Take in one step."""
        self._steps += 1
        self._loss += float(step.loss.detach())
        for assignment in step.assignments:
            self._assignments += 1
            self._information += assignment.mutual_information
            self._sweeps += assignment.sweeps
            self._converged += assignment.converged
            self._error_bound = max(self._error_bound, assignment.error_bound)
            self._marginal += assignment.marginal
            self._used[assignment.labels] = True

    def headline(self) -> dict[str, str]:
        """Return what the progress bar shows."""
        record = self.record()
        return {
            "loss": f"{record['loss']:.3f}",
            "loss/lnK": f"{record['loss_over_log_k']:.3f}",
            "MI": f"{record['mutual_information']:.2f}",
            "clusters": f"{record['clusters_used']}/{len(self._used)}",
        }

    def record(self) -> dict[str, Any]:
        """Return the epoch's line of the log, so far."""
        return {
            "loss": self._loss / self._steps,
            "loss_over_log_k": self._loss / self._steps / self._log_k,
            "mutual_information": self._information / self._assignments,
            "clusters_used": int(self._used.sum()),
            "perplexity": exp(float(ia.entropy(self._marginal / self._assignments))),
            "solver_sweeps": self._sweeps / self._assignments,
            "solver_converged": self._converged / self._assignments,
            "solver_error_bound": self._error_bound,
        }
