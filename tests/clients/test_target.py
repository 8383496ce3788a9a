"""A server as the command line names it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from visavis.errors import InvalidSettings
from visavis.target import parse_target

from tests.clients.library_servers import TOKEN, LibraryServers, library_servers
from tests.surroundings import VISAVIS, Surroundings


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[LibraryServers]:
    with library_servers(tmp_path) as found:
        yield found


def test_options_follow_the_address(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text("secret\nsecond line\n", "utf-8")
    target = parse_target(f"127.0.0.1:8001,ca={tmp_path}/ca.pem,token-file={tmp_path}/token")
    assert (target.address, target.token) == ("127.0.0.1:8001", "secret")
    assert target.tls is not None
    assert target.tls.root_certificates == f"{tmp_path}/ca.pem"
    assert parse_target("127.0.0.1:8001").tls is None


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8001,tls=yes", "127.0.0.1:8001,ca", "127.0.0.1:8001,token=secret", ",tls"]
)
def test_wrong_options_are_refused(text: str) -> None:
    with pytest.raises(InvalidSettings):
        parse_target(text)


def test_commands_reach_a_server_with_tls_and_a_token(
    servers: LibraryServers, tmp_path: Path
) -> None:
    found = Surroundings.under(tmp_path / "surroundings")
    (found.home / "token").write_text(TOKEN, "utf-8")

    def models(server: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [VISAVIS, "models", "--json", "--timeout", "10"],
            cwd=found.elsewhere,
            env=found.environment({"VISAVIS_SERVER": server}),
            capture_output=True,
            text=True,
            check=False,
        )

    known = f"cert={servers.certificate},key={servers.key}"
    secured = f"{servers.tls},ca={servers.ca_file},{known}"
    done = models(f"{secured},token-file={found.home}/token")
    assert done.returncode == 0, done.stderr
    refused = models(secured)
    assert refused.returncode == 1
    assert "authentication required" in refused.stderr
