"""``infoassign label``: pseudo-labels of scores, features or images."""

import sys
from typing import Annotated, Any

import tyro

from infoassign_training.errors import UserError
from infoassign_training.labelling.options import Options


def label(source: tyro.conf.Positional[str], options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Label scores, features, or images by a trained model; all rows together, and with a certificate.

    Args:
        source: A matrix in a file .npy or .safetensors, which may be bigger than memory: scores (N, K), larger for
            likelier labels, or with --prototypes or --clusters features (N, D). With --checkpoint, images: a folder,
            KIND:WHERE as for `pretrain --data`, or digits.
    """
    from infoassign import ScoresChangedError
    from infoassign_training.labelling import pipeline

    try:
        said = pipeline.label(source, options)
    except (ValueError, ScoresChangedError) as error:
        raise UserError(f"{source}: {error}") from error
    sys.stdout.write(f"{table(said)}\n\nLabels: {options.out / 'labels.npy'}\n")


def table(said: dict[str, Any]) -> str:
    """Lay out a certificate as text.

    Examples
    --------
    >>> print(table({"made": "argmax", "rows": 3, "labels": 2, "perplexity": 1.5}))
    made                argmax
    rows                3
    labels              2
    perplexity          1.5
    """
    shown = ("made", "rows", "labels", "status", "error_bound", "marginal_error", "gap", "sweeps", "objective")
    facts = {name: said[name] for name in (*shown, "mutual_information", "perplexity") if name in said}
    hard = said.get("hard_labels", {})
    if hard:
        rows = f"{hard['smallest']} to {hard['largest']} rows each"
        facts["hard labels"] = f"{hard['kind']}; {hard['used']} in use, {rows}"
    lines = [f"{name.replace('_', ' '):<20}{_shown(value)}" for name, value in facts.items()]
    earlier = said.get("earlier", {})
    if "status" in earlier:
        lines.append(
            f"{'the potential':<20}{earlier['status']}, of {earlier['rows']} rows. {earlier.get('advice', '')}"
        )
    return "\n".join([*lines, *([said["advice"]] if "advice" in said else [])])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
