"""The sources of settings, their documentation, and the errors for invalid ones."""

import codecs
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from visavis_server.errors import StartupError
from visavis_server.settings import ImageLimits, Settings, load_settings

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and no VISAVIS_ variables."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"VISAVIS_{name.upper()}", raising=False)


def write(text: str, name: str = "visavis.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_safe_and_local() -> None:
    settings = load_settings({})
    assert settings.grpc == "127.0.0.1:8001"
    assert settings.models == Path("models")
    assert settings.device == "auto"
    assert settings.reflection is False
    assert settings.image_limits == ImageLimits(16 << 20, 150_000_000, 100)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings({}).queue_size == 512
    write("queue_size = 10\n")
    assert load_settings({}).queue_size == 10
    monkeypatch.setenv("VISAVIS_QUEUE_SIZE", "20")
    assert load_settings({}).queue_size == 20
    assert load_settings({"queue_size": 30}).queue_size == 30


def test_a_named_file_is_read_instead_of_the_default_one() -> None:
    write('grpc = "127.0.0.1:1"\n')
    other = write('grpc = "127.0.0.1:2"\n', "other.toml")
    assert load_settings({}, other).grpc == "127.0.0.1:2"


def test_a_byte_order_mark_of_the_file_is_no_part_of_it() -> None:
    Path("visavis.toml").write_bytes(codecs.BOM_UTF8 + b"queue_size = 10\r\n")
    assert load_settings({}).queue_size == 10


def test_a_file_that_cannot_be_decoded_is_named() -> None:
    Path("visavis.toml").write_bytes("queue_size = 10\n".encode("utf-16"))
    with pytest.raises(StartupError, match=r"visavis\.toml"):
        load_settings({})


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose writes them for `${NAME:-}`."""
    for name in ("GRPC", "QUEUE_SIZE", "TOKENS", "HTTP_HOSTS", "LOW_MEMORY"):
        monkeypatch.setenv(f"VISAVIS_{name}", "")
    assert load_settings({}).model_dump() == Settings().model_dump()


@pytest.mark.parametrize("given", ["a.example, B.example", '["a.example", "B.example"]'])
def test_lists_in_the_environment_are_commas_or_json(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_HTTP_HOSTS", given)
    assert load_settings({}).http_hosts == ("a.example", "b.example")


def test_a_list_that_is_broken_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_CORS_ORIGINS", '["https://a.example"')
    with pytest.raises(StartupError, match="cors_origins"):
        load_settings({})


@pytest.mark.parametrize("value", [" ", "\t", "\r"])
def test_variables_of_blanks_count_as_unset(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"VISAVIS_{name.upper()}", value)
    assert load_settings({}).model_dump() == Settings().model_dump()


def test_blanks_around_a_variable_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an env_file with Windows' line breaks leaves them."""
    given = {"GRPC": " localhost:1\r", "CORES": "3 ", "LOW_MEMORY": " true\r", "TOKENS": "t\r"}
    for name, value in given.items():
        monkeypatch.setenv(f"VISAVIS_{name}", value)
    settings = load_settings({})
    assert (settings.grpc, settings.cores, settings.low_memory) == ("localhost:1", 3, True)
    assert settings.tokens == Path("t")


def test_words_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_LOG_LEVEL", "INFO")
    settings = load_settings({"device": "CPU", "log_format": "Json"})
    assert (settings.device, settings.log_format, settings.log_level) == ("cpu", "json", "info")


def test_origins_are_written_as_browsers_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_CORS_ORIGINS", "HTTPS://A.Example/,http://localhost:3000, *")
    origins = load_settings({}).cors_origins
    assert origins == ("https://a.example", "http://localhost:3000", "*")


@pytest.mark.parametrize(
    "origin", ["a.example", "https://", "https://a.example/app", "//a", "https://*.a"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(StartupError, match=r"cors_origins: .*is not an origin such as https://"):
        load_settings({"cors_origins": [origin]})


def test_a_collector_is_named_in_any_letters() -> None:
    assert load_settings({"trace": "HTTP://Collector:4317/"}).trace == "http://collector:4317"
    with pytest.raises(StartupError, match="trace: it must be http://HOST:PORT"):
        load_settings({"trace": "collector:4317"})


def test_a_host_with_a_port_is_known_by_its_name() -> None:
    hosts = load_settings({"http_hosts": ["GPU.example:8002", "[::1]:8002"]}).http_hosts
    assert hosts == ("gpu.example", "[::1]")
    for wrong in ("https://a", "*", "*.example", "a/b"):
        with pytest.raises(
            StartupError, match=rf"http_hosts: '{re.escape(wrong)}' is not a host name"
        ):
            load_settings({"http_hosts": [wrong]})


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, without HOME."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_home_is_found_in_the_environment_and_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell puts it there."""
    monkeypatch.setenv("HOME", "/home/us")
    monkeypatch.setenv("VISAVIS_MODELS", "~/models")
    write('tokens = "~/tokens"\n')
    settings = load_settings({})
    assert (settings.models, settings.tokens) == (Path("/home/us/models"), Path("/home/us/tokens"))


@pytest.mark.usefixtures("homeless")
def test_without_a_home_only_tensorrt_is_refused() -> None:
    assert load_settings({}).engine_dir() == Path("~/.cache/visavis/engines")
    with pytest.raises(StartupError, match="this user has no home folder; set cache_dir"):
        load_settings({"device": "tensorrt"}).engine_dir()


def test_a_folder_for_engines_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "engines"
    assert load_settings({"cache_dir": folder}).engine_dir() == folder
    with pytest.raises(
        StartupError, match=f"can't create {folder} for .*: Not a directory; set cache_dir"
    ):
        load_settings({"cache_dir": folder, "device": "tensorrt"}).engine_dir()


def test_engines_are_kept_where_only_this_user_writes(tmp_path: Path) -> None:
    """An engine is code."""
    folder = tmp_path / "cache" / "engines"
    given = {"cache_dir": folder, "device": "tensorrt"}
    assert load_settings(given).engine_dir() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert load_settings(given).engine_dir() == folder
    folder.chmod(0o775)
    with pytest.raises(StartupError, match=f"other users may write to {folder}.*chmod go-w"):
        load_settings(given).engine_dir()


@pytest.mark.parametrize("gpu", ["0", 3, "GPU-8f1c2a4e", "MIG-GPU-8f1c2a4e-0011/1/0"])
def test_a_gpu_is_a_number_or_a_uuid(gpu: object) -> None:
    assert load_settings({"gpu": gpu}).gpu == str(gpu)


@pytest.mark.parametrize("gpu", ["-1", "cuda:0", "0,1", "GPU-", "8f1c2a4e"])
def test_anything_else_names_no_gpu(gpu: str) -> None:
    with pytest.raises(StartupError, match="gpu: it must be a number, or a UUID such as GPU-8f1c"):
        load_settings({"gpu": gpu})


def test_a_table_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_TUNING", '{"resnet50": {"batch": 2}}')
    assert load_settings({}).tuning["resnet50"].batch == 2
    monkeypatch.setenv("VISAVIS_TUNING", "batch=2")
    with pytest.raises(StartupError, match=r"tuning: it must be valid JSON .*got 'batch=2'"):
        load_settings({})


def test_a_named_file_must_exist() -> None:
    with pytest.raises(StartupError, match=r"none\.toml does not exist"):
        load_settings({}, Path("none.toml"))


@pytest.mark.parametrize("text", ["queue_size = ", "= 3", "queue_size = 1\nqueue_size = 2\n"])
def test_a_file_with_broken_syntax_is_named(text: str) -> None:
    write(text)
    with pytest.raises(StartupError, match=r"visavis\.toml"):
        load_settings({})


def test_an_unknown_key_in_the_file_is_named() -> None:
    write("queue_sise = 10\n")
    with pytest.raises(StartupError, match="queue_sise"):
        load_settings({})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "gpu"),
        ("cores", "-1"),
        ("cores", "many"),
        ("queue_size", "0"),
        ("grace_s", "-1"),
        ("log_format", "xml"),
        ("max_decoded_bytes", "0"),
        ("reflection", "perhaps"),
    ],
)
def test_a_wrong_value_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    monkeypatch.setenv(f"VISAVIS_{field.upper()}", value)
    with pytest.raises(StartupError, match=f"{field}: .*got '{value}'"):
        load_settings({})


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:",
        ":8001",
        "host:http",
        "::1:8001",
        "2001:db8::1",
        "[::1]",
        "[::1",
        "[127.0.0.1]:80",
        "[::1%]:80",
        "127.0.0.1:65536",
        "http://127.0.0.1:80",
        "unix:",
    ],
)
def test_an_address_that_is_not_whole_is_refused(address: str) -> None:
    with pytest.raises(StartupError, match=r"grpc: .*HOST:PORT"):
        load_settings({"grpc": address})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:0",
        "localhost:8001",
        "0.0.0.0:80",
        "[::1]:8001",
        "[fe80::1%eth0]:8001",
        "unix:/run/v.sock",
    ],
)
def test_an_address_is_a_host_with_a_port_or_a_unix_socket(address: str) -> None:
    assert load_settings({"grpc": address, "insecure": True}).grpc == address


