"""Objects as JSON has them, as columns that hold their values exactly; floats come as bytes, the digits as written."""

import json
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.columns import named, points
from etl.config.pipeline import Pipeline
from etl.config.values import header_key
from etl.types.spelling import as_text

DEEPEST = 100  # levels of what is nested
Objects = list[dict[str, Any]]


def columns_of(objects: Objects, pipeline: Pipeline) -> dict[str, pa.Array]:
    """Return the objects' columns, in the types null, bool, int64, float64 and string.

    Raises:
        RecursionError: A value is nested too deep.
        ValueError: Its keys are wrong, or a text holds half a surrogate pair.
    """
    columns = _columns(objects)
    declared = {header: pipeline.columns.get(name) for header, name in named(columns, pipeline).items()}
    exact = {header for header, each in declared.items() if each and each.type == "decimal"}
    marks = points(columns, pipeline)
    return {header: _array(values, marks.get(header, "."), header in exact) for header, values in columns.items()}


def _columns(objects: Objects) -> dict[str, Sequence[Any]]:
    """Return the values of each key; keys that differ by case and blanks around them are one, spelled as the first."""
    shapes = dict.fromkeys(map(tuple, objects))
    if any(map(wrong_keys, shapes)):
        raise ValueError
    if len(shapes) == 1:
        [shape] = shapes
        values = zip(*map(dict.values, objects), strict=True)
        return dict(zip((key.strip() for key in shape), values, strict=True))
    spellings: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for shape in shapes for key in shape):
        spellings.setdefault(header_key(key), []).append(key)
    columns: dict[str, Sequence[Any]] = {}
    for keys in spellings.values():
        found = [each.get(keys[0]) for each in objects]
        for key in keys[1:]:
            found = [each.get(key) if value is None else value for each, value in zip(objects, found, strict=True)]
        columns[keys[0].strip()] = found
    return columns


@lru_cache(4096)
def wrong_keys(keys: tuple[str, ...]) -> str:
    """Return why an object with these keys is no row, or nothing."""
    names = [header_key(key) for key in keys]
    if "" in names or "_row" in names:
        return "has a key without a name" if "" in names else "has a key _row"
    return "has keys that are the same without case and blanks" if len(set(names)) < len(names) else ""


def _array(values: Sequence[Any], mark: str, exact: bool) -> pa.Array:
    """Return a column in the type that holds its values exactly: null, bool, int64, float64 or string.

    Args:
        mark: The decimal mark of numbers that become text.
        exact: Whether numbers stay as they are written, digit by digit.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int, bytes} and kinds and not exact:
        found = _numbers(values, kinds)
        if found is not None:
            return found
    elif kinds <= {str}:
        return pa.array(values, pa.string()) if kinds else pa.nulls(len(values))
    elif kinds == {bool}:
        return pa.array(values, pa.bool_())
    digits = _spelled({value for value in values if type(value) is bytes}, mark, exact)
    return pa.array([None if value is None else _text(value, digits) for value in values], pa.string())


def _numbers(values: Sequence[Any], kinds: set[type]) -> pa.Array | None:
    """Return numbers as int64, or as float64 if they are the same then; else None."""
    if kinds == {int}:
        try:
            return pa.array(values, pa.int64())
        except (OverflowError, pa.ArrowInvalid):
            return None
    digits = [b"%d" % value if type(value) is int else value for value in values] if int in kinds else values
    text = pa.array(digits, pa.string())
    floats = text.cast(pa.float64())
    # Up to 15 digits a float keeps, unless the number is out of its reach; whatever is longer is compared.
    doubtful = pc.or_(pc.greater(pc.binary_length(text), 15), pc.invert(pc.is_finite(floats)))
    small = pc.less(pc.abs(floats), 1e-290)
    if pc.any(small).as_py():
        doubtful = pc.or_(doubtful, pc.and_(small, pc.match_substring_regex(text, "[eE]")))
    if pc.any(doubtful).as_py():
        asked, kept = text.filter(doubtful), floats.filter(doubtful)
        other = pc.not_equal(kept.cast(pa.string()), asked)
        pairs = zip(asked.filter(other).to_pylist(), kept.filter(other).to_pylist(), strict=True)
        if not all(Decimal(repr(number)) == Decimal(token) for token, number in pairs):
            return None
    return floats


def _text(value: Any, digits: dict[bytes, str]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return digits[value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _nested(value)


def _nested(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # it has a float, which is bytes
        return _json(value)


def _spelled(numbers: set[bytes], mark: str, exact: bool) -> dict[bytes, str]:
    """Return numbers as text: as a column of floats spells them, digit by digit where that is asked or needed."""
    if exact:
        return {number: _plain(number.decode()).replace(".", mark) for number in numbers}
    found = {number: _numbers([number], {bytes}) for number in numbers}
    same = [number for number, floats in found.items() if floats is not None]
    texts = as_text(pa.chunked_array([found[number] for number in same], pa.float64()), mark).to_pylist()
    return {number: number.decode().replace(".", mark) for number in numbers} | dict(zip(same, texts, strict=True))


def _plain(number: str) -> str:
    exact = Decimal(number) if "e" in number.lower() else None
    return number if exact is None or abs(exact.adjusted()) > 400 else format(exact, "f")


def _json(value: Any, depth: int = 0) -> str:
    """Return what is nested as JSON, numbers as they are written.

    Raises:
        RecursionError: It is nested too deep.
    """
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        items = (f"{json.dumps(key, ensure_ascii=False)}: {_json(item, depth + 1)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_json(item, depth + 1) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
