"""Installs each library with its language's own tool, and builds two programs that use it."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import builds
from tests.test_clients import CLIENTS

from .go_proxy import MODULE, VERSION, make_proxy

HERE = Path(__file__).parent
# Debian's packages, without which a language's tool has nothing to install.
DEBIAN = {
    "go": Path("/usr/share/gocode/src/google.golang.org/grpc"),
    "java": Path("/usr/share/maven-repo/io/grpc/grpc-netty"),
}


@dataclass(frozen=True)
class Installed:
    """The commands of both programs of a language."""

    check: list[str | Path]
    readme: list[str | Path]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**builds.ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def require_debian(language: str) -> None:
    """Skip where Debian's packages for a language are missing; CI has them."""
    folder = DEBIAN.get(language, HERE)
    if not folder.exists():
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"needs {folder}")


def readme_program(language: str, address: str) -> str:
    """Return the first program of a README, with the address of a server here."""
    text = (CLIENTS / language / "README.md").read_text("utf-8")
    program = text.partition(f"```{language}\n")[2].partition("```")[0]
    assert '"127.0.0.1:8001"' in program
    return program.replace("127.0.0.1:8001", address)


def install_go(folder: Path, readme: str) -> Installed:
    """Install the module with `go get`: from a proxy, and as the README says, from the checkout."""
    make_proxy(folder / "proxy", CLIENTS / "go")
    # At the same path in every run, so that Go finds what it has compiled; without what an earlier
    # run fetched, since the version is always the same.
    modules = CLIENTS / "go" / "build" / "modules"
    shutil.rmtree(modules, ignore_errors=True)
    settings = {
        "GOPROXY": f"file://{folder / 'proxy'}",
        "GOSUMDB": "off",
        "GOMODCACHE": str(modules),
        # By default the files in it are read-only, and could not be removed.
        "GOFLAGS": "-modcacherw",
        "GO111MODULE": "on",
    }
    fetched, replaced = folder / "fetched", folder / "replaced"
    shutil.copytree(HERE / "go", fetched)
    replaced.mkdir()
    (replaced / "main.go").write_text(readme)
    replacement = ("go", "mod", "edit", "-replace", f"{MODULE}={CLIENTS / 'go'}")
    for project, before, what in (
        (fetched, (), f"{MODULE}@{VERSION}"),
        (replaced, replacement, MODULE),
    ):
        run("go", "mod", "init", "example.org/check", cwd=project, **settings)
        if before:
            run(*before, cwd=project, **settings)
        run("go", "get", what, cwd=project, **settings)
        run("go", "build", "-o", "program", ".", cwd=project, **settings)
    return Installed([fetched / "program"], [replaced / "program"])


def install_cpp(folder: Path, readme: str) -> Installed:
    """Install the library to a prefix, and let CMake find it from another project."""
    prefix, project = folder / "prefix", folder / "project"
    run("cmake", "--install", CLIENTS / "cpp" / "build", "--prefix", prefix, cwd=folder)
    shutil.copytree(HERE / "cpp", project)
    (project / "readme.cpp").write_text(readme)
    run("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}", cwd=project)
    run("cmake", "--build", "build", cwd=project)
    return Installed([project / "build" / "check"], [project / "build" / "readme"])


def install_java(folder: Path, readme: str) -> Installed:
    """Install the artifact to a local Maven repository, and build a project that depends on it."""
    run("make", "install", cwd=CLIENTS / "java")
    project, client = folder / "project", CLIENTS / "java"
    shutil.copytree(HERE / "java", project)
    (project / "src" / "main" / "java" / "Bus.java").write_text(readme)
    repository = f"-Dmaven.repo.local={client / 'build' / 'm2'}"
    maven = ("mvn", "-B", "-q", "-s", client / "debian-settings.xml", repository)
    goals = ("package", "dependency:build-classpath", "-Dmdep.outputFile=classpath")
    run(*maven, *goals, "-Dmdep.includeScope=runtime", cwd=project)
    classpath = f"{project / 'target' / 'classes'}:{(project / 'classpath').read_text()}"
    # Debian's netty needs a native library for TLS, which the client's build has put there.
    java = [
        "java",
        *builds.SHORT_JAVA,
        f"-Djava.library.path={client / 'build' / 'lib'}",
        "-cp",
        classpath,
    ]
    return Installed([*java, "Check"], [*java, "Bus"])


INSTALLERS = {"go": install_go, "cpp": install_cpp, "java": install_java}
