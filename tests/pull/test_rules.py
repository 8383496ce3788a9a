"""What is refused, what stays, and what can't leave the folder that is pulled into."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pull.models import damaged, foreign, model, put, visible
from tests.pull.servers import Answer, Asked, Registry, WebFolder, manifest
from visavis_server.pull import placing
from visavis_server.pull.errors import InvalidSource, PullFailed
from visavis_server.pull.file_system_source import _web_client
from visavis_server.pull.layout import Collector
from visavis_server.pull.outcomes import Outcome, Round
from visavis_server.pull.placing import Place
from visavis_server.pull.puller import Puller
from visavis_server.pull.source import Entry, Listing
from visavis_server.pull.sources import open_source
from visavis_server.pull.wishes import Limits, Wishes

COLORS = "colors/1/model.onnx"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    put(folder, COLORS, model())
    return folder


def _round(source: Path | str, out: Path, **wishes: object) -> Round:
    opened = open_source(str(source), out)
    return Puller(opened, Place(out), replace(Wishes(), **wishes)).round()  # type: ignore[arg-type]


def _states(outcomes: Round) -> dict[str, str]:
    return {outcome.version: outcome.state for outcome in outcomes.outcomes}


def _refusal(outcomes: Round) -> Outcome:
    (found,) = (outcome for outcome in outcomes.outcomes if outcome.state == "refused")
    return found


def test_a_damaged_model_never_replaces_a_good_one(source: Path, out: Path) -> None:
    _round(source, out)
    put(source, COLORS, damaged(model(gain=3.0), gain=3.0))
    put(source, "shades/1/model.onnx", model("shades"))
    outcomes = _round(source, out)
    assert _states(outcomes) == {"colors/1": "refused", "shades/1": "fetched"}
    assert "the file was changed or damaged" in _refusal(outcomes).note
    assert outcomes.exit_code == 1
    assert visible(out)[COLORS] == model()


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (b"", "it has no graph"),
        (b"<html>Sign in</html>", "not an ONNX model"),
        (model()[:-100], "truncated"),
    ],
)
def test_what_is_no_model_is_refused(source: Path, out: Path, contents: bytes, why: str) -> None:
    put(source, COLORS, contents)
    assert why in _refusal(_round(source, out)).note
    assert visible(out) == {}


def test_a_refused_version_is_fetched_again_only_when_it_changes(web: WebFolder, out: Path) -> None:
    web.files = {f"zoo/{COLORS}": damaged(model())}
    puller = Puller(open_source(f"http://{web.address}/zoo", out), Place(out), Wishes())
    first = _refusal(puller.round())
    assert len(web.downloads()) == 1
    assert _refusal(puller.round()) == first
    assert len(web.downloads()) == 1
    web.files = {f"zoo/{COLORS}": model()}
    assert _states(puller.round()) == {"colors/1": "fetched"}


def test_the_registrys_digest_is_checked_too(registry: Registry, out: Path) -> None:
    registry.push("1", {COLORS: foreign()})
    (digest,) = registry.blobs
    registry.blobs[digest] = foreign()[:-1] + b"x"
    outcomes = _round(f"oci://{registry.address}/zoo:1", out)
    assert "do not have the digest of the source" in _refusal(outcomes).note


def test_a_digest_in_the_url_names_the_manifest(registry: Registry, out: Path) -> None:
    digest = registry.push("1", {COLORS: model()})
    url = f"oci://{registry.address}/zoo@{digest}"
    assert _states(_round(url, out)) == {"colors/1": "fetched"}
    registry.manifests[digest] = manifest([])
    with pytest.raises(PullFailed, match="another digest"):
        _round(url, out)


def test_files_without_a_digest_are_taken_unless_one_is_required(source: Path, out: Path) -> None:
    put(source, COLORS, foreign())
    assert "--require-digest is set" in _refusal(_round(source, out, require_digest=True)).note
    (outcome,) = _round(source, out).outcomes
    assert (outcome.state, outcome.note) == ("fetched", "no digest in the file")


def test_a_document_beside_the_model_is_fetched_and_read(source: Path, out: Path) -> None:
    put(source, COLORS, foreign())
    put(source, "colors/1/model.json", b"{}")
    assert "does not follow schema" in _refusal(_round(source, out)).note


_OUTSIDE = (
    "../evil/1/model.onnx",
    "/evil/1/model.onnx",
    "..",
    "evil/../1/model.onnx",
    "evil/1/../../../model.onnx",
    "evil/1/sub/model.onnx",
    "evil/01/model.onnx",
    "evil/99999999999/model.onnx",
    "ev il/1/model.onnx",
    "évil/1/model.onnx",
    "evil\n/1/model.onnx",
    "evil\x1b[2J/1/model.onnx",
    ".visavis-pull/1/model.onnx",
    "-evil/1/model.onnx",
    "evil.onnx",
    "evil/model.onnx",
    "C:\\evil/1/model.onnx",
)


def test_no_title_leads_out_of_the_folder(registry: Registry, tmp_path: Path, out: Path) -> None:
    registry.push("1", {COLORS: model(), **dict.fromkeys(_OUTSIDE, model())})
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)}
    outcomes = _round(f"oci://{registry.address}/zoo:1", out)
    assert visible(out) == {COLORS: model()}
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(out)} == before
    assert [path for path in outcomes.passed_over if "il" not in path] == []
    assert all(path.isprintable() for path in outcomes.passed_over)
    assert len(outcomes.passed_over) >= 10


def test_no_link_of_a_page_leads_out_of_the_source(web: WebFolder, out: Path) -> None:
    web.files = {f"zoo/{COLORS}": model(), "other/shades/1/model.onnx": model("shades")}
    index = f'<a href="/other/shades/">x</a><a href="http://{web.address}/other/shades/">y</a>'
    inner = web.answer

    def answer(asked):  # type: ignore[no-untyped-def]
        found = inner(asked)
        is_root = asked.path.rstrip("/") == "/zoo"
        return replace(found, body=found.body + index.encode()) if is_root else found

    web.answer = answer  # type: ignore[method-assign]
    assert _states(_round(f"http://{web.address}/zoo", out)) == {"colors/1": "fetched"}


@pytest.mark.parametrize("what", ["page", "range"])
def test_a_web_server_cannot_fill_the_memory(web: WebFolder, out: Path, what: str) -> None:
    web.files = {f"zoo/{COLORS}": model()}
    inner, endless = web.answer, bytes(20 << 20)

    def answer(asked: Asked) -> Answer:
        if what == "page" and asked.path.rstrip("/") == "/zoo":
            return Answer(body=endless, headers={"Content-Type": "text/html"})
        if what == "range" and asked.range and asked.method == "GET":
            return Answer(206, endless, {"Content-Range": "bytes 0-9/10"})
        return inner(asked)

    web.answer = answer  # type: ignore[method-assign]
    why = "sends more than 16777216 bytes as a page, or as a part of a file"
    if what == "page":
        with pytest.raises(PullFailed, match=why):
            _round(f"http://{web.address}/zoo", out)
    else:
        assert why in _refusal(_round(f"http://{web.address}/zoo", out)).note


@pytest.mark.parametrize("charset", ["utf-8", "punycode", "zlib", "x"])
def test_a_page_is_read_whatever_its_character_set(web: WebFolder, out: Path, charset: str) -> None:
    web.files = {f"zoo/{COLORS}": model()}
    kind, inner = {"Content-Type": f"text/html; charset={charset}"}, web.answer

    def answer(asked: Asked) -> Answer:
        found = inner(asked)
        return found if found.contents else replace(found, headers=kind)

    web.answer = answer  # type: ignore[method-assign]
    assert _states(_round(f"http://{web.address}/zoo", out)) == {"colors/1": "fetched"}


async def test_of_a_page_only_its_links_are_searched(web: WebFolder) -> None:
    # The pattern of fsspec takes time that grows with the cube of the number of spaces.
    links = b"""<A  class="x" HREF='1/'>, http://host/a/b"""
    page = b"<a" + b" " * 100_000 + links + b'\xff<a href="' + b"x" * 2000 + b"\n<a href="
    web.answer = lambda asked: Answer(body=page)  # type: ignore[method-assign]
    client = await _web_client()
    async with client, client.get(f"http://{web.address}/") as response:
        text = await response.text(errors="ignore")
    found = ["1/", "http://host/a/b", "x" * 1024]
    assert text.splitlines() == [f'<a href="{link}">' for link in found]


