"""What a round of a pull has done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from visavis_server.pull.errors import PullFailed, SourceUnreachable

State = Literal["fetched", "replaced", "adopted", "unchanged", "removed", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a version, NAME/VERSION.

    note: why, or what its digest proves. bytes: how many were fetched.
    """

    version: str
    state: State
    note: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """The outcomes of one round, by version, and the paths that were passed over, with why."""

    outcomes: list[Outcome]
    passed_over: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """The exit code of a pull that ends with this round."""
        states = {outcome.state for outcome in self.outcomes}
        if "failed" in states:
            return SourceUnreachable.exit_code
        return PullFailed.exit_code if "refused" in states else 0
