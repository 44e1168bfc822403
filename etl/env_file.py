"""Reading a `.env`, by the rules of python-dotenv; a mistake is an error that has the line and no value."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from etl.errors import ConfigError


def read(file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a `.env` sets; nothing where there is none.

    Args:
        environ: Where `${NAME}` in a value is looked for, before the lines above it.

    Raises:
        ConfigError: It can't be read, or has a mistake.
    """
    text = _text(file)
    if not text:
        return {}
    from dotenv.parser import parse_stream
    from dotenv.variables import Variable, parse_variables

    newline = "\n" if "\n" in text else "\r"
    found: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        name, value, (source, line) = binding.key, binding.value, binding.original
        blank = source[: len(source) - len(source.lstrip())]  # empty lines before it belong to it
        where = f"{file}, line {line + blank.count(newline)}"
        if binding.error or "\0" in source or (name and (value is None or "=" in name)):
            raise ConfigError(
                f"{where}: this is not NAME=value", 'a value with quotes or line breaks is written "value"'
            )
        if name is None or value is None:  # a comment
            continue
        parts, known = list(parse_variables(value)), {**found, **environ}
        for part in parts:
            if isinstance(part, Variable) and part.default is None and part.name not in known:
                raise ConfigError(
                    f"{where}: ${{{part.name}}} is not set", f"set it above, or write ${{{part.name}:-value}}"
                )
        found[name] = "".join(part.resolve(known) for part in parts)
    return found


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes() if file.is_file() else b""
        return raw.decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{file} can't be read: {exc.strerror}", "let this user read it, or remove it") from None
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise ConfigError(f"{file}, line {line}: this is not UTF-8", "save the file as UTF-8") from None
