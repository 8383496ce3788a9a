"""The repository that calls are served from; it is replaced at each change."""

from visavis_server.errors import Unavailable
from visavis_server.models.repository import Repository


class Models:
    """Holds the current repository; it is replaced between two calls."""

    def __init__(self) -> None:
        self._repository: Repository | None = None

    def serve(self, repository: Repository) -> None:
        """Serve these models from now on; calls under way keep theirs."""
        self._repository = repository

    @property
    def ready(self) -> bool:
        """True if at least one model is served."""
        return self._repository is not None and bool(self._repository.names())

    @property
    def repository(self) -> Repository:
        """The current repository; raises Unavailable while the server loads its first models."""
        if self._repository is None:
            raise Unavailable("the server is loading its models; retry in a moment")
        return self._repository
