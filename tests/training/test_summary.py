"""The lines of the log, from assignments with known answers."""

import math

import numpy as np
import pytest
import torch

import infoassign as ia
from infoassign_training.engine.summary import Summary
from infoassign_training.methods.method import Step


def hard(labels: list[int]) -> ia.Assignment:
    """Labels that are certain: sharp scores, beta 0."""
    return ia.mira(torch.from_numpy(100 * np.eye(4)[labels]), beta=0)


def test_record() -> None:
    summary = Summary(4)
    summary.add(Step(torch.tensor(1.0), (hard([0, 1]), hard([0, 0])), watched={"agreement": torch.tensor(0.5)}))
    summary.add(Step(torch.tensor(3.0), (hard([1, 1]), hard([0, 1])), watched={"agreement": torch.tensor(1.0)}))
    record = summary.record()
    assert record["loss"] == 2
    assert record["loss_over_log_k"] == pytest.approx(2 / math.log(4))
    # Two of the four assignments tell their rows apart (ln 2), two tell nothing.
    assert record["mutual_information"] == pytest.approx(math.log(2) / 2)
    # What is certain has no entropy left once the image is known.
    assert record["marginal_entropy"] == pytest.approx(math.log(2) / 2)
    assert record["conditional_entropy"] == pytest.approx(0, abs=1e-12)
    assert record["agreement"] == 0.75
    assert record["clusters_used"] == 2
    assert record["perplexity"] == pytest.approx(2)
    assert record["solver_sweeps"] == 1
    assert record["solver_converged"] == 1
    assert summary.headline() == {"loss": "2.000", "loss/lnK": "1.443", "MI": "0.35", "clusters": "2/4"}


def test_entropies_of_labels_that_say_nothing() -> None:
    summary = Summary(4)
    summary.add(Step(torch.tensor(1.0), (ia.mira(torch.zeros(8, 4), beta=0),)))
    record = summary.record()
    assert record["marginal_entropy"] == pytest.approx(math.log(4))
    assert record["conditional_entropy"] == pytest.approx(math.log(4))
    assert record["mutual_information"] == pytest.approx(0, abs=1e-6)
