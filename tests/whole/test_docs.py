"""What the documents say is so: names, tables and links here; that their commands run is in test_docs_run.py."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import click
import pytest
from pydantic import TypeAdapter

import cli
from etl.config.base import Model
from etl.config.delivery import Delivery
from etl.config.kinds import KINDS, config_of
from etl.config.models import Alerts, Column, Expect, Load, Step, Target
from etl.config.pipeline import Client, Config, Definition, Pipeline, Schedule, Settings
from etl.config.spellings import Spellings
from tests.helpers.markdown import DOCS, README, REFERENCE, anchors, blocks, links, prose, rows, section
from tests.helpers.processes import ROOT

TABLES: dict[str, type[Model]] = {  # headings of docs/reference/etl-toml.md, and the model whose keys stand there
    "`[settings]`": Settings,
    "`[targets.<name>]`": Target,
    "`[pipelines.<name>]`": Definition,
    **{f"extract, type = {kind}": config_of(kind) for kind in KINDS},
    "transform": Step,
    "delivery": Delivery,
    "expect": Expect,
    "load": Load,
    "columns": Column,
    "spellings": Spellings,
    "`[clients.<name>]`, `[defaults]`": Client,
    "schedule": Schedule,
    "alerts": Alerts,
}
UNWRITTEN = {Config, Pipeline}  # made by us; their parts are in the tables
OURSELVES = {Target: {"name"}, Client: {"name"}}  # keys that are the table's own name
COMMON = {"config", "redis", "json"}


# --- links and words ---


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """To a file that is there, and to a heading in it."""
    for link in links(document):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_no_machine_of_ours_and_no_package_index_is_named(document: Path) -> None:
    """A reader has neither."""
    text = document.read_text(encoding="utf-8")
    assert not re.search(r"pypi\.org|pythonhosted|/(?:work|root)/|/home/\w", text)


def test_the_words_are_those_of_the_glossary() -> None:
    """One word for one thing: each is explained, and none has another name."""
    explained = {
        word.strip() for row in rows(section(ROOT / "docs" / "glossary.md", "# Glossary")) for word in row[0].split(",")
    }
    wanted = "client pipeline source target run window partition stage lane chunk staging reject receipt ledger "
    wanted += "cursor schedule due lookup"
    assert set(wanted.split()) <= explained
    text = prose(README).lower()
    for other in ("tenant", "customer", "task ", "dead letter", "quarantine", "shard", " dag ", "workflow"):
        assert other not in text, other


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A new kind would be passed over in silence."""
    for document in DOCS:
        for block in blocks(document):
            assert block.language in ("", "sh", "console", "toml", "python", "json", "ini"), str(block)
            assert block.key in ("", "not run", "until", "file", "with", "shape"), str(block)
            if block.language == "json":
                json.loads(block.text)
            if block.language == "python":
                compile(block.text, str(block), "exec")
            if block.language == "toml":
                tomllib.loads(block.text)


# --- the command line ---


def commands(group: click.Group, before: str = "rq-etl") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{before} {name}", command


def test_every_command_and_option_is_in_the_reference_and_nothing_else() -> None:
    """What the command line has is what the reference says."""
    written: dict[str, set[str]] = {}
    arguments: dict[str, int] = {}
    name = ""
    text = section(REFERENCE / "commands.md", "# Reference: commands")
    for command, option, what in rows(text[text.index("| command |") :]):
        if command:
            words = command.strip("`").split(" ")
            name = " ".join(word for word in words if word == "rq-etl" or word.islower())
            written[name] = set()
            arguments[name] = len([word for word in words if word.isupper() or word.startswith("[")])
        if option:
            written[name].add(option.strip("`").split(" ")[0])
        assert what, (command, option)
    there, counts = {}, {}
    for full, known in commands(cli.cli):
        options = [each for each in known.params if isinstance(each, click.Option) and each.name not in COMMON]
        there[full] = {each.opts[0] for each in options}
        counts[full] = sum(isinstance(each, click.Argument) for each in known.params)
    assert written == there
    assert arguments == counts


def test_every_command_has_the_options_that_all_have() -> None:
    """So the reference says it once."""
    for name, command in commands(cli.cli):
        assert {param.name for param in command.params} >= COMMON, name


# --- the configuration ---


def models(model: type[Model] = Model) -> set[type[Model]]:
    """Return every table that etl.toml may have: the models that no other is made of."""
    parts = [each for each in model.__subclasses__() if each not in UNWRITTEN and each.__module__.startswith("etl.")]
    return set().union(*(models(each) or {each} for each in parts))


