"""How many examples hypothesis takes."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return how many examples a test takes: the number given with --all, two fifths of it in CI.

    With --long it is twenty times the number, without either a fifth of it, at least three.
    """
    return max(3, number * settings().max_examples // 100)