TLS = {"tls_certificate": "chain.pem", "tls_private_key": "key.pem"}


@pytest.mark.parametrize("address", ["0.0.0.0:8001", "[::]:8001", "10.0.0.7:80", "server.lan:80"])
@pytest.mark.parametrize("doors", [{}, {"tokens": "tokens"}, TLS])
def test_a_public_bind_without_tls_and_authentication_is_refused(
    address: str, doors: dict[str, str]
) -> None:
    with pytest.raises(StartupError, match="is a public address, which requires TLS"):
        load_settings({"grpc": address, **doors})


@pytest.mark.parametrize(
    "doors", [{**TLS, "tokens": "t"}, {**TLS, "tls_client_ca": "ca"}, {"insecure": True}]
)
def test_a_public_bind_takes_both_or_says_insecure(doors: dict[str, str]) -> None:
    assert load_settings({"grpc": "0.0.0.0:8001", **doors}).grpc == "0.0.0.0:8001"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("LocalHost:8001", "localhost:8001"),
        ("[2001:DB8::A]:08001", "[2001:db8::a]:8001"),
        ("unix:///run/V.sock", "unix:/run/V.sock"),
    ],
)
def test_an_address_has_one_form(given: str, address: str) -> None:
    assert load_settings({"grpc": given, "insecure": True}).grpc == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("::1:8001", "IPv6 addresses need brackets"),
        ("localhost", "the port is missing"),
        ("[1.2.3.4]:80", r"\[1.2.3.4\] is not an IPv6 address"),
        ("a..b:80", "'a..b' is not a host name"),
        ("unix://run/v.sock", "must be absolute: unix:///PATH"),
        ("unix:/" + "ä" * 60, "at most 107 bytes, but this one has 121"),
    ],
)
def test_an_invalid_address_is_refused_with_the_reason(address: str, words: str) -> None:
    with pytest.raises(StartupError, match=words):
        load_settings({"grpc": address})


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "[::1%lo]:1", "[::ffff:127.0.0.1]:1"],
)
def test_loopback_needs_neither(address: str) -> None:
    assert load_settings({"grpc": address}).grpc == address


