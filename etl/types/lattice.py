"""Which type holds the values of several: the lattice of the pipeline's types.

A column's *candidates* are the types that hold each of its values exactly. Those of many rows are what the candidates
of each piece have in common, so neither order nor cut matters; the type is the first that is left.
"""

from collections.abc import Collection, Iterable, Mapping

from etl.types.words import TYPES, WORDS

DOUBLE = "double"  # no type of its own: a float has each of the values, so decimals kept as floats hold them too
KINDS = (*WORDS, DOUBLE)
EMPTY = "null"  # the word of a column that has had no value yet


def merge_candidates(many: Iterable[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """Return the types that fit in every chunk; the chunks' order doesn't matter, nor how rows are cut into them."""
    merged: dict[str, list[str]] = {}
    for each in many:
        for name, kinds in each.items():
            merged[name] = _common(merged[name], kinds) if name in merged else list(kinds)
    return merged


def decide(
    candidates: Mapping[str, list[str]], existing: Mapping[str, str] | None = None, *, exact: bool = True
) -> dict[str, str]:
    """Return the type of each column: the narrowest that fits, and `EMPTY` where there was no value.

    Args:
        existing: Types that columns have in the target already; a column keeps its own where that fits, so that a
            run with whole numbers only still fits a table of fractions.
        exact: Whether the target keeps each digit of a decimal.
    """
    there = existing or {}
    return {name: choose(kinds, there.get(name, EMPTY), exact=exact) for name, kinds in candidates.items()}


def choose(kinds: Collection[str], there: str = EMPTY, *, exact: bool = True) -> str:
    """Return the type of one column by its candidates, `there` if it is one of them; see `decide`."""
    if is_held(kinds, there, exact=exact):
        return there
    if there in WORDS:
        kinds = meet(kinds, fixed(there))
    if is_empty(kinds):
        return EMPTY
    usable = (kind for kind in kinds if kind != DOUBLE and is_held(kinds, kind, exact=exact))
    return next(usable, "string")


def is_held(kinds: Collection[str], there: str, *, exact: bool) -> bool:
    """Whether a column of a type keeps each value that has these candidates; see `decide`."""
    return there in kinds and (there != "decimal" or exact or DOUBLE in kinds)


def of_key(kinds: list[str], there: str = EMPTY) -> list[str]:
    """Return the candidates of a key that nobody declared: those whose values are spelled in one way only.

    `1.10` and `1.1` may be two keys; and where such a column becomes text later, each key must still be found.

    Args:
        there: The type that the column has in the target already.
    """
    if is_empty(kinds) or there in kinds:
        return kinds
    return [kind for kind in kinds if kind in ("integer", "date", "string")]


def is_empty(kinds: Collection[str]) -> bool:
    """Whether candidates are those of a column without any value."""
    return set(KINDS) <= set(kinds)


def meet(kinds: Iterable[str], wider: Collection[str]) -> list[str]:
    """Return the candidates that are among those of a table's column too."""
    return [kind for kind in kinds if kind in wider]


def fixed(word: str) -> list[str]:
    """Return the candidates of a type's values before anybody has looked at them."""
    wider = ("decimal",) if word == "number" else TYPES[word].wider
    return [*dict.fromkeys((word, *wider, "string", DOUBLE))]


def _common(one: list[str], other: list[str]) -> list[str]:
    found = [kind for kind in KINDS if kind in one and kind in other]
    if one[:1] == ["string"] or other[:1] == ["string"]:
        found.sort(key=lambda kind: kind != "string")
    # Of two columns without values the one of a source with types is not known to be text.
    return found if not (is_empty(one) and is_empty(other)) else list(KINDS)
