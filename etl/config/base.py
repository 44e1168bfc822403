"""What every table of etl.toml is: keys that are known, values that don't change, mistakes said in sentences."""

import json
import re
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

Problem = tuple[tuple[str | int, ...], str]  # the key's path inside the table, and one sentence with the cure


def listed(value: object) -> object:
    """Return one text as a list of it."""
    return (value,) if isinstance(value, str) else value


def key_path(key: Iterable[str | int]) -> str:
    """Return a key's path as TOML writes it; places in lists stand in brackets, from 0."""
    path = ""
    for part in key:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            path += ("." if path else "") + (part if bare else json.dumps(part, ensure_ascii=False))
    return path


Strings = Annotated[tuple[str, ...], BeforeValidator(listed)]


class Model(BaseModel):
    """A frozen table of the configuration that knows only its own keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if found := list(self.problems()):
            raise PydanticCustomError("problems", "has mistakes", {"problems": found})
        return self

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        return ()