def test_links_and_models_of_a_page_are_limited(web: WebFolder, out: Path) -> None:
    links = 100_001

    def answer(asked: Asked) -> Answer:
        many = links if asked.path.endswith("/zoo/") else 1
        return Answer(body=b"".join(b'<a href="m%d/">' % number for number in range(many)))

    web.answer = answer  # type: ignore[method-assign]
    with pytest.raises(PullFailed, match="the page has more than 100000 links"):
        _round(f"http://{web.address}/zoo", out)
    links = 2000
    web.forget()
    with pytest.raises(PullFailed, match="more than 1000 models; nothing was fetched"):
        _round(f"http://{web.address}/zoo", out)
    assert len(web.requests) <= 1001


def test_models_without_versions_are_limited_too(source: Path, out: Path) -> None:
    for name in ("empty", "hollow"):
        (source / name).mkdir()
    with pytest.raises(PullFailed, match="more than 2 models; nothing was fetched"):
        _round(source, out, limits=Limits(versions=2))
    chosen = frozenset(("colors",))
    few = Limits(versions=2)
    assert _states(_round(source, out, limits=few, models=chosen)) == {"colors/1": "fetched"}
    for version in ("2", "3"):
        put(source, f"colors/{version}/model.onnx", model())
    with pytest.raises(PullFailed, match="more than 2 versions; nothing was fetched"):
        _round(source, out, limits=few, models=chosen)


