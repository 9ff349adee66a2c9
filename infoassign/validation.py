"""Arguments checked: an error names the argument, what was expected and what came."""

from collections.abc import Callable, Sequence
from math import inf
from numbers import Integral, Real
from typing import Any

import array_api_compat as api
import numpy as np

from infoassign.arrays import bits, constant, in_single
from infoassign_backends import readable
from infoassign_backends.protocol import Array


def real(name: str, value: object) -> float:
    """Return a real argument as a float, or say which one it was not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number; got {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """Return an argument that is a positive finite number."""
    number = real(name, value)
    if not 0 < number < inf:
        raise ValueError(f"{name} must be positive and finite; got {number!r}")
    return number


def not_negative(name: str, value: object) -> float:
    """Return an argument that is a number from 0 to infinity."""
    number = real(name, value)
    if not number >= 0:
        raise ValueError(f"{name} must not be negative; got {number!r}")
    return number


def factor(name: str, value: object) -> float:
    """Return an argument that is a finite number from 0 on."""
    number = not_negative(name, value)
    if number == inf:
        raise ValueError(f"{name} must be finite")
    return number


def weight(name: str, value: Any, check: Callable[[str, object], float], gradient: str) -> tuple[float, Any]:
    """Return a weight as the number that is solved with, and as what is differentiated.

    The second is the number again, or where gradients are asked for a 0-d torch tensor in double precision.
    """
    if gradient != "none" and api.is_torch_array(value) and value.ndim == 0 and value.dtype.is_floating_point:
        return check(name, value.item()), value.cpu().double()
    number = check(name, value)
    return number, number


def count(name: str, value: object, least: int = 1) -> int:
    """Return an argument that is an integer from some on."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
    return int(value)


def check_choice(name: str, value: object, of: tuple[str, ...]) -> None:
    """Say so if an argument is none of some words."""
    if not isinstance(value, str) or value not in of:
        raise ValueError(f"{name} must be {' or '.join(map(repr, of))}; got {value!r}")


def check_array(name: str, array: Any) -> Any:
    """Return the namespace of an array of real numbers, or say what is wrong with it."""
    if not api.is_array_api_obj(array):
        raise TypeError(
            f"{name} must be an array (NumPy, torch, CuPy, JAX, ...); got {type(array).__name__};"
            " convert it first, for instance with numpy.asarray"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array; forbid pairs by -inf, for instance {name}.filled(-numpy.inf)"
        )
    xp = api.array_namespace(array)
    if not 0 < bits(array) <= 64:
        raise TypeError(f"{name} must have a real floating dtype of at most 64 bits; got {array.dtype}")
    return xp


def check_scores(scores: Array, *, check_finite: bool) -> Any:
    """Return the namespace of the scores, or say what is wrong with them."""
    xp = check_array("scores", scores)
    if scores.ndim < 2:
        raise ValueError(
            f"scores must have shape (rows, labels) or (..., rows, labels); got {scores.ndim} dimensions,"
            f" shape {tuple(scores.shape)}"
        )
    if 0 in scores.shape:
        raise ValueError(f"scores must not be empty; got shape {tuple(scores.shape)}")
    if check_finite:
        check_values(scores)
    return xp


def check_values(scores: Array, of: str = "", first_row: int = 0) -> None:
    """Say so if there is a NaN, ``+inf`` or a row without a label; rows are counted from `first_row`."""
    xp = api.array_namespace(scores)
    invalid = xp.isnan(scores) | (scores == xp.inf)
    if bool(xp.any(invalid)):
        index = first(xp, invalid)
        value = "nan" if bool(xp.isnan(scores[index])) else "inf"
        raise ValueError(
            f"scores must not hold NaN or +inf; the first is {value} at row {first_row + index[-2]}, column {index[-1]}"
            + in_problem(index[:-2])
            + of
        )
    without_label = xp.all(scores == -xp.inf, axis=-1)
    if bool(xp.any(without_label)):
        index = first(xp, without_label)
        raise ValueError(
            f"row {first_row + index[-1]} of scores{in_problem(index[:-1])} is all -inf:"
            " every row needs a label that it may use" + of
        )


def check_chunk(number: int, chunk: Array, like: Array | None) -> None:
    """Say so if a chunk of scores is no matrix of real numbers, or not like the chunks before."""
    name = f"chunk {number} of scores"
    check_array(name, chunk)
    if chunk.ndim != 2 or chunk.shape[1] == 0:
        raise ValueError(f"{name} must have shape (rows, labels); got {tuple(chunk.shape)}")
    if like is None:
        return
    check_companion(name, chunk, like, of="the first")
    if chunk.shape[1] != like.shape[1] or chunk.dtype != like.dtype:
        raise ValueError(
            f"{name} must have the {like.shape[1]} labels and the dtype {like.dtype} of the first;"
            f" got {chunk.shape[1]} of {chunk.dtype}"
        )


