"""The models that are served, by name and version."""

from collections.abc import Iterable, Mapping

from visavis_server.card import Task
from visavis_server.errors import ModelNotFound, TaskMismatch, correction, listed
from visavis_server.models.model_files import ModelFile
from visavis_server.models.served_model import ServedModel

_SEE_WHY = "the server's log and RepositoryIndex say why"


class Repository:
    """An immutable snapshot of the served models, in all their versions.

    not_served: files of the folder that are refused or unloaded, and why. If an earlier file of
    the same version is still served, it says why the new one is not.
    """

    def __init__(
        self, models: Iterable[ServedModel], not_served: Mapping[ModelFile, str] | None = None
    ) -> None:
        self.not_served = {(f.name, f.version): why for f, why in (not_served or {}).items()}
        self._known_names = {name for name, _ in self.not_served}
        self._models: dict[str, dict[int, ServedModel]] = {}
        for model in sorted(models, key=lambda m: (m.name, m.version)):
            self._models.setdefault(model.name, {})[model.version] = model
        self._known_names |= self._models.keys()

    def knows(self, name: str) -> bool:
        """Return True if the folder holds a model of this name, served or not."""
        return name in self._known_names

    def names(self) -> list[str]:
        """Return the names of all models, sorted."""
        return list(self._models)

    def versions(self, name: str) -> list[int]:
        """Return a model's versions, ascending."""
        return list(self._models[name])

    def all(self) -> list[ServedModel]:
        """Return every version of every model."""
        return [model for versions in self._models.values() for model in versions.values()]

    def latest(self) -> list[ServedModel]:
        """Return every model at its highest version, by name."""
        return [versions[max(versions)] for versions in self._models.values()]

    def get(self, name: str, version: int | None = None, field: str = "model") -> ServedModel:
        """Return a model; version None: the highest.

        Raises ModelNotFound on `field`, with the names or versions that exist.
        """
        versions = self._models.get(name)
        if versions is None and name in self._known_names:
            raise ModelNotFound(f"model {name} is not being served: {_SEE_WHY}", field)
        if versions is None:
            raise ModelNotFound(
                f"there is no model {name[:128]!r}{correction(name, self._models)}; the models "
                f"are: {listed(self._models)}",
                field,
            )
        if version is None:
            return versions[max(versions)]
        if version not in versions and (name, version) in self.not_served:
            raise ModelNotFound(
                f"version {version} of model {name} is not being served: {_SEE_WHY}", "version"
            )
        if version not in versions:
            raise ModelNotFound(
                f"model {name} has no version {version}; its versions are: "
                f"{', '.join(map(str, versions))}",
                "version",
            )
        return versions[version]

    def capable(self, name: str, version: int | None, task: Task) -> ServedModel:
        """Return a model that is capable of a task; raises ModelNotFound or TaskMismatch."""
        model = self.get(name, version)
        if model.task is not task:
            others = listed(m.name for m in self.latest() if m.task is task)
            raise TaskMismatch(
                "model",
                f"model {name} does {model.task}, not {task}; the models for {task} are: {others}",
            )
        return model
