"""`visavis pull --watch`: round after round, until SIGTERM."""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from visavis_server.pull.errors import PullError
from visavis_server.pull.outcomes import Round
from visavis_server.pull.puller import Puller

_log = structlog.get_logger()

# The longest wait after failures in a row, unless the rounds themselves are further apart.
_LONGEST_WAIT_S: Final = 600.0
# Pods that were started together do not ask at the same moment for ever.
_JITTER: Final = 0.1


class Watch:
    """Repeats rounds; a failed one is logged and tried again, each time after twice as long.

    most_failures: how many failures in a row end it; 0: none do. sleep, uncertain: for tests.
    """

    def __init__(
        self,
        puller: Puller,
        every_s: float,
        most_failures: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        uncertain: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._puller, self._every_s, self._most_failures = puller, every_s, most_failures
        self._sleep, self._uncertain = sleep, uncertain
        self._reported: set[tuple[str, str]] = set()

    def run(self, deadline: "Deadline") -> int:
        """Return the exit code of the failure that ended the watch."""
        failures = 0
        while True:
            code = self._round(deadline)
            failures = failures + 1 if code else 0
            if code and failures == self._most_failures:
                _log.error("ended", failures=failures)
                return code
            self._sleep(self._wait_s(failures))

    def _round(self, deadline: "Deadline") -> int:
        try:
            with deadline:
                outcome = self._puller.round()
        except PullError as error:
            _log.error("not pulled", why=str(error))
            return error.exit_code
        self._report(outcome)
        # A refused version is no reason to ask more often, or less.
        return outcome.exit_code if any(o.state == "failed" for o in outcome.outcomes) else 0

    def _report(self, outcome: Round) -> None:
        """Log what changed, and each reason once."""
        now = {(path, why) for path, why in outcome.passed_over.items()}
        for path, why in sorted(now - self._reported):
            _log.warning("passed over", path=path, why=why)
        for each in outcome.outcomes:
            if each.state in ("refused", "failed"):
                now.add((each.version, each.note))
                if (each.version, each.note) not in self._reported:
                    _log.error(each.state, model=each.version, why=each.note)
            elif each.state != "unchanged":
                _log.info(each.state, model=each.version, note=each.note, bytes=each.bytes)
        self._reported = now

    def _wait_s(self, failures: int) -> float:
        wait_s = max(self._every_s, min(self._every_s * 2.0 ** min(failures, 16), _LONGEST_WAIT_S))
        return wait_s * self._uncertain(1 - _JITTER, 1 + _JITTER)


class Deadline:
    """Calls a function if a round takes longer than a time: a library may hang for ever."""

    def __init__(self, seconds: float, late: Callable[[], None]) -> None:
        self._seconds, self._late = min(seconds, threading.TIMEOUT_MAX), late
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        self._timer = threading.Timer(self._seconds, self._late)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        assert self._timer is not None
        self._timer.cancel()
