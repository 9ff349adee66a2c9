"""What goes wrong in training without an error, told from the log and the settings, with what to do about it."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from infoassign_training.config import Pretraining
from infoassign_training.methods.settings import Mira, Swav

AFTER = 0.3
"""Share of the epochs (at least 10) after which labels without information are no longer a beginning."""
PLATEAU = 0.02
"""Share of ln K that a loss may be from it and still count as there."""
INFORMATION = 0.1
"""Nats below which labels tell images hardly apart."""
RANK = 1.5
"""Effective rank of the features below which they are a line."""
STD = 0.02
"""Standard deviation of the outputs' directions below which all images have the same: a cosine above .9996."""

Record = Mapping[str, Any]
"""A line of the log."""


def beforehand(settings: Pretraining) -> list[str]:
    """Return warnings, with advice, of what is known before the first step."""
    method = settings.method
    if not isinstance(method, Mira | Swav):
        return []
    queue = method.queue if isinstance(method, Swav) else 0
    rows = settings.batch_size + queue
    if method.prototypes <= rows:
        return []
    batch = f"a batch of {settings.batch_size} images" + (f" and a queue of {queue}" if queue else "")
    finding = (
        f"{batch} cannot fill {method.prototypes} prototypes: its labels carry at most ln {rows} = {log(rows):.2f} nats"
    )
    if isinstance(method, Swav):
        advice = (
            "and even shares spread every image over several prototypes. Take fewer (--method.prototypes),"
            " larger batches (--batch-size) or a queue (--method.queue)."
        )
    else:
        advice = (
            "of the information that is to be maximised. MIRA's own batches of 512 have 3000; should the loss stay at"
            " ln K, take fewer (--method.prototypes) or larger batches (--batch-size)."
        )
    return [f"{finding}, {advice}"]


def alarms(record: Record, settings: Pretraining) -> dict[str, str]:
    """Return what is wrong with a line of the log, as warnings with advice.

    Parameters
    ----------
    record
        The line; what it does not have sets nothing off.
    settings
        Of the run.

    Returns
    -------
    dict
        The warnings, by a word for each kind: plateau, information, clusters, features.
    """
    method = settings.method
    found = {}
    loss, information = record.get("loss_over_log_k"), record.get("mutual_information")
    if loss is not None and abs(loss - 1) <= PLATEAU:
        found["plateau"] = "the loss is still ln K: all labels are predicted alike"
    elif information is not None and information < INFORMATION:
        found["information"] = f"the labels carry {information:.2g} nats: all images are labelled nearly alike" + (
            f" (loss / ln K is {loss:.2f})" if loss is not None else ""
        )
    elif record.get("clusters_used") == 1:
        found["clusters"] = "one label is the likeliest of all images"
    found = {kind: f"{finding}. {method.advice}".rstrip() for kind, finding in found.items()}
    # Labels that are all alike make outputs so, and what helps is the same. A classifier of two classes may rightly
    # end with features on a line.
    if not found and not method.supervised:
        found |= _collapsed(record, settings)
    return {kind: f"after {record['epoch']} epochs {text}" for kind, text in found.items()}


def _collapsed(record: Record, settings: Pretraining) -> dict[str, str]:
    rank, std = record.get("feature_rank"), record.get("output_std")
    if std is not None and std < STD:
        finding = (
            f"the network collapsed: its outputs have the same direction for all images (standard deviation {std:.2g})"
        )
    elif rank is not None and rank < RANK:
        finding = f"the features collapsed: they lie on a line (effective rank {rank:.2g})"
    else:
        return {}
    rate = f"Lower --optimizer.learning-rate (now {settings.optimizer.learning_rate:g}) and start anew (--overwrite)."
    return {"features": f"{finding}. {rate} {settings.method.advice}".rstrip()}


def due(records: Sequence[Record], settings: Pretraining) -> list[str]:
    """Return the warnings that the last line of the log gives rise to, each kind once in a run.

    Parameters
    ----------
    records
        The log, to its last line; the beginning of training gives none.
    settings
        Of the run.
    """
    start = max(10, round(AFTER * settings.epochs))
    late = [record for record in records if record["epoch"] >= start]
    if not late or late[-1] is not records[-1]:
        return []
    said = {kind for record in late[:-1] for kind in alarms(record, settings)}
    return [text for kind, text in alarms(late[-1], settings).items() if kind not in said]
