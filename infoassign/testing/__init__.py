"""Test an implementation of your own: hypothesis strategies, laws that it must keep, and proofs about single answers.

:mod:`~infoassign.testing.strategies` makes scores, plans, codes and problems with known answers;
:mod:`~infoassign.testing.laws` takes any solver or loss; :func:`~infoassign.testing.rigorous.certify` encloses a
duality gap in interval arithmetic.
Needs the extra ``testing`` (``pip install infoassign[testing]``). Statements such as A4 are those of the theory in the
documentation.
"""

try:
    from infoassign.testing import laws, strategies
except ModuleNotFoundError as missing:
    if str(missing.name).partition(".")[0] != "hypothesis":
        raise
    raise ImportError(
        "infoassign.testing needs hypothesis; install it with: pip install infoassign[testing]"
    ) from missing
from infoassign.testing.problems import Codes, Problem, Transport
from infoassign.testing.rigorous import Enclosure, certify, certify_error_bound

__all__ = [
    "Codes",
    "Enclosure",
    "Problem",
    "Transport",
    "certify",
    "certify_error_bound",
    "laws",
    "strategies",
]
