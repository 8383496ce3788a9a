"""Finding weights, and downloading them from a faulty server."""

import hashlib
import io
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from rich.progress import Progress

from visavis_export.checkpoints.weights import Release, Weights, cache_folder, find, yolov5_release
from visavis_export.errors import WeightsError

Answer = Callable[[BaseHTTPRequestHandler], None]


def torch_file(value: float) -> bytes:
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.full((64, 64), value)}, buffer)
    return buffer.getvalue()


CONTENT = torch_file(1.0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
V1 = {"ETag": '"v1"'}


def answer(
    body: bytes, headers: Mapping[str, str] = {}, *, status: int = 200, length: int | None = None
) -> Answer:
    """Send a response whose Content-Length is `length`, the body's length if absent."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def cut(headers: Mapping[str, str] = {}) -> Answer:
    """Announce the whole file, send half of it, and close the connection."""
    return answer(CONTENT[:HALF], headers, length=len(CONTENT))


def rest(start: int = HALF) -> Answer:
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    return answer(CONTENT[start:], {"Content-Range": span}, status=206)


@dataclass
class Publisher:
    """A server that gives one prepared answer per request, and records the requests."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)

    def find(self, cache: Path, *answers: Answer, sha256_prefix: str | None = None) -> Weights:
        self.answers[:] = answers
        release = Release("net.pt", self.url, sha256_prefix)
        progress = Progress(disable=True)
        return find("net", release, None, cache, progress, sleep=self.pauses_s.append)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.headers)
            served.answers.pop(0)(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Publisher(f"http://127.0.0.1:{server.server_port}/releases/net.pt")
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def unreachable_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}/net.pt"


def find_offline(given: Path | None, cache: Path, url: str = "") -> Weights:
    release = Release("net.pt", url or unreachable_url(), None)
    return find("net", release, given, cache, Progress(disable=True), sleep=lambda _: None)


def test_given_file_is_used_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "my-own.weights"
    file.write_bytes(CONTENT)
    assert find_offline(file, tmp_path) == Weights(file, "my-own.weights", SHA256)


def test_a_given_file_of_another_format_is_refused_before_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "yolov5n.pt"
    path.write_bytes(b"GGUF")
    os.truncate(path, 1 << 32)

    def never(*given: object) -> None:
        raise AssertionError("4 GiB are hashed")

    monkeypatch.setattr(hashlib, "file_digest", never)
    with pytest.raises(WeightsError, match=r"yolov5n\.pt is not a torch checkpoint: it begins"):
        find("yolov5n", None, path, None, Progress())


@pytest.mark.parametrize("filename", ["net.pt", "net.pth"])
def test_given_folder_is_searched_by_the_models_name(tmp_path: Path, filename: str) -> None:
    for name in (filename, "NET.pth.bak", "other.pt"):
        (tmp_path / name).write_bytes(CONTENT)
    assert find_offline(tmp_path, tmp_path / "cache").path == tmp_path / filename


def test_name_in_a_given_folder_must_match_in_case(tmp_path: Path) -> None:
    (tmp_path / "Net.pt").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"holds no net\.pth or net\.pt"):
        find_offline(tmp_path, tmp_path / "cache")


def test_missing_given_file_is_an_error_rather_than_a_download(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"can't read the given weights .*nowhere"):
        find_offline(tmp_path / "nowhere.pt", tmp_path)


def test_given_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="is a pipe"):
        find("yolov5n", None, tmp_path / "net.pt", None, Progress())


@pytest.mark.parametrize("is_in_folder", [False, True])
def test_given_file_that_is_too_large_is_refused_unread(tmp_path: Path, is_in_folder: bool) -> None:
    path = tmp_path / "yolov5n.pt"
    path.touch()
    os.truncate(path, 1 << 40)
    given = tmp_path if is_in_folder else path
    with pytest.raises(WeightsError, match=r"yolov5n.pt has 1099511627776 bytes; .* 8589934592"):
        find("yolov5n", None, given, None, Progress())


def test_given_folder_without_the_file_falls_back_to_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "net.pt").write_bytes(CONTENT)
    assert find_offline(tmp_path, cache).sha256 == SHA256


def test_offline_error_says_what_to_do(tmp_path: Path) -> None:
    url = unreachable_url()
    with pytest.raises(WeightsError) as raised:
        find_offline(tmp_path, tmp_path / "cache", url)
    for part in (url, str(tmp_path), "--weights", "VISAVIS_WEIGHTS", "--weights random"):
        assert part in str(raised.value)


def test_model_without_a_release_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no published weights are known for 'mine'.*--weights"):
        find("mine", None, None, tmp_path, Progress(disable=True))


def test_download_is_cached_under_its_url(publisher: Publisher, tmp_path: Path) -> None:
    first = publisher.find(tmp_path / "a" / "b", answer(CONTENT), sha256_prefix=SHA256[:8])
    assert first == Weights(tmp_path / "a" / "b" / "net.pt", publisher.url, SHA256)
    assert first.path.read_bytes() == CONTENT
    assert publisher.find(tmp_path / "a" / "b") == first
    assert len(publisher.requests) == 1


def test_download_leaves_no_partial_file(publisher: Publisher, tmp_path: Path) -> None:
    publisher.find(tmp_path, cut(V1), rest())
    assert {file.name for file in tmp_path.iterdir()} - {"net.pt.lock"} == {"net.pt"}


def test_damaged_cached_file_is_fetched_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(torch_file(2.0))
    found = publisher.find(tmp_path, answer(CONTENT), sha256_prefix=SHA256[:8])
    assert found.path.read_bytes() == CONTENT


