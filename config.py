"""Settings: a TOML file and the environment, validated and typed. Imports nothing of ours.

The classes below are the definition: `config.toml` shows the same keys with their defaults
(a test holds the two together), and every fault is reported at once.
"""

import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

DEFAULT_FILE = Path(__file__).with_name("config.toml")

Port = Annotated[int, Meta(ge=1, le=65535)]
Processes = Annotated[int, Meta(ge=1, le=64)]
Threads = Annotated[int, Meta(ge=1, le=256)]
Seconds = Annotated[float, Meta(ge=1, le=3600)]
Text = Annotated[str, Meta(min_length=1)]


class DataSettings(Struct, frozen=True):
    """Where state is kept, and for how long what was published stays there."""

    directory: Text = "data"
    retention_days: Annotated[float, Meta(gt=0, le=3650)] = 7


class RedisSettings(Struct, frozen=True):
    """Which Redis carries the stream, and whether Tally may start one."""

    url: Annotated[str, Meta(pattern="^(rediss?|unix)://")] = "redis://127.0.0.1:6379/0"
    stream: Annotated[str, Meta(pattern="^[^{}]+$")] = "event-stream"
    embedded: Literal["auto", "always", "never"] = "auto"

    def host_and_port(self) -> tuple[str, int]:
        """The address in `url`; a unix socket has the host '' and the port 0."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return "", 0
        return parts.hostname or "127.0.0.1", parts.port or 6379


class AccountsSettings(Struct, frozen=True):
    """The accounts service's address and size."""

    host: Text = "127.0.0.1"
    port: Port = 8090
    processes: Processes = 1
    threads: Threads = 16


class CustomersSettings(Struct, frozen=True):
    """The customers service's address and size, and whether it insists on known accounts."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    processes: Processes = 1
    threads: Threads = 16
    require_account: bool = False


class ConsumersSettings(Struct, frozen=True):
    """How many consumers each service has, and how they share the work."""

    accounts: Processes = 2
    customers: Processes = 1
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 500
    claim_idle_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 10_000
    max_deliveries: Annotated[int, Meta(ge=1, le=100)] = 5


class SupervisorSettings(Struct, frozen=True):
    """How long, in seconds, an actor may be silent and may take to stop."""

    heartbeat_timeout: Seconds = 10
    stop_timeout: Seconds = 15


class AuthSettings(Struct, frozen=True):
    """Who may do what; `off` is for loopback addresses only."""

    mode: Literal["off"] = "off"


class LogSettings(Struct, frozen=True):
    """How much is logged, and in which form."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Struct, frozen=True):
    """Everything that can be set. `directory` is the data directory as an absolute path."""

    directory: Path
    data: DataSettings = DataSettings()
    redis: RedisSettings = RedisSettings()
    customers: CustomersSettings = CustomersSettings()
    accounts: AccountsSettings = AccountsSettings()
    consumers: ConsumersSettings = ConsumersSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()


SECTIONS: dict[str, type[Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if field.name != "directory"
}


class InvalidSettings(ValueError):
    """The settings don't hold; `faults` has one line for each thing that is wrong."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `file` (by default the config.toml beside this module), then the environment, which wins.

    Raises InvalidSettings with every fault of both. Reads one file, writes nothing.
    """
    path = DEFAULT_FILE if file is None else file
    faults: list[str] = []
    document = _read(path, faults)
    given = [*_from_file(path, document, faults), *_from_environment(environment, faults)]
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for source, section, key, raw in given:
        try:
            values[section][key] = _convert(section, key, raw, lenient=source.startswith("environment"))
        except ValueError as error:
            faults.append(f"{source}: {section}.{key}: found {_show(raw)}, {error}")
    if not faults:
        sections = {name: cls(**values[name]) for name, cls in SECTIONS.items()}
        base = path.absolute().parent
        settings = Settings(directory=base / sections["data"].directory, **sections)  # type: ignore[attr-defined, arg-type]
        faults += _contradictions(settings)
        if not faults:
            return settings
    raise InvalidSettings(faults)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{path}: found {error.strerror or error}, expected a readable settings file")
    except ValueError as error:  # malformed TOML, or not UTF-8
        faults.append(f"{path}: found {error}, expected TOML")
    return {}


def _from_file(
    path: Path, document: dict[str, Any], faults: list[str]
) -> Iterator[tuple[str, str, str, Any]]:
    for section, content in document.items():
        if section not in SECTIONS:
            faults.append(f"{path}: found unknown section {section!r}, expected one of {', '.join(SECTIONS)}")
        elif not isinstance(content, dict):
            faults.append(f"{path}: {section}: found {_show(content)}, expected a section [{section}]")
        else:
            for key, raw in content.items():
                if _known(str(path), section, key, faults):
                    yield str(path), section, key, raw


def _from_environment(
    environment: Mapping[str, str], faults: list[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Names outside our sections are left alone: Kubernetes sets TALLY_PORT for a service `tally`."""
    for name, raw in sorted(environment.items()):
        prefix, _, rest = name.partition("_")
        section, _, key = rest.lower().partition("_")
        if prefix == "TALLY" and section in SECTIONS and key:
            source = f"environment: {name}"
            if _known(source, section, key, faults):
                yield source, section, key, raw


def _known(source: str, section: str, key: str, faults: list[str]) -> bool:
    keys = SECTIONS[section].__struct_fields__
    if key not in keys:
        faults.append(f"{source}: {section}.{key}: found an unknown key, expected one of {', '.join(keys)}")
    return key in keys


def _convert(section: str, key: str, raw: Any, lenient: bool) -> Any:
    """Raises ValueError that says what is expected. The environment holds only strings: be lenient."""
    field = next(f for f in msgspec.structs.fields(SECTIONS[section]) if f.name == key)
    try:
        return msgspec.convert(raw, field.type, strict=not lenient)
    except msgspec.ValidationError as error:
        raise ValueError(f"expected {_expected(field.type)}") from error


def _expected(kind: Any) -> str:
    """Say in words what a field's type admits."""
    schema = msgspec.json.schema(kind)
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "pattern" in schema:
        return f"text matching {schema['pattern']}"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    bounds = f" from {low} to {high}" if low is not None else ""
    if "exclusiveMinimum" in schema:
        bounds = f" above {low} and up to {high}"
    return words[schema["type"]] + bounds


def _show(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 80 else text[:77] + "..."


def _contradictions(settings: Settings) -> list[str]:
    """What no single key can tell."""
    faults = []
    for name, service in (("customers", settings.customers), ("accounts", settings.accounts)):
        if settings.auth.mode == "off" and not is_loopback(service.host):
            faults.append(
                f"{name}.host: found {service.host!r}, which other machines can reach while auth.mode is "
                '"off"; expected a loopback address such as "127.0.0.1", with a reverse proxy that '
                "authenticates in front of it"
            )
    if (settings.customers.host, settings.customers.port) == (settings.accounts.host, settings.accounts.port):
        faults.append(
            f"accounts.port: found {settings.accounts.port}, the port of the customers service; "
            "expected another"
        )
    try:
        settings.redis.host_and_port()
    except ValueError as error:
        faults.append(f"redis.url: found {settings.redis.url!r} ({error}), expected redis://host:port/db")
    return faults
