"""Numbers and lists in sentences."""

from collections.abc import Iterable


def count(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def span(values: Iterable[float], digits: int = 2) -> str:
    """`low to high`, or one number where both print alike."""
    low, high = (f"{end(values):.{digits}f}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def p_value(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
