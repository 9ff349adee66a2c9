"""Scores that are the products of features and prototypes, a tile of rows at a time."""

from collections.abc import Iterator
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

import array_api_compat as api
import numpy as np

from infoassign.arrays import constant, in_single, on_host, take_rows
from infoassign.chunked import Extent
from infoassign.files import check_map, touched
from infoassign.scores import ONE_IN, SAMPLE, InChunks
from infoassign.streamed import StreamedScores
from infoassign.validation import check_factors, positive, weight
from infoassign_backends import backend_for
from infoassign_backends.host import slices
from infoassign_backends.protocol import Array, Product, Sweep
from infoassign_backends.sums import widest

PRODUCT = 2**22
"""Entries of a tile; small enough that the allocator gives the same memory again."""


class Factors(NamedTuple):
    """What scores are made of, as given: for torch tensors, with the history that gradients go back to."""

    features: Array
    prototypes: Array
    temperature: Any
    bias: Array | None


class FactoredScores(InChunks):
    """Scores that are the products of features and prototypes, never multiplied out: ``f_i . p_j / temperature + b_j``.

    A tile of rows is multiplied at a time, on every pass. The product has the precision of the features: the scores
    are what it gives, and what it rounds is not in the certificate, as it is not if you multiply yourself.

    Parameters
    ----------
    features
        Shape (B, D), real floating, of any array library; may be memory-mapped.
    prototypes
        Shape (K, D), of the same library, dtype and device.
    temperature
        What divides the products, > 0; for gradients it may be a 0-d torch tensor.
    bias
        Added to every row's scores, shape (K,); ``-inf`` removes a label. Default: none.

    Raises
    ------
    TypeError, ValueError
        If the factors do not fit each other, are empty or not finite, or `temperature` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import infoassign as ia
    >>> random = np.random.default_rng(0)
    >>> features, prototypes = random.normal(size=(1000, 16)), random.normal(size=(8, 16))
    >>> assignment = ia.sinkhorn(ia.FactoredScores(features, prototypes, 4.0), epsilon=0.5)
    >>> dense = ia.sinkhorn(features @ prototypes.T / 4.0, epsilon=0.5)
    >>> assignment.labels.shape, bool((assignment.labels == dense.labels).all())
    ((1000,), True)
    """

    def __init__(self, features: Array, prototypes: Array, temperature: Any = 1.0, bias: Array | None = None) -> None:
        check_factors(features, prototypes, bias)
        self.temperature: float = weight("temperature", temperature, positive, "implicit")[0]
        self.features, self.prototypes, self.bias = constant(features), constant(prototypes), constant(bias)
        self.given = Factors(features, prototypes, temperature, bias)

    @property
    def like(self) -> Array:
        """No row of them: an array of their library, device, dtype and labels, shape (0, K)."""
        xp = api.array_namespace(self.prototypes)
        dtype = self.prototypes.dtype
        return xp.zeros((0, self.prototypes.shape[0]), dtype=dtype, device=api.device(self.prototypes))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.features.shape[0])

    @cached_property
    def extent(self) -> Extent:
        """What is known of the scores from their factors."""
        xp = api.array_namespace(self.prototypes)

        def longest(matrix: Array) -> float:
            parts = (xp.astype(touched(matrix, piece), widest(matrix)) for piece in slices(matrix.shape, PRODUCT))
            norms = [float(xp.max(xp.linalg.vector_norm(part, axis=-1))) for part in parts]
            # A NaN is not to be lost among them.
            return float(np.max(norms, initial=0.0))

        limit = float(xp.finfo(in_single(self.prototypes[:1, :]).dtype).max) / 4
        reach = longest(self.prototypes) / self.temperature
        largest = longest(self.features) * reach
        if not (largest < limit and reach < limit):
            raise ValueError("features and prototypes must be finite, and their products in range")
        span = spread = 2 * largest
        shift = largest
        if self.bias is not None:
            bias = on_host(self.bias)
            finite = bias[np.isfinite(bias)]
            spread += float(np.ptp(finite))
            shift += float(np.abs(finite).max())
            span = spread if len(finite) == len(bias) else inf
        return Extent(self.rows, len(self._tiles), 0.0, shift, span, spread)

    def check(self, *, check_finite: bool) -> None:
        """Look at the factors; that their products are finite follows from it."""
        if check_finite:
            self.extent  # noqa: B018  (says what is wrong)

    def usable(self) -> Array:
        """Return which labels some row may use, shape (K,)."""
        xp = api.array_namespace(self.prototypes)
        if self.bias is None:
            return xp.ones(self.prototypes.shape[:1], dtype=xp.bool, device=api.device(self.prototypes))
        return self.bias > -xp.inf

    def prepare(self, epsilon: float, *, check_finite: bool = False) -> Sweep:
        """Prepare the sweep over them, by tiles if the backend has nothing better."""
        extent = self.extent
        product = Product(self.features, self.prototypes, self.temperature, self.bias, extent.shift, extent.span)
        found = backend_for(self.prototypes).factored(product, epsilon)
        return super().prepare(epsilon) if found is None else found

    def chunks(self) -> Iterator[Array]:
        """Yield the scores, some rows at a time, as they are multiplied out."""
        for tile in self._tiles:
            yield self._product(touched(self.features, tile))

    @property
    def _tiles(self) -> list[slice]:
        """The rows that are multiplied at a time: the same on every pass, so that every pass rounds alike."""
        return slices((self.rows, self.prototypes.shape[0]), PRODUCT)

    @cached_property
    def _scaled_prototypes(self) -> Array:
        """The prototypes over the temperature, shape (D, K), in single precision at least."""
        xp = api.array_namespace(self.prototypes)
        return xp.matrix_transpose(in_single(self.prototypes) / self.temperature)

    def _product(self, features: Array) -> Array:
        product = in_single(features) @ self._scaled_prototypes
        return product if self.bias is None else product + in_single(self.bias)

    def sample(self) -> Array:
        """Return the scores of some rows, drawn at random with a fixed seed."""
        number = min(self.rows // ONE_IN, SAMPLE // self.prototypes.shape[0])
        drawn = np.sort(np.random.default_rng(0).choice(self.rows, size=number, replace=False))
        check_map(self.features)
        return self._product(take_rows(self.features, drawn))

    def in_float64(self) -> StreamedScores:
        """Return the same scores on the host in float64, their products made in float64, too."""
        prototypes = on_host(self.prototypes).T / self.temperature
        bias = 0.0 if self.bias is None else on_host(self.bias)

        def products() -> Iterator[Any]:
            yield np.empty((0, prototypes.shape[1]))
            yield from (on_host(touched(self.features, tile)) @ prototypes + bias for tile in self._tiles)

        return StreamedScores(products)

    def __repr__(self) -> str:
        return f"FactoredScores({self.rows} x {self.prototypes.shape[0]}, {self.prototypes.shape[1]} factors)"
