"""Loads the settings, and says in words what is wrong with them."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ValidationError

from visavis_server.errors import InvalidSettings
from visavis_server.settings.fields import Settings
from visavis_server.settings.sources import RENAMED_SETTINGS, renamed

DEFAULT_FILE: Final = Path("visavis.toml")
_DEMO: Final = Path("demo", "models")  # where `visavis demo` exports to


def load_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Return the settings; flags: the options of the command line, by field name.

    config: the settings file; None: `visavis.toml` in the working directory, if it exists. Raises
    InvalidSettings, naming each invalid setting.
    """

    class FromFile(Settings):
        file = config or DEFAULT_FILE
        notes: ClassVar[list[str]] = []

    try:
        if config is not None and not config.is_file():
            raise InvalidSettings(
                f"the settings file {config} does not exist; give another one with --config"
            )
        return _after_demo(FromFile(**renamed(flags, RENAMED_SETTINGS, FromFile.notes)))
    except ValidationError as error:
        problems = "; ".join(map(_in_words, error.errors()))
        raise InvalidSettings(f"settings: {problems}") from None
    except OSError as error:
        raise InvalidSettings(
            f"the settings file {config or DEFAULT_FILE} can't be read: {error.strerror}"
        ) from None
    except ValueError as error:  # TOML syntax
        raise InvalidSettings(f"the settings file {config or DEFAULT_FILE}: {error}") from None


def _after_demo(settings: Settings) -> Settings:
    """Return the settings with the demo's models, if they are the only ones here."""
    if "models" in settings.model_fields_set or _is_used(settings.models) or not _DEMO.is_dir():
        return settings
    settings.notes.append(f"the folder {settings.models} is missing or empty: serving {_DEMO}")
    return settings.model_copy(update={"models": _DEMO})


def _is_used(folder: Path) -> bool:
    """Return True if a folder holds something; an export that failed leaves it empty."""
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError:  # the server reports it
        return True


def _in_words(error: Any) -> str:
    """Return one of pydantic's errors in words: the setting, what it must be, and its value."""
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, 1)
        return f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else "")
    must = error["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    must = must.partition(", unable to parse")[0]
    return f"{name}: {must}, got {str(error['input'])[:128]!r}" if name else must