def test_every_table_of_the_configuration_has_its_place() -> None:
    """A new model needs a heading in the reference, and a line in TABLES above."""
    assert set(TABLES.values()) == {*models(), Spellings}  # the keys of several tables, said once


@pytest.mark.parametrize(("heading", "model"), TABLES.items())
def test_every_key_is_in_the_reference_with_its_default_and_an_example_that_is_valid(
    heading: str, model: type[Model]
) -> None:
    """And no key that is not there."""
    table = {row[0].strip("`"): row[1:] for row in rows(section(REFERENCE / "etl-toml.md", f"## {heading}"))}
    elsewhere = set(OURSELVES.get(model, ())) | (set(Spellings.model_fields) if model is not Spellings else set())
    fields = {field.alias or name: field for name, field in model.model_fields.items() if name not in elsewhere}
    assert set(table) == set(fields)
    for key, field in fields.items():
        kind, default, example, what = table[key]
        assert kind, key
        assert what, key
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, "", *field.metadata])  # type: ignore[arg-type]
        adapter.validate_python(value(example))
        if default == "—":
            assert field.is_required() or key == "type", key
        elif default == "none":
            assert field.get_default() is None, key
        elif default != "all":  # every pipeline there is
            assert adapter.validate_python(value(default)) == field.get_default(call_default_factory=True), key


def value(cell: str) -> Any:
    """Return the TOML value that a cell holds."""
    return tomllib.loads(f"value = {cell.strip('`')}")["value"]


# --- the rest of the reference ---


def test_every_variable_that_is_read_is_in_the_reference() -> None:
    """The environment has one reader: jobs/settings.py."""
    read = set(re.findall(r'"((?:ETL|REDIS|RQ)_[A-Z_]+)"', (ROOT / "jobs" / "settings.py").read_text()))
    written = {
        name
        for row in rows(section(REFERENCE / "output.md", "## Environment"))
        for name in re.findall(r"`([A-Z_]+)`", row[0])
    }
    assert written == read | {"RQ_REDIS_URL"}


def test_the_readme_leads_to_every_document() -> None:
    """A page that nothing links to is read by nobody."""
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links(README) if "://" not in link}
    assert {document.name for document in DOCS if document not in linked} == {"README.md"}


def test_the_readme_is_short() -> None:
    """What it is, two commands, a picture, the first own file, where to read on."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130


def test_the_changelog_keeps_its_form() -> None:
    """Unreleased first, and headings of Keep a Changelog only."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, flags=re.M)[0] == "[Unreleased]"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, flags=re.M)) <= kinds


def test_the_picture_loads_nothing_from_anywhere() -> None:
    """It is shown on the README's page."""
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert "rejected" in picture
    assert not re.search(r"(?:src|href)=|url\((?!#)|@font-face", picture)


def test_every_invariant_names_what_enforces_it_and_the_test_that_holds_it() -> None:
    """A promise without a test is a hope."""
    text = prose(ROOT / "docs" / "invariants.md")
    numbers = []
    for heading in re.findall(r"^## .+$", text, flags=re.M):
        for number, promise, enforced, held, without in rows(section(ROOT / "docs" / "invariants.md", heading)):
            numbers.append(int(number))
            assert promise, number
            assert without, number
            for cell, prefix in ((enforced, "(etl|jobs)/"), (held, "tests/")):
                path, name = re.findall(r"`([^`]+)`", cell)
                assert re.match(prefix, path), (number, path)
                assert re.search(
                    rf"^\s*(async def|def|class) {name}\b|^{name}\b.*=", (ROOT / path).read_text(), re.M
                ), (number, path, name)
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_path_and_name_in_the_architecture_is_in_the_code() -> None:
    """Who looks for the place to change finds it; the names that follow a path at once are in that file."""
    text = re.sub(
        r"^```.*?^```", "", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), flags=re.M | re.S
    )
    for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    pairs = [
        (path, name)
        for path, names in re.findall(r"`([\w./-]+\.py)`((?: `[\w.]+`)+)", text)
        for name in re.findall(r"[\w.]+", names)
    ]
    for path, name in pairs:
        for part in name.split("."):
            defined = rf"^\s*((async )?def|class) {part}\b|^\s*{part}\b.*[:=]"
            assert re.search(defined, (ROOT / path).read_text(encoding="utf-8"), re.M), (path, name)
    assert len(pairs) > 150
