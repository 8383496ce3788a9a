"""A capture has the device to itself."""

import threading
import time

from visavis_server.runtime.captures import Captures


def test_runs_are_concurrent_and_a_capture_is_alone() -> None:
    captures, inside, seen = Captures(), [], []
    both = threading.Barrier(2)

    def run() -> None:
        with captures.run():
            inside.append("run")
            both.wait(10)  # the other run is here too
            seen.append("capture" in inside)
            inside.remove("run")

    def capture() -> None:
        with captures.capture():
            inside.append("capture")
            time.sleep(0.01)
            seen.append(inside != ["capture"])
            inside.remove("capture")

    for _ in range(20):
        threads = [threading.Thread(target=each) for each in (run, run, capture, capture)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(seen) == 80 and not any(seen)


def test_an_error_ends_a_turn() -> None:
    captures = Captures()
    for turn in (captures.run, captures.capture, captures.run):
        try:
            with turn():
                raise ValueError
        except ValueError:
            continue
