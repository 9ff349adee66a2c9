"""What an epoch looked like, gathered step by step."""

from math import exp, log
from typing import Any

import torch
from torch import Tensor

import infoassign as ia
from infoassign_training.engine import ranks
from infoassign_training.methods.method import Step


class Summary:
    """Running means over the steps of an epoch, of this rank; empty before the first step.

    Parameters
    ----------
    labels
        How many labels the method makes; None if it makes none.
    """

    def __init__(self, labels: int | None) -> None:
        self._labels = labels
        self._steps = 0
        self._loss = 0.0
        self._means: dict[str, float] = {}
        self._schedules: dict[str, float] = {}
        self._assignments = 0
        self._information = 0.0
        self._marginal_entropy = 0.0
        self._sweeps = 0.0
        self._converged = 0.0
        self._error = 0.0
        self._marginal = torch.zeros(labels or 0, dtype=torch.float64)
        self._used = torch.zeros(labels or 0, dtype=torch.bool)

    def add(self, step: Step) -> None:
        """Take in one step."""
        self._steps += 1
        self._loss += float(step.loss.detach())
        for name, value in {**step.parts, **step.watched}.items():
            self._means[name] = self._means.get(name, 0.0) + float(value)
        self._schedules.update(step.schedules)
        for assignment in step.assignments:
            self.add_labels(assignment)

    def add_labels(self, assignment: ia.Assignment) -> None:
        """Take in labels, of a batch or of all images; those of heads of other sizes are counted without shares."""
        self._assignments += 1
        self._information += assignment.mutual_information
        self._sweeps += assignment.sweeps
        self._converged += assignment.converged
        self._error = max(self._error, assignment.error_bound)
        marginal: Tensor = assignment.marginal.cpu()
        self._marginal_entropy += float(ia.entropy(marginal))
        if len(marginal) == self._labels:
            self._marginal += marginal
            self._used[assignment.labels.cpu()] = True

    def headline(self) -> dict[str, str]:
        """Return what the progress bar shows."""
        record = self._record()
        shown = {"loss": f"{record['loss']:.3f}"}
        if "loss_over_log_k" in record:
            shown["loss/lnK"] = f"{record['loss_over_log_k']:.3f}"
        if "clusters_used" in record:
            shown["MI"] = f"{record['mutual_information']:.2f}"
            shown["clusters"] = f"{record['clusters_used']}/{self._labels}"
        return shown

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes: numbers, tensors, and dicts of them."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state)

    def record(self) -> dict[str, Any]:
        """Return the epoch's line of the log; all ranks call this together, and get the means over all of them."""
        self.pool()
        return self._record()

    def pool(self) -> None:
        """Take the means over all ranks, which call this together, for one's own."""
        all_sum = ranks.all_sum()
        if all_sum is not None:
            sums = all_sum(torch.tensor([self._loss, *self._means.values(), 1.0], dtype=torch.float64))
            self._loss, *means = (sums[:-1] / sums[-1]).tolist()
            self._means = dict(zip(self._means, means, strict=True))
            self._used = all_sum(self._used.to(torch.int64)) > 0

    def _record(self) -> dict[str, Any]:
        loss = self._loss / self._steps
        record: dict[str, Any] = {"loss": loss}
        if self._labels is not None:
            record["loss_over_log_k"] = loss / log(self._labels)
        record |= {name: value / self._steps for name, value in self._means.items()}
        if self._assignments:
            shares = self._marginal / self._marginal.sum()
            information, entropy = (total / self._assignments for total in (self._information, self._marginal_entropy))
            record |= {
                "mutual_information": information,
                "marginal_entropy": entropy,
                # Information is the marginal entropy less this one, of the rows (MIRA, eq. 2).
                "conditional_entropy": max(0.0, entropy - information),
                "clusters_used": int(self._used.sum()),
                "perplexity": exp(float(ia.entropy(shares))),
                "solver_sweeps": self._sweeps / self._assignments,
                "solver_converged": self._converged / self._assignments,
                "solver_error_bound": self._error,
            }
        return record | self._schedules