def test_public_metrics_are_refused_unless_insecure() -> None:
    with pytest.raises(StartupError, match="metrics need no token"):
        load_settings({"metrics": "0.0.0.0:9000"})
    assert load_settings({"metrics": "0.0.0.0:9000", "insecure": True}).metrics == "0.0.0.0:9000"


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(
        StartupError, match="tls_certificate and tls_private_key must be set together"
    ):
        load_settings({"tls_certificate": "chain.pem"})
    with pytest.raises(StartupError, match="tls_client_ca requires tls_certificate"):
        load_settings({"tls_client_ca": "ca.pem"})


@pytest.mark.parametrize("other", ["http", "metrics"])
def test_two_doors_are_not_one(other: str) -> None:
    with pytest.raises(
        StartupError, match=f"grpc and {other} are both localhost:1; use a different port"
    ):
        load_settings({"grpc": "localhost:1", other: "LOCALHOST:01"})
    load_settings({"grpc": "localhost:0", other: "localhost:0"})


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(StartupError, match=r"device.*queue_size"):
        load_settings({"device": "gpu", "queue_size": 0})


def test_variables_of_other_parts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_WEIGHTS", "/weights")
    monkeypatch.setenv("VISAVIS_SERVER", "localhost:1")
    assert load_settings({}).device == "auto"


