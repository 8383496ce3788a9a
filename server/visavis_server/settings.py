"""Every setting of the server: from flags, the environment, a file, or its default.

A flag beats the environment (`VISAVIS_` and the name in capitals), which beats the file
(`visavis.toml`), which beats the default. Nothing else reads any of them.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from visavis_server.addresses import UNIX, is_local, normalized
from visavis_server.errors import StartupError
from visavis_server.runtime.budget import Budget
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.plan import Device

DEFAULT_FILE = Path("visavis.toml")


# By their names in this release; the next one takes only those.
_RENAMED = {"queue_s": "max_queue_wait_s", "watch_s": "watch_interval_s"}
_RENAMED_OF_MODELS = {"alone_threads": "exclusive_threads"}
_PREFIX = "VISAVIS_"
# How alike a variable and a setting must be for the one to be a misspelling of the other:
# Kubernetes sets VISAVIS_PORT and the like for a service called visavis.
_ALIKE = 0.85

_ENDLESS = Budget(sys.maxsize)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused before it is decoded.

    encoded_bytes: of the file. decoded_bytes: width * height * channels * bytes per
    sample, as the file says. jpeg_scans: a progressive JPEG may repeat itself this often.
    decode_ms: CPU that decoding takes at worst, computed from counts in the file's structure.
    budget: what pixels are counted in; by default it has no end.
    """

    encoded_bytes: int = 16 << 20
    decoded_bytes: int = 150_000_000
    jpeg_scans: int = 100
    decode_ms: float = 600.0
    budget: Budget = _ENDLESS


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What is refused before a message is parsed.

    fields: at every level, elements of lists and entries of maps included. text_bytes: of all
    strings together.
    """

    fields: int = 4096
    text_bytes: int = 1 << 20


class TunedPlan(BaseModel):
    """How one model is to be run on one device, as `visavis tune` measured it; see Plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = "cpu"
    goal: Literal["throughput", "latency"] = "throughput"
    threads: Annotated[int, Field(ge=1)] = 1
    instances: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    exclusive_threads: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return _renamed(given, _RENAMED_OF_MODELS, []) if isinstance(given, dict) else given