def test_links_of_a_folder_are_not_followed(source: Path, tmp_path: Path, out: Path) -> None:
    secret = put(tmp_path / "secret", "model.onnx", model("secret"))
    (source / "secret" / "1").mkdir(parents=True)
    (source / "secret" / "1" / "model.onnx").symlink_to(secret)
    (source / "colors" / "2").symlink_to(secret.parent)
    (source / "linked").symlink_to(source / "colors")
    os.mkfifo(put(source, "pipe/1/x", b"").with_name("model.onnx"))
    outcomes = _round(source, out)
    assert _states(outcomes) == {"colors/1": "fetched"}
    assert "links are not followed" in outcomes.passed_over["secret/1/model.onnx"]
    assert "pipe/1/model.onnx" in outcomes.passed_over


def test_links_in_the_repository_are_not_written_through(
    source: Path, tmp_path: Path, out: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "colors").symlink_to(elsewhere)
    assert "is not a folder of its own" in _refusal(_round(source, out)).note
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(versions=1), "more than 1 models; nothing was fetched"),
        (Limits(total_bytes=2000), "the limit is 2000: raise --max-total-bytes"),
    ],
)
def test_a_source_beyond_a_limit_is_refused_as_a_whole(
    source: Path, out: Path, limits: Limits, sentence: str
) -> None:
    put(source, "shades/1/model.onnx", model("shades"))
    with pytest.raises(PullFailed, match=sentence):
        _round(source, out, limits=limits)
    assert visible(out) == {}


def test_a_file_beyond_the_limit_is_refused_alone(source: Path, out: Path) -> None:
    put(source, "shades/1/model.onnx", model("shades", extra_bytes=10_000))
    put(source, "colors/1/model.json", b" " * (17 << 20))
    put(source, "colors/2/model.onnx", model())
    outcomes = _round(source, out, limits=Limits(file_bytes=5000))
    assert _states(outcomes) == {
        "colors/1": "refused",
        "colors/2": "fetched",
        "shades/1": "refused",
    }
    assert "raise --max-file-bytes" in outcomes.outcomes[2].note


def test_only_the_chosen_models_are_pulled(source: Path, out: Path) -> None:
    put(source, "shades/1/model.onnx", model("shades"))
    assert _states(_round(source, out, models=frozenset(("shades",)))) == {"shades/1": "fetched"}
    with pytest.raises(PullFailed, match="holds no model tints"):
        _round(source, out, models=frozenset(("shades", "tints")))


def test_a_version_of_another_origin_is_kept(source: Path, out: Path) -> None:
    mine = put(out, COLORS, model(gain=4.0))
    outcomes = _round(source, out)
    assert "does not come from" in _refusal(outcomes).note
    assert mine.read_bytes() == model(gain=4.0)
    mine.write_bytes(model())  # the same as at the source
    assert _states(_round(source, out)) == {"colors/1": "adopted"}
    assert _states(_round(source, out)) == {"colors/1": "unchanged"}


