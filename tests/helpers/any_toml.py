"""Values that a configuration may hold where others are meant."""

import json
from datetime import datetime
from typing import Any

from hypothesis import strategies as st


def toml(value: Any) -> str:
    """Return any value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return value.isoformat() if isinstance(value, datetime) else json.dumps(value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of a value and of each inside of it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-9, 9), st.just(0.5), st.datetimes(), st.sampled_from(["", "claims", "{", "\n"])
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["claims", "type", "a b"]), inner),
    max_leaves=4,
)