class Settings(BaseSettings):
    """The server's settings; each field's description is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )
    file: ClassVar[Path | None] = None
    notes: ClassVar[list[str]] = []
    """What to tell whoever set them: names that have changed, variables that mean nothing."""

    models: Path = Field(Path("models"), description="the model repository, a folder")
    grpc: str = Field("127.0.0.1:8001", description="HOST:PORT or unix:PATH to listen on")
    metrics: str | None = Field(
        None, description="HOST:PORT where Prometheus reads /metrics; without it, nowhere"
    )
    triton_metrics: bool = Field(
        False,
        description="give Triton's metrics too (nv_inference_…), for its dashboards and "
        "autoscalers",
    )
    http: str | None = Field(
        None,
        description="HOST:PORT for Connect, gRPC-Web, JSON, metrics and the playground; "
        "without it, none of them",
    )
    http_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names under which the HTTP door on loopback may be addressed too"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may call over HTTP, such as https://example.org"
    )
    device: Literal["auto", Device] = Field(
        "auto",
        description="what runs the models; auto: CUDA where it is usable, else the CPU",
    )
    bf16: bool = Field(
        False, description="compute in bfloat16: faster with openvino, and not quite the original"
    )
    cores: Annotated[int, Field(ge=0)] = Field(
        0, description="cores for decoding and running models; 0: all that are usable"
    )
    streams: Annotated[int, Field(ge=1)] = Field(
        2, description="runs at once on a device: one copies while another runs"
    )
    low_memory: bool = Field(False, description="one session for each model, one image in a run")
    queue_size: Annotated[int, Field(ge=1)] = Field(
        512, description="requests that may wait for one model before new ones are refused"
    )
    max_queue_wait_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds that a request may have to wait; one that would is refused"
    )
    stuck_s: Annotated[float, Field(gt=0)] = Field(
        60.0,
        description="seconds that a core may take for one batch; one that takes longer while work "
        "waits is stuck, and liveness fails",
    )
    tuning: Annotated[dict[str, TunedPlan], NoDecode] = Field(
        default_factory=dict, description="how models are run, by name; `visavis tune` writes it"
    )
    max_encoded_bytes: Annotated[int, Field(ge=1)] = Field(
        16 << 20, description="largest encoded image"
    )
    max_decoded_bytes: Annotated[int, Field(ge=1, le=3 << 28)] = Field(
        150_000_000,
        description="largest decoded image: width * height * channels; a small file can ask for "
        "gigabytes. A phone's 48 megapixels are 146 MB; OpenCV itself decodes up to 2^28 pixels",
    )
    max_jpeg_scans: Annotated[int, Field(ge=1)] = Field(
        100, description="most scans of a progressive JPEG"
    )
    max_annotated_bytes: Annotated[int, Field(ge=1 << 16)] = Field(
        4_000_000,
        description="largest picture with its answer drawn on it; a larger one is drawn smaller: "
        "gRPC clients take answers of 4 MiB unless they are set to take more, and a caller could "
        "ask for answers many times as large as its pictures",
    )
    max_decode_ms: Annotated[float, Field(gt=0)] = Field(
        600.0,
        description="CPU time that decoding one image may take, computed from its structure "
        "before: a small file can ask for a minute; raise it for large progressive JPEGs",
    )
    max_message_bytes: Annotated[int, Field(ge=1)] = Field(
        32 << 20,
        description="largest message: the largest encoded image in JSON, or a raw 4K frame; "
        "tensors of large batches need more",
    )
    memory_budget_bytes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="what all calls together may hold: messages, pixels, answers; what does not "
        "fit is refused. 0: what the cgroup or the machine leaves beside the models",
    )
    max_message_fields: Annotated[int, Field(ge=64)] = Field(
        4096,
        description="fields of a message, elements of lists included; millions of empty ones would "
        "stop the event loop",
    )
    max_message_text_bytes: Annotated[int, Field(ge=1024)] = Field(
        1 << 20,
        description="names, labels and other texts of a message; copying, hashing and printing "
        "long ones would stop the event loop",
    )
    max_metadata_bytes: Annotated[int, Field(ge=1024)] = Field(
        16 << 10, description="largest headers of a call"
    )
    message_timeout_s: Annotated[float, Field(gt=0)] = Field(
        20.0, description="seconds that a call's message has to arrive"
    )
    max_arriving: Annotated[int, Field(ge=1)] = Field(
        256, description="messages that arrive at once; others wait for their turn"
    )
    contended_turn_s: Annotated[float, Field(gt=0)] = Field(
        2.0,
        description="seconds that a message may take to arrive while others wait for a turn: "
        "senders that stall hold up nobody for longer",
    )
    max_arriving_per_connection: Annotated[int, Field(ge=1)] = Field(
        16, description="the same, of each connection"
    )
    max_calls_per_connection: Annotated[int, Field(ge=1)] = Field(
        256, description="calls under way on one connection"
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        1024, description="connections; more are refused"
    )
    handshake_timeout_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="seconds that a connection has to become one"
    )
    max_connection_idle_s: Annotated[float, Field(gt=0)] = Field(
        900.0, description="a connection without calls is closed after these seconds"
    )
    max_connection_age_s: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="a connection is to be opened anew after these seconds"
    )
    keepalive_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="a silent connection is asked after these seconds whether it lives"
    )
    min_ping_interval_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="clients that ping more often are sent away"
    )
    grace_s: Annotated[float, Field(ge=0)] = Field(
        30.0, description="seconds that calls in flight have when the server stops"
    )
    insecure: bool = Field(
        False, description="listen on a public address even without TLS and authentication"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the server's certificate chain; with it, only TLS"
    )
    tls_private_key: Path | None = Field(None, description="PEM file with its private key")
    tls_client_ca: Path | None = Field(
        None, description="PEM file with authorities; clients must show a certificate of theirs"
    )
    tokens: Path | None = Field(
        None, description="file of hashed tokens, as `visavis token` prints them; calls need one"
    )
    open_health: bool = Field(False, description="health checks need no token")
    watch_interval_s: Annotated[float, Field(ge=0)] = Field(
        0.0, description="seconds between looks at the repository for changes; 0: it is not watched"
    )
    load_timeout_s: Annotated[float, Field(gt=0)] = Field(
        120.0,
        description="seconds that a model may take to load and warm up: a file may be made so "
        "that it never does",
    )
    require_all_models: bool = Field(
        False,
        description="end the start if any model can't be served; without it, one bad file keeps "
        "the server from serving no other",
    )
    trace: str | None = Field(
        None,
        description="http://HOST:PORT of an OTLP collector for traces, by gRPC; without it, none",
    )
    admin: bool = Field(False, description="clients may load and unload models, as Triton's do")
    reflection: bool = Field(False, description="whether gRPC reflection is served")
    cache_dir: Path = Field(
        Path("~/.cache/visavis/engines"), description="where TensorRT keeps its engines"
    )
    log_format: Literal["console", "json"] = Field("console", description="how logs are written")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is logged; debug: every call"
    )

    @field_validator("models", "tokens", "tls_certificate", "tls_private_key", "tls_client_ca")
    @classmethod
    def _path(cls, path: Path | None) -> Path | None:
        """Return a path with the user's home in the place of ~, as a shell has it."""
        with suppress(RuntimeError):  # there is no home
            return path and path.expanduser()
        return path

    @field_validator("http_hosts", "cors_origins", mode="before")
    @classmethod
    def _list(cls, given: object) -> object:
        """Return a list from the environment: separated by commas, or in JSON."""
        if not isinstance(given, str):
            return given
        if given.lstrip().startswith("["):
            return _from_json(given)
        return [part.strip() for part in given.split(",") if part.strip()]

    @field_validator("tuning", mode="before")
    @classmethod
    def _table(cls, given: object) -> object:
        """Return a table from the environment: in JSON."""
        return _from_json(given) if isinstance(given, str) else given

    @field_validator("device", "log_format", "log_level", mode="before")
    @classmethod
    def _word(cls, given: object) -> object:
        """Return one of the words that are known; capitals mean nothing."""
        return given.lower() if isinstance(given, str) else given

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """Return origins as browsers write them: in small letters, and without a path."""
        written = tuple(origin.lower().removesuffix("/") for origin in origins)
        for origin in written:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/*\s]+", origin):
                raise ValueError(f"{origin[:80]!r} is no origin, such as https://example.org")
        return written

    @field_validator("http_hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Return names without a port: whatever the port, the name is what counts."""
        for host in hosts:
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^][:@/*\s]+)(:[0-9]{1,5})?", host):
                raise ValueError(f"{host[:80]!r} is no name of a host, such as gpu.example.org")
        return tuple(re.sub(r":[0-9]+$", "", host).lower() for host in hosts)

    @field_validator("grpc")
    @classmethod
    def _address(cls, address: str) -> str:
        return normalized(address)

    @field_validator("trace")
    @classmethod
    def _collector(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        endpoint = endpoint.lower().removesuffix("/")
        if not re.fullmatch(r"https?://[^/\s]+", endpoint):
            raise ValueError("it must be http://HOST:PORT or https://HOST:PORT")
        return endpoint

    @field_validator("metrics", "http")
    @classmethod
    def _http_address(cls, address: str | None) -> str | None:
        if address is not None and address.startswith(UNIX):
            raise ValueError("it must be HOST:PORT or [IPv6]:PORT")
        return address if address is None else normalized(address)

    @model_validator(mode="after")
    def _doors(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_private_key")
        for one, other in combinations(("grpc", "http", "metrics"), 2):
            address = getattr(self, one)
            if address == getattr(self, other) and address and not address.endswith(":0"):
                raise ValueError(f"{one} and {other} are both {address}; give each its own port")
        if self.insecure:
            return self
        authenticated = self.tls_client_ca is not None or self.tokens is not None
        for door in filter(None, (self.grpc, self.http)):
            if not (is_local(door) or (self.tls_certificate and authenticated)):
                raise ValueError(
                    f"{door} can be reached from elsewhere: that takes TLS (tls_certificate, "
                    "tls_private_key) and authentication (tokens or tls_client_ca); insecure does "
                    "without"
                )
        if not (self.metrics is None or is_local(self.metrics)):
            raise ValueError(
                f"{self.metrics} can be reached from elsewhere, and metrics need no token; "
                "serve them on loopback, or say insecure"
            )
        return self

    @property
    def core_count(self) -> int:
        """How many cores decode and run models."""
        return self.cores or usable_cores()

    @property
    def image_limits(self) -> ImageLimits:
        """What is refused before it is decoded."""
        return ImageLimits(
            self.max_encoded_bytes,
            self.max_decoded_bytes,
            self.max_jpeg_scans,
            self.max_decode_ms,
        )

    @property
    def message_limits(self) -> MessageLimits:
        """What is refused before a message is parsed."""
        return MessageLimits(self.max_message_fields, self.max_message_text_bytes)

    def engine_dir(self) -> Path:
        """Return where TensorRT keeps its engines, which only TensorRT needs to exist.

        Raises StartupError if it can't be written.
        """
        try:
            folder = self.cache_dir.expanduser()
        except RuntimeError:  # a user without a home, as in a container
            if self.device == "tensorrt":
                raise StartupError(
                    f"cache_dir is {self.cache_dir}, and this user has no home folder; set "
                    "cache_dir, or the variable HOME"
                ) from None
            return self.cache_dir
        if self.device == "tensorrt":
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StartupError(
                    f"TensorRT's engines can't be kept in {folder}: {error.strerror}; set cache_dir"
                ) from None
        return folder

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the file last; pydantic calls this.

        A variable of blanks is as good as none, as Compose's `${X:-}` makes them.
        """
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = {
            name: text
            for name, value in env_settings.env_vars.items()
            if (text := (value or "").strip())
        }
        cls.notes += _misspelt(env_settings.env_vars)
        env_settings.env_vars = _renamed(env_settings.env_vars, _RENAMED, cls.notes, _PREFIX)
        in_file = _renamed(_read_toml(cls.file), _RENAMED, cls.notes)
        return (init_settings, env_settings, InitSettingsSource(settings_cls, in_file))


def _renamed(
    given: Mapping[str, Any], names: Mapping[str, str], notes: list[str], prefix: str = ""
) -> dict[str, Any]:
    """Return settings by their present names; notes: takes a sentence for each earlier name."""
    present = dict(given)
    for old, new in names.items():
        before, now = (f"{prefix}{name}" for name in (old, new))
        # Variables are compared in small letters, and shown as they are written.
        if before.lower() in present:
            value = present.pop(before.lower())
            present.setdefault(now.lower(), value)
            before, now = (name.upper() if prefix else name for name in (before, now))
            notes.append(f"{before} is now {now}; this is the last release that takes both")
    return present


def _misspelt(variables: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that is almost a setting's."""
    known = [f"{_PREFIX}{name}".lower() for name in (*Settings.model_fields, *_RENAMED)]
    notes = []
    for name in variables:
        if name.lower().startswith(_PREFIX.lower()) and name.lower() not in known:
            for near in get_close_matches(name.lower(), known, 1, _ALIKE):
                notes.append(f"the variable {name.upper()} is no setting; {near.upper()} is one")
    return notes


def _read_toml(file: Path | None) -> dict[str, Any]:
    """Return what a settings file holds; Notepad begins it with a byte order mark."""
    if file is None or not file.is_file():
        return {}
    return tomllib.loads(file.read_text("utf-8-sig"))


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None


def load_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """Return the settings; flags: those that were given, by field name.

    config: the file; None: `visavis.toml` in the working folder, if there is one. Raises
    StartupError, naming each setting that is wrong.
    """

    class FromFile(Settings):
        file = config or DEFAULT_FILE
        notes: ClassVar[list[str]] = []

    try:
        if config is not None and not config.is_file():
            raise StartupError(f"the settings file {config} does not exist")
        return FromFile(**_renamed(flags, _RENAMED, FromFile.notes))
    except ValidationError as error:
        wrong = "; ".join(map(_in_words, error.errors()))
        raise StartupError(f"settings: {wrong}") from None
    except OSError as error:
        raise StartupError(
            f"the settings file {config or DEFAULT_FILE} can't be read: {error.strerror}"
        ) from None
    except ValueError as error:  # TOML syntax
        raise StartupError(f"the settings file {config or DEFAULT_FILE}: {error}") from None


def _in_words(error: Any) -> str:
    """Return one of pydantic's errors as a sentence: which setting, what it must be, its value."""
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, 1)
        return f"there is no setting {name}" + (f"; {near[0]} is one" if near else "")
    must = error["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    must = must.partition(", unable to parse")[0]
    return f"{name}: {must}, got {str(error['input'])[:128]!r}" if name else must
