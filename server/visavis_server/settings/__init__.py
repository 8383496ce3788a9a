"""The settings of the server, from options, the environment, a file, or their defaults.

An option overrides the environment (`VISAVIS_` and the name in capitals), which overrides the file
(`visavis.toml`), which overrides the default. Nothing else reads any of them.
"""

from visavis_server.settings.fields import (
    MAX_WORKERS,
    Settings,
    TunedPlan,
    default_text,
    option_type,
)
from visavis_server.settings.limits import ImageLimits, MessageLimits
from visavis_server.settings.loading import DEFAULT_FILE, load_settings
from visavis_server.settings.sources import RENAMED_SETTINGS

__all__ = [
    "DEFAULT_FILE",
    "MAX_WORKERS",
    "RENAMED_SETTINGS",
    "ImageLimits",
    "MessageLimits",
    "Settings",
    "TunedPlan",
    "default_text",
    "load_settings",
    "option_type",
]