def test_all_usable_cores_are_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visavis_server.settings.fields.usable_cores", lambda: 5)
    assert load_settings({}).core_count == 5
    assert load_settings({"cores": 3}).core_count == 3


def test_settings_do_not_change() -> None:
    settings = load_settings({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.device = "cpu"


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("que_size = 3\n")
    with pytest.raises(StartupError, match=r"unknown setting que_size; did you mean queue_size\?$"):
        load_settings({}, file)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"cores": "many"}, "settings: cores: it must be a valid integer, got 'many'"),
        (
            {"device": "quantum"},
            "device: it must be 'auto', 'cpu', .* or 'tensorrt', got 'quantum'",
        ),
        (
            {"grpc": "127.0.0.1:99999"},
            "settings: grpc: the port must be a number from .*, got '127.0.0.1:99999'",
        ),
    ],
)
def test_an_invalid_value_is_refused_in_plain_words(flags: dict[str, str], told: str) -> None:
    with pytest.raises(StartupError, match=told):
        load_settings(flags)


def test_old_names_are_accepted_with_a_note_from_every_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("queue_s = 5\n[tuning.resnet50]\nalone_threads = 2\n")
    monkeypatch.setenv("VISAVIS_WATCH_S", "3")
    settings = load_settings({})
    assert (settings.max_queue_wait_s, settings.watch_interval_s) == (5, 3)
    assert settings.tuning["resnet50"].exclusive_threads == 2
    assert settings.notes == [
        (
            "VISAVIS_WATCH_S has been renamed to VISAVIS_WATCH_INTERVAL_S; the next release "
            "rejects the old name"
        ),
        "queue_s has been renamed to max_queue_wait_s; the next release rejects the old name",
    ]
    assert load_settings({"watch_s": 7}).watch_interval_s == 7
    # What is said by its present name counts.
    monkeypatch.setenv("VISAVIS_WATCH_INTERVAL_S", "4")
    assert load_settings({}).watch_interval_s == 4
    assert load_settings({"max_queue_wait_s": 6}).notes != []


def test_a_variable_that_is_almost_a_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_QUEUESIZE", "7")
    monkeypatch.setenv("VISAVIS_MAX_ENCODED_BYTE", "7")
    # As Kubernetes sets them for a service called visavis.
    monkeypatch.setenv("VISAVIS_PORT_8001_TCP", "tcp://10.0.0.1:8001")
    monkeypatch.setenv("VISAVIS_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("VISAVIS_SERVER", "127.0.0.1:8001")
    assert sorted(load_settings({}).notes) == [
        (
            "the variable VISAVIS_MAX_ENCODED_BYTE is not a setting; did you mean "
            "VISAVIS_MAX_ENCODED_BYTES?"
        ),
        "the variable VISAVIS_QUEUESIZE is not a setting; did you mean VISAVIS_QUEUE_SIZE?",
    ]


def test_the_models_of_the_demo_are_served_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "models").mkdir(parents=True)
    settings = load_settings({}, None)
    assert settings.models == Path("demo/models")
    assert settings.notes == ["the folder models is missing or empty: serving demo/models"]
    assert load_settings({"models": "mine"}, None).models == Path("mine")
    (tmp_path / "models").mkdir()
    assert load_settings({}, None).models == Path("demo/models")
    (tmp_path / "models" / "mine").mkdir()
    assert load_settings({}, None).models == Path("models")
