"""The code that the page offers runs as it is, and gets what the page shows."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.npm import missing
from tests.surroundings import Surroundings
from visavis_server.transport.tokens import new_token

from .conftest import Open, Playground, painted, switch_heat_maps
from .page import Page

CLIENTS = Path(__file__).parents[2] / "clients"
# Where Debian's Go packages are.
GO_PACKAGES = Path("/usr/share/gocode")
CLIPBOARD = ("clipboard-read", "clipboard-write")

# Labels and scores by model.
Found = dict[str, list[tuple[str, str]]]


@pytest.fixture(params=["curl", "Python", "Go"])
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "curl" and not shutil.which("curl"):
        missing("needs curl")
    if name == "Go" and not (shutil.which("go") and GO_PACKAGES.is_dir()):
        missing("needs Go, and its gRPC as Debian has it")
    return name


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture whose name neither a shell nor a literal may understand."""
    return painted(tmp_path / 'it\'s $HOME `id` "x" \\n.png', (640, 480), (200, 120, 90))


def copied(page: Page, language: str) -> str:
    page.do("click", selector=f"#languages >> text={language}")
    page.do("click", selector="#copy")
    page.until("document.getElementById('copy').innerText === 'Copied'")
    text: str = page.evaluate("() => navigator.clipboard.readText()")
    return text


def shown(page: Page) -> Found:
    """Return what the page shows of each model, but for what that has missed."""
    return {
        model: [
            (label, score)
            for mark, label, score, *_ in panel["bars"] + panel["rows"]
            if mark != "−" or model == "boxes"
        ]
        for task in page.look()["tasks"].values()
        for model, panel in task["panels"].items()
    }


def got(language: str, code: str, folder: Path, **environment: str) -> Found:
    """Return what the code gets that was copied, run in a folder."""
    if language == "curl":
        return in_json(ran(["sh", "-c", code], folder, **environment))
    if language == "Python":
        return printed(ran([sys.executable, "-c", code], folder, **environment))
    gopath = folder / "gopath"
    module = gopath / "src" / "visavis.internal"
    module.mkdir(parents=True)
    (module / "visavis").symlink_to(CLIENTS / "go")
    program = folder / "main.go"
    program.write_text(code)
    assert ran(["gofmt", "-l", str(program)], folder) == ""
    cache = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=True)
    environment |= {
        "GO111MODULE": "off",
        "GOPATH": f"{gopath}:{GO_PACKAGES}",
        "GOCACHE": cache.stdout.strip(),  # or all of gRPC is compiled each time
    }
    return printed(ran(["go", "run", str(program)], folder, **environment))


def ran(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=Surroundings.under(folder).environment(environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_json(text: str) -> Found:
    answers = [
        answer for comparison in json.loads(text)["comparisons"] for answer in comparison["answers"]
    ]
    return {
        answer["servedBy"]["model"]: [
            (found["label"], f"{found['score']:.3f}")
            for found in answer["classifications"] + answer["detections"]
        ]
        for answer in answers
    }


def printed(text: str) -> Found:
    found: Found = {}
    for line in text.splitlines():
        if line.startswith("  "):
            score, label = line.split()
            list(found.values())[-1].append((label, score))
        else:
            found[line.split()[0]] = []
    return found


def test_it_gets_what_is_shown(
    open_page: Open, playground: Playground, picture: Path, language: str
) -> None:
    page = open_page(permissions=CLIPBOARD)
    page.pick(picture)
    page.do("click", selector="role=checkbox[name=/colors-fragile/]")
    page.until("!document.querySelector('[data-model=colors-fragile]')")
    page.answered()
    page.slide("Labels", 2)
    page.slide("Score above", 0.42)
    code = copied(page, language).replace("127.0.0.1:8001", playground.address)
    answered = got(language, code, picture.parent)
    assert answered == shown(page)
    assert answered.keys() == {"boxes", "boxes-other", "colors", "colors-soft"}


def test_it_asks_for_the_heat_maps(
    open_page: Open, explained: Playground, picture: Path, language: str
) -> None:
    page = open_page(explained.url, permissions=CLIPBOARD)
    page.pick(picture)
    page.answered()
    switch_heat_maps(page)
    code = copied(page, language).replace("127.0.0.1:8001", explained.address)
    answered = got(language, code, picture.parent)
    assert answered == shown(page)
    # The model without heat maps fails only if it is asked for one.
    assert (answered["old"], answered.keys()) == ([], {"explained", "heads", "old"})


def test_it_takes_the_token_from_the_environment_and_speaks_tls(
    open_page: Open, models: Path, picture: Path, language: str, tmp_path: Path
) -> None:
    authority, token = trustme.CA(), new_token("code")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "tokens").write_text(token.line)
    options = {
        "--tls-certificate": "certificate.pem",
        "--tls-private-key": "key.pem",
        "--tokens": "tokens",
    }
    files = [part for name, file in options.items() for part in (name, str(tmp_path / file))]
    with Playground(models, tmp_path / "secured", *files) as server:
        page = open_page(server.url, permissions=CLIPBOARD, ignoreHTTPSErrors=True)
        page.show_token(token.token)
        page.until("!document.getElementById('room').hidden")
        page.pick(picture)
        code = copied(page, language).replace("127.0.0.1:8001", server.address)
        trusted = ("CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE")
        environment = dict.fromkeys(trusted, str(tmp_path / "ca.pem"))
        answered = got(language, code, picture.parent, VISAVIS_TOKEN=token.token, **environment)
        assert answered == shown(page)
    page.expected_troubles = [
        "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
    ]