def check_factors(features: Any, prototypes: Any, bias: Any) -> None:
    """Say so if features, prototypes and bias do not make scores."""
    check_array("features", features)
    check_array("prototypes", prototypes)
    check_companion("prototypes", prototypes, features, of="features")
    for name, matrix in (("features", features), ("prototypes", prototypes)):
        if matrix.ndim != 2 or matrix.shape[1] == 0 or prototypes.shape[0] == 0:
            raise ValueError(f"{name} must be a matrix, not empty; got shape {tuple(matrix.shape)}")
    if features.shape[1] != prototypes.shape[1] or features.dtype != prototypes.dtype:
        raise ValueError(
            "features and prototypes must have as many columns and the same dtype; got"
            f" {features.shape[1]} of {features.dtype} and {prototypes.shape[1]} of {prototypes.dtype}"
        )
    if bias is None:
        return
    check_array("bias", bias)
    check_companion("bias", bias, features, of="features")
    xp = api.array_namespace(bias)
    if tuple(bias.shape) != (prototypes.shape[0],) or bias.dtype != prototypes.dtype:
        raise ValueError(
            f"bias must have shape {(prototypes.shape[0],)} and the dtype {prototypes.dtype} of the prototypes;"
            f" got {tuple(bias.shape)} of {bias.dtype}"
        )
    if bool(xp.any(xp.isnan(bias) | (bias == xp.inf))) or not bool(xp.any(bias > -xp.inf)):
        raise ValueError("bias must be finite, or -inf for labels that are removed, but not for all")


def check_gradient(gradient: object, scores: Any, all_sum: object) -> None:
    """Say so if gradients are asked for in a way that there is none, or of scores that cannot have them."""
    if not isinstance(gradient, str) or gradient not in {"none", "implicit"}:
        raise ValueError(f'gradient must be "none" or "implicit"; got {gradient!r}')
    if gradient == "implicit" and not api.is_torch_array(scores):
        raise TypeError(
            f'gradient="implicit" needs scores that are a torch tensor; got {type(scores).__module__}.'
            f'{type(scores).__name__}; convert them (torch.as_tensor), or leave gradient="none"'
        )
    if gradient == "implicit" and all_sum is not None:
        raise ValueError('gradient="implicit" is for the rows of one process; leave all_sum out, or gradient="none"')


def check_prior(prior: Any, scores: Array, dtype: Any, *, check_finite: bool) -> Array:
    """Return ``log r``, normalised, of a prior that is an array like the scores or a list of numbers."""
    xp, device = api.array_namespace(scores), api.device(scores)
    columns = scores.shape[-1]
    if isinstance(prior, (list, tuple)):
        prior = xp.asarray([real("prior", share) for share in prior], dtype=dtype, device=device)
    check_companion("prior", prior, scores)
    if tuple(prior.shape) not in {(columns,), (*scores.shape[:-2], columns)}:
        raise ValueError(f"prior must have a share for each label, shape {(columns,)}; got shape {tuple(prior.shape)}")
    prior = xp.astype(prior, dtype)
    total = xp.sum(prior, axis=-1, keepdims=True)
    if check_finite:
        wrong = ~(prior > 0)
        if bool(xp.any(wrong)):
            index = first(xp, wrong)
            raise ValueError(
                f"prior must be positive; got {float(prior[index])!r} for label {index[-1]}"
                " (to remove a label, leave its column out, or forbid it to all rows and give a finite strength)"
            )
        # Loose enough for shares given in single precision.
        if not bool(xp.all(xp.abs(total - 1) <= 1e-5)):
            raise ValueError(f"prior must sum to one; got {float(xp.reshape(total, (-1,))[0])!r}; divide it by its sum")
    return xp.log(prior) - xp.log(total)


def check_companion(name: str, array: Any, scores: Array, of: str = "scores") -> None:
    """Say so if an array is not of the library and on the device of the scores, called `of`."""
    if not api.is_array_api_obj(array) or api.array_namespace(array) != api.array_namespace(scores):
        raise TypeError(
            f"{name} must be an array of the same library as {of}, {type(scores).__module__}.{type(scores).__name__};"
            f" got {type(array).__module__}.{type(array).__name__}"
        )
    devices = api.device(array), api.device(scores)
    if None not in devices and devices[0] != devices[1]:  # what is traced by JAX has none yet
        raise ValueError(f"{name} must be on the device of {of}, {api.device(scores)}; got one on {api.device(array)}")
    if not bits(array):
        raise TypeError(f"{name} must have a real floating dtype; got {array.dtype}")


def check_potential(name: str, potential: Any, scores: Array, dtype: Any) -> Array:
    """Return a potential given for all problems or for each, in a dtype and the shape (..., K)."""
    check_companion(name, potential, scores)
    xp = api.array_namespace(scores)
    shape = (*scores.shape[:-2], scores.shape[-1])
    if tuple(potential.shape) not in {shape, shape[-1:]}:
        raise ValueError(f"{name} must have a value for each label, shape {shape[-1:]}; got {tuple(potential.shape)}")
    return xp.astype(potential, dtype) + xp.zeros(shape, dtype=dtype, device=api.device(scores))