def test_a_file_that_was_changed_here_is_fetched_again(source: Path, out: Path) -> None:
    _round(source, out)
    (out / COLORS).write_bytes(damaged(model()))
    assert _states(_round(source, out)) == {"colors/1": "replaced"}
    (out / COLORS).unlink()
    _round(source, out)
    os.utime(out / COLORS, (1, 1))  # its contents are the same
    assert _states(_round(source, out)) == {"colors/1": "unchanged"}
    assert visible(out) == {COLORS: model()}


def test_removed_versions_stay_unless_told_otherwise(source: Path, out: Path) -> None:
    put(source, "colors/2/model.onnx", model(gain=2.0))
    put(source, "shades/1/model.onnx", model("shades"))
    put(out, "mine/1/model.onnx", model("mine"))
    _round(source, out)
    (source / "colors" / "2" / "model.onnx").rename(source / "kept.onnx")
    (source / "colors" / "2").rmdir()
    (source / "shades" / "1" / "model.onnx").unlink()
    (source / "shades" / "1").rmdir()
    _round(source, out)
    assert len(visible(out)) == 4
    assert _states(_round(source, out, delete=True, models=frozenset(("colors",)))) == {
        "colors/1": "unchanged",
        "colors/2": "removed",
    }
    assert _states(_round(source, out, delete=True))["shades/1"] == "removed"
    assert visible(out) == {COLORS: model(), "mine/1/model.onnx": model("mine")}
    assert not (out / "shades").exists()


def test_an_empty_source_removes_nothing(source: Path, out: Path) -> None:
    _round(source, out)
    (source / COLORS).unlink()
    with pytest.raises(PullFailed, match=r"holds no NAME/VERSION/model\.onnx"):
        _round(source, out, delete=True)
    (source / "colors" / "1").rmdir()
    (source / "colors").rmdir()
    source.rmdir()
    with pytest.raises(PullFailed, match="not a folder"):
        _round(source, out, delete=True)
    assert visible(out) == {COLORS: model()}


def test_two_pulls_do_not_write_into_one_folder(source: Path, out: Path) -> None:
    place = Place(out)
    with place.locked(), pytest.raises(PullFailed, match="another pull is at work"):
        _round(source, out)
    _round(source, out)


def test_leftovers_of_a_killed_pull_are_removed(source: Path, out: Path) -> None:
    put(out, ".visavis-pull/staged/abc/model.onnx", b"half")
    put(out, ".visavis-pull/parts/of-another-version.part", b"half")
    _round(source, out)
    left = [path.name for path in (out / ".visavis-pull").rglob("*") if path.is_file()]
    assert left == ["lock"]


def test_a_source_and_a_folder_in_each_other_are_refused(source: Path) -> None:
    for into in (source, source / "models", source.parent):
        with pytest.raises(InvalidSource, match="contain one another"):
            open_source(str(source), into)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_replaced_version_is_never_missing(
    source: Path, out: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(placing.ctypes, "CDLL", lambda *args, **options: object())
    contents = [model(gain=1.0), model(gain=2.0)]
    seen: set[bytes] = set()
    missing = 0
    ended = threading.Event()
    _round(source, out)

    def look() -> None:
        nonlocal missing
        while not ended.is_set():
            try:
                seen.add((out / COLORS).read_bytes())
            except FileNotFoundError:
                missing += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(20):
            put(source, COLORS, contents[number % 2])
            assert _states(_round(source, out)) == {"colors/1": "replaced"}
    finally:
        ended.set()
        watcher.join()
    assert seen <= {model(), *contents}
    # Without the system call there is a moment, which a server's two looks do not notice.
    assert not (can_exchange and missing)


def test_two_versions_are_swapped_by_one_call(tmp_path: Path) -> None:
    new, old = (
        put(tmp_path, f"{name}/model.onnx", name.encode()).parent for name in ("new", "old")
    )
    Place(tmp_path / "models")._exchange(new, old)
    # Two renames would leave no folder at the old place for a moment, nor at the new one now.
    assert [(each / "model.onnx").read_bytes() for each in (new, old)] == [b"old", b"new"]


def test_a_failing_disk_is_reported_and_leaves_what_was_there(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _round(source, out)
    put(source, COLORS, model(gain=2.0))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("visavis_server.pull.puller.write_record", full)
    with pytest.raises(PullFailed, match="can't be written: No space left on device"):
        _round(source, out)
    assert visible(out) == {COLORS: model()}


Manifest = Callable[[Registry], Mapping[str, bytes]]


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"[]", "not an artifact with layers"),
        (b"{" * 5000, "not an artifact with layers"),
        (b'{"manifests": []}', "not an artifact with layers"),
        (b" " * (5 << 20), "larger than 4194304 bytes"),
        (manifest([{"digest": "md5:1", "size": 1, "annotations": {}}]), "holds no NAME/VERSION"),
        (
            manifest(
                [
                    {
                        "digest": "sha256:../../x",
                        "size": 1,
                        "annotations": {"org.opencontainers.image.title": COLORS},
                    }
                ]
            ),
            "no SHA-256 digest",
        ),
    ],
)
def test_a_strange_manifest_is_refused(
    registry: Registry, out: Path, contents: bytes, sentence: str
) -> None:
    registry.put_manifest("1", contents)
    with pytest.raises(PullFailed, match=sentence):
        _round(f"oci://{registry.address}/zoo:1", out)


