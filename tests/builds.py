"""Builds the programs of other languages for tests: soon ready rather than fast."""

import os

# For programs that run for a second or two: without the optimising compiler, and one collector.
SHORT_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
# For all compilers and package managers, which also need the developer's caches: the variables of
# the tests' own process. Builds with the same variables share what they compile.
ENVIRONMENT = {
    **os.environ,
    "CARGO_INCREMENTAL": "0",
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CMAKE_BUILD_PARALLEL_LEVEL": "2",
    # A type that CMake has no flags for: neither optimised nor with symbols.
    "CMAKE_BUILD_TYPE": "None",
    "MAVEN_OPTS": " ".join(SHORT_JAVA),
}
