"""What settings check themselves with when they are made."""

from math import isfinite


def require(condition: bool, message: str) -> None:
    """Raise ValueError with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def require_positive(settings: object, section: str, *names: str) -> None:
    """Raise ValueError unless these fields of some settings are positive and finite."""
    for name in names:
        value = getattr(settings, name)
        require(isfinite(value) and value > 0, f"{section}.{name} must be positive and finite; got {value}")


def require_not_negative(settings: object, section: str, *names: str) -> None:
    """Raise ValueError unless these fields of some settings are finite and not negative."""
    for name in names:
        value = getattr(settings, name)
        require(isfinite(value) and value >= 0, f"{section}.{name} must be finite and not negative; got {value}")
