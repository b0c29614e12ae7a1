"""A setting is declared once: options, configuration, environment and keyword arguments are read off its field."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from cyclopts import App

from wsd_local.cli.options import NOTHING, DataSetOptions, Given, takes
from wsd_local.cli.reference import Option, reference
from wsd_local.config import read_config
from wsd_local.core.sampling import Sampling
from wsd_local.datasets.exports import EXPORTS
from wsd_local.fields import Declared, FromFile, Heading, declared
from wsd_local.placement.plan import DEFAULT_CTX
from wsd_local.settings import ReplySettings, declarations

NO_OPTION = {"probabilities", "parallel"}
"""Settings that `run` decides on by other options: --tokens, and --parallel, which may also be auto."""


@dataclass(frozen=True)
class Example:
    """Something new."""

    rate: Annotated[float, Heading("Models")] = 0.5
    """How fast."""
    kind: Literal["warm", "cold"] = "warm"
    """How warm."""
    count: int | Literal["all"] = "all"
    """How many."""
    text: Annotated[str | None, FromFile.TEXT] = None
    """What is written
    in a file."""
    words: tuple[str, ...] = ()
    """Some words."""
    loud: bool = False
    """Whether it is heard."""
    calm: bool = True
    """Whether it is not."""


def options_of_run() -> dict[str, Option]:
    (run,) = [command for command in reference() if command.name == "wsd-local run"]
    return {name: option for option in run.options for name in option.names}


def test_every_setting_is_an_option_with_its_default_choices_and_help() -> None:
    options, settings = options_of_run(), declarations()
    assert settings
    for name, setting in settings.items():
        assert setting.help.endswith((".", "]")), name
        if name in NO_OPTION:
            continue
        assert setting.heading is not None
        option = options[f"--{setting.spelling}"]
        assert (option.help, option.heading) == (setting.help, setting.heading.title)
        is_shown = setting.default not in (None, ()) and setting.kind is not bool
        assert option.default == (str(setting.default) if is_shown else None), name
        choices = get_args(setting.kind) if get_origin(setting.kind) is Literal else ()
        assert option.choices == choices


def test_the_draft_s_settings_are_those_of_the_continuation() -> None:
    settings, shared = declarations(), fields(Sampling)
    assert shared
    for field in shared:
        own, drafts = settings[field.name], settings[f"draft_{field.name}"]
        assert (own.kind, own.default) == (drafts.kind, drafts.default)


@pytest.mark.parametrize(
    "setting",
    [one for one in declarations().values() if one.name != "urial"],  # goes with a mode alone
    ids=lambda one: one.name,
)
def test_every_setting_is_read_from_the_environment(setting: Declared, tmp_path: Path) -> None:
    special = {"json_schema": "true", "grammar": 'root ::= "x"', "lark": 'start: "x"', "rpc": "127.0.0.1:50052"}
    value = special.get(setting.name, "1" if setting.default in (None, ()) else str(setting.default))
    environment = {f"WSD_LOCAL_{setting.spelling.upper().replace('-', '_')}": value}
    if setting.name.endswith("_lora_scale"):
        value = environment[next(iter(environment))] = "1.0"
    config = read_config(tmp_path / "none.toml", environment)
    assert set(config.settings) == {setting.name} and config.sources == {setting.name: "environment"}


def test_a_new_field_becomes_an_option() -> None:
    app = App(name="example")
    received: list[dict[str, Any]] = []

    @app.default
    @takes(example=declared(Example).values())
    def command(*, example: Given = NOTHING) -> None:
        received.append(dict(example))

    def given(*words: str) -> dict[str, Any]:
        app(list(words), exit_on_error=False, result_action="return_value")
        return received[-1]

    assert given() == {}
    assert given("--rate", "0.5", "--kind", "cold") == {"rate": 0.5, "kind": "cold"}
    assert isinstance(given("--rate", "1")["rate"], float)
    assert given("--count", "3") == {"count": 3} and given("--count", "all") == {"count": "all"}
    assert given("--words", "a", "--words", "-b") == {"words": ["a", "-b"]}
    assert given("--text", "x.txt", "--loud", "--no-calm") == {"text": Path("x.txt"), "loud": True, "calm": False}
    found = declared(Example)
    assert found["text"].help == "What is written in a file." and found["rate"].heading == Heading("Models")


def test_the_help_of_the_context_names_its_default() -> None:
    assert f"[default: {DEFAULT_CTX}, " in declarations()["ctx"].help


def test_the_help_of_exports_names_them_all() -> None:
    assert all(name in declared(DataSetOptions)["export"].help for name in EXPORTS)


def test_defaults_of_the_algorithm_stand_in_the_declaration_alone() -> None:
    package = Path(__file__).parents[2]
    declared_in = package / "wsd_local" / "settings.py"
    sources = [*(package / "wsd_local").rglob("*.py"), *(package / "tui").rglob("*.py")]
    assert declared_in in sources
    for path in sources:
        text = path.read_text(encoding="utf-8")
        for name in ("threshold", "window", "max_tokens"):
            default = getattr(ReplySettings(), name)
            for line in text.splitlines():
                is_default = f"{name}: " in line and line.rstrip().endswith((f"= {default}", f"= {default},"))
                assert path == declared_in or not is_default, f"{path}: {line}"
