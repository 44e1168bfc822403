"""What every table of etl.toml is: keys that are known, values that don't change, mistakes said in sentences."""

from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

Problem = tuple[tuple[str | int, ...], str]  # the key's path inside the table, and one sentence with the cure


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
