"""The models that calls find: none while the first load, then those of a repository."""

from visavis_server.errors import Unavailable
from visavis_server.models.repository import Repository


class Models:
    """What is served now; one repository takes the place of another between two calls."""

    def __init__(self) -> None:
        self._repository: Repository | None = None

    def serve(self, repository: Repository) -> None:
        """Let calls find these from now on; those under way keep the ones that they have."""
        self._repository = repository

    @property
    def ready(self) -> bool:
        """Whether there is one to answer with."""
        return self._repository is not None and bool(self._repository.names())

    @property
    def repository(self) -> Repository:
        """What there is; raises Unavailable while the first are being loaded."""
        if self._repository is None:
            raise Unavailable("the server is loading its models; try again in a moment")
        return self._repository
