"""How many examples and steps a test takes: as many as there is time for."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return how many examples a test takes: the number given with --all, two fifths of it in CI.

    With --long it is twenty times the number, without either a fifth of it, at least three.
    """
    return max(3, number * settings().max_examples // 100)


def stride() -> int:
    """Return how far apart the steps are before which a test has something happen: 1 with --all, 2 in CI, else 5."""
    return max(1, 100 // settings().max_examples)
