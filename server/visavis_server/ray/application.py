"""Builds the application: a deployment for each model, and the ingress in front of them."""

from collections import defaultdict
from typing import Any, Final

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from visavis_server.errors import StartupError
from visavis_server.models.model_files import ModelFile
from visavis_server.models.startup import first_look
from visavis_server.ray.arguments import Arguments
from visavis_server.ray.ingress import Ingress
from visavis_server.ray.replica import Replica
from visavis_server.settings import Settings

INGRESS: Final = "ingress"
"""The name of the deployment that calls reach first."""

# Defaults; `deployments` in the configuration replaces them by name.
# Requests of one replica: a few batches, so that the next is full when one ends.
_ONGOING: Final = 32
_TARGET_ONGOING: Final = 8
_MOST_REPLICAS: Final = 4
_INGRESS_ONGOING: Final = 256
_GRACE_S: Final = 30.0


def application(arguments: Arguments) -> Application:
    """Return the application of a repository. Raises StartupError if it can't be served."""
    settings = arguments.read_settings()
    look = first_look(settings.models)
    fields: dict[str, Any] = dict(settings)
    by_name: defaultdict[str, list[ModelFile]] = defaultdict(list)
    for file in look.files:
        by_name[file.name].append(file)
    if INGRESS in by_name:
        raise StartupError(
            f"a model is named {INGRESS}, as the deployment in front of the models is; rename it"
        )
    model_options = _model_options(settings)
    models = {
        name: serve.deployment(Replica).options(name=name, **model_options).bind(files, fields)
        for name, files in by_name.items()
    }
    versions = {name: [file.version for file in files] for name, files in by_name.items()}
    return (
        serve.deployment(Ingress)
        .options(
            name=INGRESS,
            max_ongoing_requests=_INGRESS_ONGOING,
            max_queued_requests=settings.queue_size,
            graceful_shutdown_timeout_s=_GRACE_S,
            ray_actor_options={"num_cpus": 1},
        )
        .bind(models, versions, fields)
    )


def _model_options(settings: Settings) -> dict[str, Any]:
    return {
        "max_queued_requests": settings.queue_size,
        "max_ongoing_requests": _ONGOING,
        "graceful_shutdown_timeout_s": _GRACE_S,
        "autoscaling_config": AutoscalingConfig(
            min_replicas=1, max_replicas=_MOST_REPLICAS, target_ongoing_requests=_TARGET_ONGOING
        ),
        "ray_actor_options": {"num_cpus": 1},
    }
