"""The arguments of the application, as Ray Serve's configuration gives them."""

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from visavis_server.errors import StartupError
from visavis_server.settings import Settings, load_settings

# Settings without an effect here, each with where Ray Serve has it instead.
_ELSEWHERE: Final = {
    "models": "the argument models",
    "grpc": "grpc_options.port",
    "http": "nothing: the application has no HTTP routes",
    "metrics": "Ray's own metrics",
    "triton_metrics": "Ray's own metrics",
    "trace": "Ray's own traces",
    "cores": "ray_actor_options.num_cpus of the deployment",
    "workers": "num_replicas of the deployment",
    "tokens": "the variable VISAVIS_TOKENS of the node",
    "open_health": "the variable VISAVIS_OPEN_HEALTH of the node",
    "insecure": "the variable VISAVIS_INSECURE of the node",
    "watch_interval_s": "another deploy",
    "admin": "another deploy",
    "require_all_models": "nothing: every model must load",
}


class Arguments(BaseModel):
    """`args` of the application.

    models: the repository, at the same path on every node. settings: visavis's own, by name.
    release: any text; with another one, Ray Serve reads the repository again and replaces all
    replicas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Path
    settings: dict[str, Any] = Field(default_factory=dict)
    release: str = ""

    @field_validator("settings")
    @classmethod
    def _have_an_effect(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name in settings.keys() & _ELSEWHERE.keys():
            raise ValueError(f"{name} has no effect on Ray Serve; it has {_ELSEWHERE[name]}")
        return settings

    def read_settings(self) -> Settings:
        """Return all settings. Raises StartupError, naming each invalid one."""
        if not self.models.is_absolute():
            raise StartupError(
                f"models is {self.models}; it must be an absolute path, the same on every node"
            )
        return load_settings({"models": self.models, **self.settings})