def test_a_manifest_may_hold_nonsense_beside_models(registry: Registry, out: Path) -> None:
    registry.push("1", {COLORS: model()})
    (layer,) = json.loads(registry.manifests["1"])["layers"]
    other = {**layer, "digest": f"sha256:{'0' * 64}"}
    nonsense = [{"annotations": []}, {"annotations": {"title": 1}}, {}]
    registry.put_manifest("1", manifest([*nonsense, layer, other]))
    outcomes = _round(f"oci://{registry.address}/zoo:1", out)
    assert _states(outcomes) == {"colors/1": "fetched"}
    assert outcomes.passed_over == {COLORS: "it is there twice; the first is fetched"}


def test_a_packed_folder_is_named(registry: Registry, out: Path) -> None:
    unpack = {"io.deis.oras.content.unpack": "true"}
    registry.push("1", {"models": b"tar"}, **unpack)
    with pytest.raises(PullFailed, match="it is a packed folder; push files"):
        _round(f"oci://{registry.address}/zoo:1", out)


@pytest.mark.parametrize("size", [-1, 10**4000])
def test_an_impossible_size_is_passed_over(out: Path, size: int) -> None:
    found = Collector("hf://team/zoo", lambda name: True, 10)
    found.enters_version("colors", "1", is_folder=True)
    found.add(Entry(COLORS, size, "tag"))
    assert found.listing() == Listing([], {COLORS: "the source states an impossible size"})


_TOO_LONG = b"x" * (1 << 20)


def _registry_says(registry: Registry, where: str) -> Callable[[Asked], Answer]:
    """Return what answers with a long text at one place of the conversation with a registry."""
    inner = registry.answer

    def answer(asked: Asked) -> Answer:
        found = inner(asked)
        if where == "redirection" and "/manifests/" in asked.path:
            return Answer(307, _TOO_LONG, {"Location": "/elsewhere"})
        if where == "challenge" and found.status == 401:
            return Answer(401, headers={"WWW-Authenticate": 'Bearer realm="' + "a" * 5000})
        if where in ("token", "error") and asked.path.startswith("/token"):
            return Answer(200 if where == "token" else 500, _TOO_LONG)
        return found

    return answer


@pytest.mark.parametrize("where", ["redirection", "challenge", "token", "error"])
def test_a_registry_cannot_fill_the_memory(registry: Registry, out: Path, where: str) -> None:
    registry.push("1", {COLORS: model()})
    registry.password, registry.tokens = "c2VjcmV0", set()
    registry.answer = _registry_says(registry, where)  # type: ignore[method-assign]
    with pytest.raises(PullFailed, match="sends a challenge, a token or an error that is too long"):
        _round(f"oci://{registry.address}/zoo:1", out)


@pytest.mark.parametrize("scheme", ["Bearer", 'Bearer realm=""', "Digest"])
def test_a_challenge_without_a_token_service_is_a_refusal(
    registry: Registry, out: Path, scheme: str
) -> None:
    challenge = {"WWW-Authenticate": scheme}
    registry.answer = lambda asked: Answer(401, headers=challenge)  # type: ignore[method-assign]
    with pytest.raises(PullFailed, match=r"access denied: .*: status 401; log in"):
        _round(f"oci://{registry.address}/zoo:1", out)