def first(xp: Any, mask: Array) -> tuple[int, ...]:
    """Return the index of the first true entry of an array that has one."""
    flat = int(xp.argmax(xp.astype(xp.reshape(mask, (-1,)), xp.int32)))
    return tuple(int(i) for i in np.unravel_index(flat, mask.shape))


def in_problem(index: tuple[int, ...]) -> str:
    """Name a problem of a batch; nothing for a single one."""
    return f" of problem {index}" if index else ""


def check_temperature(temperature: object, z: Array) -> float:
    """Return a temperature that is positive in the dtype that embeddings are computed with."""
    number = positive("temperature", temperature)
    least = float(api.array_namespace(z).finfo(in_single(z[:0, :0]).dtype).smallest_normal)
    if number < least:
        raise ValueError(f"temperature must be at least {least}; got {number!r}")
    return number


def check_embedding(name: str, z: Any, *, empty: bool = False) -> int:
    """Return the width of a matrix of real numbers, or say what is wrong with its shape or dtype."""
    if isinstance(z, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array; leave masked rows out, or fill it")
    check_array(name, z)
    if z.ndim != 2 or z.shape[1] == 0 or (z.shape[0] == 0 and not empty):
        raise ValueError(f"{name} must have shape (rows, units), not empty; got {tuple(z.shape)}")
    return int(z.shape[1])


def check_logits(name: str, z: Array, temperature: float = 1.0) -> None:
    """Say so if an embedding on the host is not finite, or so large that a loss could be out of range."""
    if not readable(z) or 0 in z.shape:
        return
    xp, values = api.array_namespace(z), constant(z)
    limit = float(xp.finfo(in_single(values[:1, :1]).dtype).max) ** 0.5 * min(temperature, 1.0)
    usable = xp.abs(values) <= limit
    if not bool(xp.all(usable)):
        row, column = first(xp, ~usable)
        raise ValueError(
            f"{name} must be finite, and below {limit:.1e}; the first that is not is"
            f" {float(values[row, column])!r} at row {row}, column {column}"
        )


def check_like(name: str, array: Any, of: str, other: Array, *, shape: tuple[int, ...]) -> None:
    """Say so if an array is not of the library, device, dtype and shape that go with another."""
    check_companion(name, array, other, of=of)
    if array.dtype != other.dtype:
        raise TypeError(f"{name} must have the dtype of {of}, {other.dtype}; got {array.dtype}; convert one of them")
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, to go with {of}; got {tuple(array.shape)}")


def check_units(name: str, units: Any, width: int) -> tuple[int, ...]:
    """Return the sizes of segments, given as one for all or as all, or say so if they do not cut a width."""
    if not isinstance(units, Sequence | np.ndarray):
        size = count(name, units)
        if width % size:
            raise ValueError(
                f"{name} must divide the width of the embeddings, {width}; got {size}"
                " (for segments that differ in size, give a list of their sizes)"
            )
        return (size,) * (width // size)
    sizes = check_sizes(name, units)
    if sum(sizes) != width:
        raise ValueError(f"{name} must sum to the width of the embeddings, {width}; got {sum(sizes)} in all")
    return sizes


def check_sizes(name: str, units: Any) -> tuple[int, ...]:
    """Return the sizes of all segments, or say so if they are none."""
    if not isinstance(units, Sequence | np.ndarray):
        raise TypeError(f"{name} must be a list of the sizes of all segments; got {units!r}")
    if len(units) == 0:
        raise ValueError(f"{name} must hold the size of a segment; got none")
    return tuple(count(name, size) for size in units)


def check_distributions(name: str, q: Array, sums: Callable[[Array], Array]) -> None:
    """Say so if soft codes on the host hold no distribution in each segment, as far as their precision can tell."""
    if not readable(q):
        return
    xp, values = api.array_namespace(q), in_single(constant(q))
    tolerance = 1e-3 if xp.finfo(q.dtype).bits > 16 else 5e-2
    totals = sums(values)
    if not (bool(xp.all(values >= 0)) and bool(xp.all(xp.abs(totals - 1) <= tolerance))):
        raise ValueError(
            f"{name} must hold a distribution in every segment: not negative, summing to one;"
            " soft_discretize makes such codes of embeddings"
        )


def check_gathered(parts: Any, mine: Array) -> list[Array]:
    """Return what a gather brought together, or say so if it is no list of the rows of every rank."""
    if not isinstance(parts, (list, tuple)) or not parts:
        raise TypeError(f"all_gather must return a list with the rows of every rank; got {type(parts).__name__}")
    for rank, part in enumerate(parts):
        name = f"what all_gather returned of rank {rank}"
        check_array(name, part)
        check_like(name, part, "this rank's rows", mine, shape=(*part.shape[:1], *mine.shape[1:]))
    total = sum(part.shape[0] for part in parts)
    if total < max(mine.shape[0], 1):
        here = mine.shape[0]
        raise ValueError(f"all_gather must return the rows of every rank; got {total} in all, this one has {here}")
    return list(parts)
