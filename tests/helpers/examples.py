"""How many examples hypothesis takes."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return how many examples a test takes: the number given with --all (half of it in CI), twenty times with --long.

    Without either a fifth of it, at least three.
    """
    return max(3, number * settings().max_examples // 100)