def test_cut_download_is_resumed(publisher: Publisher, tmp_path: Path) -> None:
    assert publisher.find(tmp_path, cut(V1), rest()).sha256 == SHA256
    assert publisher.requests[1]["Range"] == f"bytes={HALF}-"
    assert publisher.requests[1]["If-Range"] == '"v1"'


def test_cut_download_is_resumed_by_the_next_run(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="404"):
        publisher.find(tmp_path, cut(V1), answer(b"", status=404))
    assert publisher.find(tmp_path, rest()).sha256 == SHA256


def test_weak_etag_gives_way_to_the_date(publisher: Publisher, tmp_path: Path) -> None:
    date = "Tue, 22 Nov 2022 15:00:00 GMT"
    publisher.find(tmp_path, cut({"ETag": 'W/"v1"', "Last-Modified": date}), rest())
    assert publisher.requests[1]["If-Range"] == date


def test_cut_download_starts_over_if_a_change_could_go_unnoticed(
    publisher: Publisher, tmp_path: Path
) -> None:
    assert publisher.find(tmp_path, cut(), answer(CONTENT)).sha256 == SHA256
    assert "Range" not in publisher.requests[1]


def test_server_that_ignores_the_range_starts_over(publisher: Publisher, tmp_path: Path) -> None:
    assert publisher.find(tmp_path, cut(V1), answer(CONTENT)).sha256 == SHA256


def test_wrong_range_starts_over(publisher: Publisher, tmp_path: Path) -> None:
    answers = cut(V1), rest(HALF + 1), answer(CONTENT)
    assert publisher.find(tmp_path, *answers).sha256 == SHA256


def test_range_that_the_server_refuses_starts_over(publisher: Publisher, tmp_path: Path) -> None:
    answers = cut(V1), answer(b"", status=416), answer(CONTENT)
    assert publisher.find(tmp_path, *answers).sha256 == SHA256
    assert "Range" not in publisher.requests[2]


def test_busy_server_is_retried_with_growing_pauses(publisher: Publisher, tmp_path: Path) -> None:
    busy = answer(b"", status=503)
    assert publisher.find(tmp_path, busy, busy, busy, answer(CONTENT)).sha256 == SHA256
    assert publisher.pauses_s == [1.0, 2.0, 4.0]


def test_download_from_a_server_that_stays_busy_fails(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the server answered 503"):
        publisher.find(tmp_path, *[answer(b"", status=503)] * 4)
    assert len(publisher.requests) == 4


def test_download_that_stays_short_fails(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"received only {HALF} of {len(CONTENT)} bytes"):
        publisher.find(tmp_path, *[cut()] * 4)
    assert not (tmp_path / "net.pt").exists()


def test_missing_file_is_not_retried(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the server answered 404"):
        publisher.find(tmp_path, answer(b"", status=404))
    assert publisher.pauses_s == []


def test_wrong_hash_deletes_the_file_and_names_both(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{SHA256}; it should begin with 0676ba61"):
        publisher.find(tmp_path, answer(CONTENT), sha256_prefix="0676ba61")
    assert not list(tmp_path.glob("net.pt*[!k]"))


def test_html_page_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="HTML page"):
        publisher.find(tmp_path, answer(b"<!DOCTYPE html><title>Log in</title>"))
    assert not list(tmp_path.glob("net.pt*[!k]"))


@pytest.mark.parametrize("url", ["http://example.org/net.pt", "file:///etc/passwd", "ftp://a/b"])
def test_only_https_is_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(WeightsError, match="https only"):
        find_offline(None, tmp_path, url)


def test_redirect_away_from_https_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"https only, not from http://example\.org"):
        publisher.find(tmp_path, answer(b"", {"Location": "http://example.org/net.pt"}, status=302))


def test_cache_that_cannot_be_made_is_named(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"cache folder .*file.* XDG_CACHE_HOME"):
        publisher.find(tmp_path / "file" / "weights")


@pytest.mark.parametrize(
    ("platform", "environ", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/visavis/weights"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/visavis/weights"),
        ("linux", {}, "/home/ada/.cache/visavis/weights"),
        ("darwin", {}, "/home/ada/Library/Caches/visavis/weights"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/visavis/weights"),
    ],
)
def test_cache_is_in_the_platforms_cache_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], folder: str
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    assert cache_folder(environ, platform) == Path(folder)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("yolov5n", "ultralytics/yolov5/releases/download/v7.0/yolov5n.pt"),
        ("yolov5x6", "ultralytics/yolov5/releases/download/v7.0/yolov5x6.pt"),
        ("yolov5s-cls", "ultralytics/yolov5/releases/download/v7.0/yolov5s-cls.pt"),
        ("yolov5mu", "ultralytics/assets/releases/download/v8.4.0/yolov5mu.pt"),
        ("yolov5l6u", "ultralytics/assets/releases/download/v8.4.0/yolov5l6u.pt"),
    ],
)
def test_yolov5_comes_from_ultralytics_releases(name: str, url: str) -> None:
    assert yolov5_release(name) == Release(f"{name}.pt", f"https://github.com/{url}", None)


@pytest.mark.parametrize("name", ["yolov5", "yolov5t", "yolov5n-seg", "yolov8n", "yolov5n.pt"])
def test_unreleased_name_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="does not publish"):
        yolov5_release(name)


def test_a_published_file_is_checked_against_the_hash_in_its_name(tmp_path: Path) -> None:
    digest = SHA256
    whole = tmp_path / f"resnet18-{digest[:8]}.pth"
    whole.write_bytes(CONTENT)
    assert find("resnet18", None, whole, tmp_path, Progress(disable=True)).sha256 == digest
    damaged = tmp_path / "resnet18-f37072fd.pth"
    damaged.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"is damaged: .* its name says f37072fd"):
        find("resnet18", None, damaged, tmp_path, Progress(disable=True))
