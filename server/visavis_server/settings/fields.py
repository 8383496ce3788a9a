"""Each setting: its name, type, default, description, and what it must meet."""

import re
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
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
from visavis_server.runtime.cores import usable_cores
from visavis_server.runtime.plan import Device
from visavis_server.settings.limits import ImageLimits, MessageLimits
from visavis_server.settings.sources import (
    PREFIX,
    RENAMED_SETTINGS,
    from_json,
    misspelt,
    read_toml,
    renamed,
)

MAX_WORKERS: Final = 256

_RENAMED_TUNING: Final = {"alone_threads": "exclusive_threads"}


class TunedPlan(BaseModel):
    """How to run one model on one device, as `visavis tune` measured it; see Plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = "cpu"
    goal: Literal["throughput", "latency"] = "throughput"
    threads: Annotated[int, Field(ge=1)] = 1
    instances: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    exclusive_threads: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, table: Any) -> Any:
        return renamed(table, _RENAMED_TUNING, []) if isinstance(table, dict) else table


class Settings(BaseSettings):
    """The server's settings.

    Each field's description is its documentation: the options' help texts and the reference page
    are generated from it.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )
    file: ClassVar[Path | None] = None
    notes: ClassVar[list[str]] = []
    """Warnings for the log: renamed settings, and variables that look like misspelled settings."""

    models: Path = Field(
        Path("models"),
        description="The model repository: a folder of `NAME/VERSION/model.onnx`. Versions are 1 "
        "to 2147483647. Misplaced model files are logged, with the reason.",
    )
    grpc: str = Field(
        "127.0.0.1:8001",
        description="The gRPC address: `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH`. A host name "
        "listens on all its addresses, and `[::]` on IPv4 too.",
    )
    http: str | None = Field(
        None,
        description="`HOST:PORT` for HTTP: Connect, gRPC-Web, JSON, `/metrics` and the playground. "
        "Unset: no HTTP.",
    )
    open: bool = Field(
        False,
        description="Open the playground in a browser once the server is ready. Needs `http`.",
    )
    metrics: str | None = Field(
        None,
        description="`HOST:PORT` that serves `/metrics` alone, for Prometheus. Needs the extra "
        "`http`.",
    )
    triton_metrics: bool = Field(
        False,
        description="Export Triton's metrics too (`nv_inference_request_success`, …), for its "
        "dashboards and autoscalers.",
    )
    trace: str | None = Field(
        None, description="`http://HOST:PORT` of an OTLP collector, over gRPC. Unset: no traces."
    )
    device: Literal["auto", Device] = Field(
        "auto",
        description="`auto`, `cpu`, `openvino`, `cuda` or `tensorrt`. `auto` takes CUDA if it is "
        "usable, else the CPU, and logs its choice. The server does not start on an unusable "
        "device.",
    )
    bf16: bool = Field(
        False,
        description="Compute in bfloat16, with `openvino`: faster and less exact.",
    )
    cores: Annotated[int, Field(ge=0, le=1024)] = Field(
        0,
        description="Cores for decoding and running models. 0: all usable cores, by affinity and "
        "cgroup quota.",
    )
    workers: int | Literal["auto"] = Field(
        1,
        description="Processes that share the address, the cores and the memory, up to 256. `auto` "
        "chooses from the cores, and logs why. See docs/workers.md.",
    )
    streams: Annotated[int, Field(ge=1)] = Field(
        2, description="Concurrent runs on a GPU: one copies while another computes."
    )
    gpu: str = Field(
        "0",
        description="The GPU: its number among those that `CUDA_VISIBLE_DEVICES` makes visible, or "
        "its UUID (`GPU-…`, `MIG-…`), as `nvidia-smi -L` lists it.",
    )
    gpu_memory_bytes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Memory of the GPU for the sessions of all models and workers, in equal parts "
        "for the models that are loaded at the start. 0: no limit for one process; several "
        "workers share 90 %.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Replay runs on a GPU as CUDA graphs: less work for the CPU, more memory. Not "
        "for models whose input size varies.",
    )
    low_memory: bool = Field(
        False, description="Save memory: one session per model, one image per run."
    )
    queue_size: Annotated[int, Field(ge=1)] = Field(
        512, description="Requests that may wait for one model; further requests are rejected."
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the server's certificate chain, reloaded when it changes. If set, "
        "every connection must use TLS.",
    )
    tls_private_key: Path | None = Field(
        None, description="PEM file of the certificate's private key."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of certificate authorities. If set, clients must present a "
        "certificate that one of them issued.",
    )
    tokens: Path | None = Field(
        None,
        description="File of hashed tokens from `visavis token`, reloaded when it changes. If set, "
        "every call needs a token.",
    )
    open_health: bool = Field(False, description="Allow health checks without a token.")
    insecure: bool = Field(
        False, description="Allow public addresses without TLS and authentication."
    )
    watch_interval_s: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Seconds between checks of the repository for changes. 0: no checks."
    )
    max_encoded_bytes: Annotated[int, Field(ge=1)] = Field(
        16 << 20, description="Largest encoded image."
    )
    max_decoded_bytes: Annotated[int, Field(ge=1, le=3 << 28)] = Field(
        150_000_000,
        description="Largest decoded image: width × height × channels, up to 805306368. A phone's "
        "48 megapixels take 146 MB.",
    )
    max_jpeg_scans: Annotated[int, Field(ge=1)] = Field(
        100, description="Most scans of a progressive JPEG."
    )
    max_message_bytes: Annotated[int, Field(ge=1)] = Field(
        32 << 20,
        description="Largest message. The default fits the largest encoded image in JSON and a raw "
        "4K frame; tensors of large batches need more.",
    )
    grace_s: Annotated[float, Field(ge=0)] = Field(
        30.0, description="Seconds for calls in flight to finish when the server stops."
    )
    admin: bool = Field(False, description="Allow clients to load and unload models, as in Triton.")
    reflection: bool = Field(False, description="Serve gRPC reflection.")
    cache_dir: Path = Field(
        Path("~/.cache/visavis/engines"),
        description="Folder for TensorRT's engines, which only the server's user may write to.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of the log: `console` or `json`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Lowest level to log: `debug`, `info`, `warning` or `error`. `debug` logs "
        "every call.",
    )
    max_message_fields: Annotated[int, Field(ge=64)] = Field(
        4096,
        description="Most fields of a message, list elements included: parsing millions of them "
        "would block all other calls.",
    )
    max_message_text_bytes: Annotated[int, Field(ge=1024)] = Field(
        1 << 20,
        description="Most text of a message: names, labels and other strings.",
    )
    max_annotated_bytes: Annotated[int, Field(ge=1 << 16)] = Field(
        4_000_000,
        description="Largest annotated picture; larger ones, and those with more than four pixels "
        "a byte, are scaled down, and the response gives their size. gRPC clients accept 4 MiB by "
        "default.",
    )
    max_decode_ms: Annotated[float, Field(gt=0)] = Field(
        600.0,
        description="CPU time to decode one image, computed from its structure in advance: a small "
        "file can need a minute. Raise it for large progressive JPEGs.",
    )
    http_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further host names that requests to HTTP on loopback may use."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose pages may call over HTTP, such as `https://example.org`.",
    )
    tuning: Annotated[dict[str, TunedPlan], NoDecode] = Field(
        default_factory=dict,
        description="How to run each model, by name. `visavis tune` writes it.",
    )
    max_queue_wait_s: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="Longest wait in the queue, in seconds; requests that would wait longer are "
        "rejected.",
    )
    stuck_s: Annotated[float, Field(gt=0)] = Field(
        60.0,
        description="Seconds after which a core that still runs one batch counts as stuck, if work "
        "waits: liveness then fails.",
    )
    load_timeout_s: Annotated[float, Field(gt=0)] = Field(
        120.0,
        description="Seconds for a model to load and warm up: a crafted file may never finish.",
    )
    require_all_models: bool = Field(
        False,
        description="Refuse to start if any model can't be served, instead of serving the others.",
    )
    message_timeout_s: Annotated[float, Field(gt=0)] = Field(
        20.0,
        description="Seconds for a call's message to arrive, and for the client to read the "
        "response.",
    )
    max_arriving: Annotated[int, Field(ge=1)] = Field(
        256, description="Messages received at once; others wait for their turn."
    )
    max_arriving_per_connection: Annotated[int, Field(ge=1)] = Field(
        16, description="Messages received at once on one connection."
    )
    contended_turn_s: Annotated[float, Field(gt=0)] = Field(
        2.0,
        description="Seconds for a message to arrive while others wait for a turn: bounds how long "
        "a stalled sender holds up others.",
    )
    memory_budget_bytes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Memory for all calls together: messages, pixels and responses; calls that do "
        "not fit are rejected. 0: what the cgroup or the machine has left beside the models; "
        "`visavis doctor` shows it.",
    )
    max_calls_per_connection: Annotated[int, Field(ge=1)] = Field(
        256, description="Concurrent calls on one connection."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        1024,
        description="Connections of each listener. The limit on open files (`ulimit -n`) may lower "
        "it.",
    )
    handshake_timeout_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Seconds for a connection's handshake."
    )
    max_connection_idle_s: Annotated[float, Field(gt=0)] = Field(
        900.0, description="Seconds after which a connection without calls is closed."
    )
    max_connection_age_s: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="Seconds after which clients must reconnect."
    )
    keepalive_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds after which the server pings a silent connection."
    )
    min_ping_interval_s: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description="Shortest interval between a client's pings; clients that ping more often are "
        "disconnected.",
    )
    max_metadata_bytes: Annotated[int, Field(ge=1024)] = Field(
        16 << 10, description="Largest headers of a call."
    )

    @field_validator("models", "tokens", "tls_certificate", "tls_private_key", "tls_client_ca")
    @classmethod
    def _path(cls, path: Path | None) -> Path | None:
        """Expand ~ to the user's home, as a shell does."""
        with suppress(RuntimeError):  # the user has no home
            return path and path.expanduser()
        return path

    @field_validator("gpu", mode="before")
    @classmethod
    def _gpu(cls, value: object) -> str:
        """Parse a number or a UUID."""
        text = str(value).strip()
        if not re.fullmatch(r"[0-9]{1,3}|(GPU|MIG)-[-0-9A-Za-z/]{4,80}", text):
            raise ValueError("it must be a number, or a UUID such as GPU-8f1c2a4e or MIG-3d5e7f90")
        return text

    @field_validator("workers", mode="before")
    @classmethod
    def _worker_count(cls, value: object) -> object:
        """Parse "auto" or a number."""
        text = str(value).strip().lower()
        if text == "auto":
            return text
        if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_WORKERS:
            raise ValueError(f"it must be auto or a number from 1 to {MAX_WORKERS}")
        return int(text)

    @field_validator("http_hosts", "cors_origins", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        """Parse a list from the environment: separated by commas, or in JSON."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return from_json(value)
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("tuning", mode="before")
    @classmethod
    def _table(cls, value: object) -> object:
        """Parse a table from the environment: in JSON."""
        return from_json(value) if isinstance(value, str) else value

    @field_validator("device", "log_format", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        """Ignore the case of keywords."""
        return value.lower() if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """Normalize origins to the form that browsers send: lower case, without a path."""
        written = tuple(origin.lower().removesuffix("/") for origin in origins)
        for origin in written:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/*\s]+", origin):
                raise ValueError(f"{origin[:80]!r} is not an origin such as https://example.org")
        return written

    @field_validator("http_hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Strip ports and lower the case: hosts are compared by name alone."""
        for host in hosts:
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^][:@/*\s]+)(:[0-9]{1,5})?", host):
                raise ValueError(f"{host[:80]!r} is not a host name such as gpu.example.org")
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
    def _listeners(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key must be set together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca requires tls_certificate and tls_private_key")
        if self.open and self.http is None:
            raise ValueError(
                "open needs HTTP, which serves the page; set http, such as --http 127.0.0.1:8000"
            )
        for one, other in combinations(("grpc", "http", "metrics"), 2):
            address = getattr(self, one)
            if address == getattr(self, other) and address and not address.endswith(":0"):
                raise ValueError(
                    f"{one} and {other} are both {address}; use a different port for each"
                )
        if self.workers not in (1, "auto") and self.grpc.startswith(UNIX):
            raise ValueError(
                f"{self.workers} workers can't share a Unix socket, which has one listener; set "
                "grpc to a loopback address such as 127.0.0.1:8001, or workers to 1"
            )
        if self.insecure:
            return self
        authenticated = self.tls_client_ca is not None or self.tokens is not None
        for listener in filter(None, (self.grpc, self.http)):
            if not (is_local(listener) or (self.tls_certificate and authenticated)):
                raise ValueError(
                    f"{listener} is a public address, which requires TLS (tls_certificate, "
                    "tls_private_key) and authentication (tokens or tls_client_ca); set insecure "
                    "to listen without them"
                )
        if not (self.metrics is None or is_local(self.metrics)):
            raise ValueError(
                f"{self.metrics} is a public address, and metrics need no token; serve them on "
                "loopback, or set insecure"
            )
        return self

    @property
    def core_count(self) -> int:
        """The number of cores that decode images and run models."""
        return self.cores or usable_cores()

    @property
    def has_workers(self) -> bool:
        """True if several processes share the addresses."""
        return self.workers != 1

    @property
    def image_limits(self) -> ImageLimits:
        """The limits for images."""
        return ImageLimits(
            self.max_encoded_bytes,
            self.max_decoded_bytes,
            self.max_jpeg_scans,
            self.max_decode_ms,
        )

    @property
    def message_limits(self) -> MessageLimits:
        """The limits for messages."""
        return MessageLimits(self.max_message_fields, self.max_message_text_bytes)

    def engine_dir(self) -> Path:
        """Return the folder for TensorRT's engines; creates it if the device is tensorrt.

        Raises StartupError if it can't be created.
        """
        try:
            folder = self.cache_dir.expanduser()
        except RuntimeError:  # the user has no home, as in a container
            if self.device == "tensorrt":
                raise StartupError(
                    f"cache_dir is {self.cache_dir}, but this user has no home folder; set "
                    "cache_dir or the variable HOME"
                ) from None
            return self.cache_dir
        if self.device == "tensorrt":
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                mode = folder.stat().st_mode
            except OSError as error:
                raise StartupError(
                    f"can't create {folder} for TensorRT's engines: {error.strerror}; set cache_dir"
                ) from None
            if mode & 0o022:
                raise StartupError(
                    f"other users may write to {folder}, and TensorRT's engines are code; "
                    "`chmod go-w` it, or set cache_dir"
                )
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

        Blank variables count as unset: Compose's `${X:-}` sets them.
        """
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = {
            name: text
            for name, value in env_settings.env_vars.items()
            if (text := (value or "").strip())
        }
        cls.notes += misspelt(env_settings.env_vars, cls.model_fields)
        env_settings.env_vars = renamed(env_settings.env_vars, RENAMED_SETTINGS, cls.notes, PREFIX)
        in_file = renamed(read_toml(cls.file), RENAMED_SETTINGS, cls.notes)
        return (init_settings, env_settings, InitSettingsSource(settings_cls, in_file))


def option_type(name: str) -> Any:
    """Return the type of a setting's option: bool, int, float, Path or str."""
    annotation = Settings.model_fields[name].annotation
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    # Keywords are validated with the other settings.
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float, Path) else str


def default_text(name: str) -> str:
    """Return a setting's default in words; "" if it is unset, off or empty."""
    default = Settings.model_fields[name].default
    if isinstance(default, bool) or not isinstance(default, int | float | str | Path):
        return ""
    if isinstance(default, int) and name.endswith("_bytes"):
        for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if default and not default % size:
                return f"{default} ({default // size} {unit})"
    return f"{default:g}" if isinstance(default, float) else str(default)
