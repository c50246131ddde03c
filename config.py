"""Settings: a TOML file and the environment, validated and typed.

The classes below are the definition: `config.toml` shows the same keys with their defaults
(a test holds the two together), and every fault is reported at once.
"""

import os
import pwd
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from tally.redis_url import FORMS, PATTERN, RedisUrl, is_loopback, with_options

DEFAULT_FILE = Path(__file__).with_name("config.toml")
DATA_DIRECTORY = "TALLY_DATA_DIRECTORY"
SIGNING_KEY = "TALLY_AUTH_SIGNING_KEY"
SHORTEST_FAILOVER = 2  # seconds: a killed process is at work again by then
SHORTEST_SIGNING_KEY = 32  # bytes: RFC 7518 requires so much of a key for HS256

Port = Annotated[int, Meta(ge=1, le=65535)]
Processes = Annotated[int, Meta(ge=1, le=64)]
Threads = Annotated[int, Meta(ge=1, le=256)]
Seconds = Annotated[float, Meta(ge=1, le=3600)]
Text = Annotated[str, Meta(min_length=1)]
_ALIKE = 0.8  # of the names of two sections: from there on, one was meant for the other
_TLS_FILES = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
Url = Annotated[str, Meta(pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$", max_length=300)]
FileName = Annotated[str, Meta(pattern=r"^[^\x00]*$")]


class DataSettings(Struct, frozen=True):
    """Where state is kept, and for how long what was published stays there."""

    directory: Annotated[str, Meta(pattern=r"^[^\x00]+$")] = "data"
    retention_days: Annotated[float, Meta(gt=0, le=3650)] = 7


class NodeSettings(Struct, frozen=True):
    """Which of the Tallys on one stream this is, and where the others, and people, find its services.

    With `standby`, it follows the one that has the number, and takes its place once that has not been heard
    of for `failover_seconds`; 0: when it is told to.
    """

    number: Annotated[int, Meta(ge=0, le=9006)] = 0
    standby: bool = False
    failover_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0
    url_customers: Url = ""
    url_accounts: Url = ""


class RedisSettings(Struct, frozen=True):
    """Which Redis carries the stream, and whether Tally may start one. The files are absolute."""

    url: Annotated[str, Meta(pattern=PATTERN)] = "redis://127.0.0.1:6379/0"
    stream: Annotated[str, Meta(pattern="^[^{}]+$")] = "event-stream"
    embedded: Literal["auto", "always", "never"] = "auto"
    ca_file: FileName = ""
    cert_file: FileName = ""
    key_file: FileName = ""
    replicas: Annotated[int, Meta(ge=0, le=100)] = 0

    @property
    def address(self) -> RedisUrl:
        """The address in `url`, with the files. Raises ValueError or TypeError if it is invalid."""
        return RedisUrl(self.full_url)

    @property
    def full_url(self) -> str:
        """`url`, with the files for TLS as its options."""
        return with_options(self.url, {_TLS_FILES[key]: file for key, file in self.tls_files.items()})

    @property
    def tls_files(self) -> dict[str, str]:
        """The files for TLS that are set, by key."""
        return {key: file for key in _TLS_FILES if (file := getattr(self, key))}


class AccountsSettings(Struct, frozen=True):
    """The accounts service's address and size."""

    host: Text = "127.0.0.1"
    port: Port = 8090
    processes: Processes = 1
    threads: Threads = 16


class CustomersSettings(Struct, frozen=True):
    """The customers service's address and size, whether it insists on known accounts, when it answers."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    processes: Processes = 1
    threads: Threads = 16
    require_account: bool = False
    answer_after: Literal["commit", "publish"] = "commit"


class ConsumersSettings(Struct, frozen=True):
    """How many consumers each service has, and how they share the work."""

    accounts: Processes = 2
    customers: Processes = 1
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 500
    claim_idle_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 10_000
    max_deliveries: Annotated[int, Meta(ge=1, le=100)] = 5


class SupervisorSettings(Struct, frozen=True):
    """How long, in seconds, an actor may be silent and may take to stop."""

    heartbeat_timeout: Annotated[float, Meta(ge=2, le=3600)] = 10
    stop_timeout: Seconds = 15


class AuthSettings(Struct, frozen=True):
    """Who may do what; `off` is for loopback addresses only. See docs/security.md."""

    mode: Literal["off", "jwt"] = "off"
    token_minutes: Annotated[int, Meta(ge=1, le=1440)] = 60
    trusted_proxy: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f.:]*$")] = ""


class PagesSettings(Struct, frozen=True):
    """The pages: the currency that they show, "" for none, and where a browser finds them behind a proxy."""

    currency: Annotated[str, Meta(pattern=r"^\S*$", max_length=8)] = ""
    customers_url: Url = ""
    accounts_url: Url = ""


class LogSettings(Struct, frozen=True):
    """How much is logged, and in which form."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Struct, frozen=True):
    """Everything that can be set. `directory` is the data directory as an absolute path.

    `signing_key` comes from the environment alone: a settings file may be read by others.
    """

    directory: Path
    signing_key: bytes | None = None
    data: DataSettings = DataSettings()
    node: NodeSettings = NodeSettings()
    redis: RedisSettings = RedisSettings()
    customers: CustomersSettings = CustomersSettings()
    accounts: AccountsSettings = AccountsSettings()
    consumers: ConsumersSettings = ConsumersSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    auth: AuthSettings = AuthSettings()
    pages: PagesSettings = PagesSettings()
    log: LogSettings = LogSettings()

    @property
    def waits_for_replicas(self) -> int | None:
        """How many replicas must have an event before it is answered; None if it needn't be published."""
        return self.redis.replicas if self.customers.answer_after == "publish" else None


SECTIONS: dict[str, type[Struct]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Settings)
    if field.name not in ("directory", "signing_key")
}


class InvalidSettings(ValueError):
    """The settings are invalid; `faults` has one line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    package: Path = DEFAULT_FILE.parent,
) -> Settings:
    """Read `file` (by default the config.toml in `package`), then the environment, which wins.

    Raises InvalidSettings with every fault of both. Reads one file, writes nothing.
    """
    path = package / DEFAULT_FILE.name if file is None else file
    reading = _Reading(path)
    reading.read_file()
    reading.read_environment(environment)
    sections = {name: cls(**reading.values[name]) for name, cls in SECTIONS.items()}
    beside = path.absolute().parent
    directory = beside / sections["data"].directory  # type: ignore[attr-defined]
    # A checkout, or the content of an sdist, can be built from, and so has this file.
    if file is None and not (package / "pyproject.toml").exists():
        directory = reading.find_lasting_directory(directory, environment)
    settings = Settings(directory, reading.signing_key, **sections)  # type: ignore[arg-type]
    files = {key: str(beside / file) for key, file in settings.redis.tls_files.items()}
    settings = msgspec.structs.replace(settings, redis=msgspec.structs.replace(settings.redis, **files))
    reading.find_contradictions(settings)
    if reading.faults:
        raise InvalidSettings(reading.faults)
    return settings


def _state_home(environment: Mapping[str, str]) -> Path | None:
    """The directory for this user's state, by the XDG Base Directory Specification."""
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if state.is_absolute():  # the specification says to ignore others
        return state
    try:
        home = Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a user that the system doesn't know, as in a container
        return None
    return home / ".local" / "state" if home.is_absolute() else None


def _holds_databases(directory: Path) -> bool:
    return any(directory.glob("*.db"))


class _Reading:
    """Gathers the given values, their origins, and their faults."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sources: dict[str, str] = {}  # "section.key": the file or variable that set it
        self.values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        self.signing_key: bytes | None = None
        self.faults: list[str] = []

    def read_file(self) -> None:
        """Take what the TOML file holds."""
        source = str(self._path)
        for section, content in self._document().items():
            if section not in SECTIONS:
                self._fault(source, _name(section), "unknown section", f"one of {', '.join(SECTIONS)}")
            elif not isinstance(content, dict):
                found = _HIDDEN if section == "redis" and isinstance(content, str) else _show(content)
                self._fault(source, section, found, f"a section [{section}]")
            else:
                for key, raw in content.items():
                    self._take(source, section, key, raw, strict=True)

    def read_environment(self, environment: Mapping[str, str]) -> None:
        """Take the variables of our sections, and find those whose section is mistyped.

        Others are not ours: Kubernetes sets TALLY_PORT for a service `tally`.
        """
        for name, raw in sorted(environment.items()):
            prefix, _, rest = name.partition("_")
            section, _, key = rest.lower().partition("_")
            if name == SIGNING_KEY:
                self._take_signing_key(os.fsencode(raw))
            elif prefix == "TALLY" and section in SECTIONS and key and not _is_text(raw):
                self._fault(f"environment: {name}", "", "bytes that are no UTF-8", "text in UTF-8")
            elif prefix == "TALLY" and section in SECTIONS and key:
                self._take(f"environment: {name}", section, key, raw, strict=False)
            elif prefix == "TALLY" and key and (meant := get_close_matches(section, SECTIONS, 1, _ALIKE)):
                self._fault(f"environment: {name}", section, "an unknown section", meant[0])

    def find_lasting_directory(self, beside: Path, environment: Mapping[str, str]) -> Path:
        """The data directory if there is neither a checkout nor a settings file to put it `beside`.

        The folder of an installed package is no place for it: it is deleted with the installation.
        """
        if self._sources.get("data.directory") == f"environment: {DATA_DIRECTORY}":
            return Path(environment[DATA_DIRECTORY]).absolute()
        if beside != self._path.absolute().with_name(DataSettings().directory):
            return beside  # somebody wrote another one into the installed config.toml
        state = _state_home(environment)
        if state is None:
            expected = f"an absolute path in XDG_STATE_HOME, HOME or {DATA_DIRECTORY}"
            self._fault("environment", "data.directory", "no home directory of this user", expected)
            return beside
        lasting = state / "tally"
        if _holds_databases(beside) and not _holds_databases(lasting):
            self._left_behind(beside, lasting)
        return lasting

    def find_contradictions(self, settings: Settings) -> None:
        """Check rules over several keys."""
        for name, found, expected in _contradictions(settings):
            self._fault(self._sources.get(name, str(self._path)), name, found, expected)

    def _document(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            self._fault(str(self._path), "", error.strerror or str(error), "a readable settings file")
        except (ValueError, RecursionError) as error:  # malformed TOML, or not UTF-8
            self._fault(str(self._path), "", str(error), "TOML")
        return {}

    def _take_signing_key(self, key: bytes) -> None:
        if len(key) < SHORTEST_SIGNING_KEY:
            found, expected = f"{len(key)} bytes", f"at least {SHORTEST_SIGNING_KEY} random ones"
            self._fault(f"environment: {SIGNING_KEY}", "", found, expected)
        self.signing_key = key

    def _take(self, source: str, section: str, key: str, raw: Any, strict: bool) -> None:
        """Note a value. The environment holds only strings, which need not be `strict`."""
        kinds = {field.name: field.type for field in msgspec.structs.fields(SECTIONS[section])}
        name = f"{section}.{_name(key)}"
        if name == "auth.signing_key":
            expected = f"it in the environment, as {SIGNING_KEY}"
            self._fault(source, name, "a secret in a settings file", expected)
        elif key not in kinds:
            self._fault(source, name, "an unknown key", f"one of {', '.join(kinds)}")
        else:
            try:
                self.values[section][key] = msgspec.convert(raw, kinds[key], strict=strict)
                self._sources[name] = source
            except msgspec.ValidationError:
                found = _HIDDEN if name == "redis.url" else _show(raw)
                self._fault(source, name, found, _expected(kinds[key]))

    def _left_behind(self, old: Path, new: Path) -> None:
        """Refuse to start with empty databases if release 0.1.0 left its data in the package."""
        commands = ["mkdir", "-p", str(new.parent)], ["mv", "-T", str(old), str(new)]
        move = " && ".join(map(shlex.join, commands))
        expected = f"them in {new}, which outlives this installation; stop Tally, then: {move}"
        self._fault(str(old), "data.directory", "databases of an earlier release", expected)

    def _fault(self, source: str, name: str, found: str, expected: str) -> None:
        self.faults.append(": ".join(filter(None, [source, name, f"found {found}, expected {expected}"])))


def _is_text(value: str) -> bool:
    """Whether it is text in UTF-8. The system's names can be any bytes, which Python keeps as surrogates."""
    return not re.search("[\ud800-\udfff]", value)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Each key that contradicts another: its name, its value, and what was expected."""
    customers, accounts, redis = settings.customers, settings.accounts, settings.redis
    if not _is_text(str(settings.directory)):  # SQLite takes no other
        yield "data.directory", _show(str(settings.directory)), "a path in UTF-8"
    for name, service in (("customers", customers), ("accounts", accounts)):
        if settings.auth.mode == "off" and not is_loopback(service.host):
            found = f'{service.host!r}, which other machines can reach while auth.mode is "off"'
            yield f"{name}.host", found, 'auth.mode = "jwt", or a loopback address such as "127.0.0.1"'
    if (customers.host, customers.port) == (accounts.host, accounts.port):
        yield "accounts.port", f"{accounts.port}, the port of the customers service", "another"
    services = {(customers.host, customers.port): "customers", (accounts.host, accounts.port): "accounts"}
    yield from _contradictions_of_redis(redis, services)
    if 0 < (seconds := settings.node.failover_seconds) < SHORTEST_FAILOVER:
        yield "node.failover_seconds", f"{seconds:g}", f"0, or at least {SHORTEST_FAILOVER}"
    if redis.replicas and settings.waits_for_replicas is None:
        yield "redis.replicas", str(redis.replicas), 'customers.answer_after = "publish", or no replicas'
    if redis.replicas and redis.embedded != "never":
        found = f"{redis.embedded}, and a private Redis has no replicas"
        yield "redis.embedded", found, '"never", or no redis.replicas'


def _contradictions_of_redis(
    settings: RedisSettings, services: Mapping[tuple[str, int], str]
) -> Iterator[tuple[str, str, str]]:
    """The same; `services` are those that listen themselves, by host and port."""
    try:
        address = RedisUrl(settings.url)
    except TypeError as error:
        unknown = re.search(r"argument '(\w+)'", str(error))
        found = f"the option {unknown[1]!r}, which redis-py doesn't know" if unknown else _HIDDEN
        yield "redis.url", found, "redis://host:port/db, with options that it knows"
        return
    except ValueError:
        yield "redis.url", _HIDDEN, FORMS
        return
    for host in address.hosts:
        if service := services.get(host):
            yield "redis.url", f"{host.port}, the port of the {service} service", "another"
    readable = "a file that is there and can be read"
    for key, file in settings.tls_files.items():
        if not address.is_tls:
            yield f"redis.{key}", "a file for TLS", "rediss in redis.url"
        elif not os.access(file, os.R_OK):
            yield f"redis.{key}", file, readable
    if bool(settings.cert_file) != bool(settings.key_file):
        missing = "key_file" if settings.cert_file else "cert_file"
        yield f"redis.{missing}", "no file", "the one that belongs to the other"
    for option, file in address.files.items():
        if not os.access(file, os.R_OK):
            yield "redis.url", f"{option}={file}", readable


_HIDDEN = "a value that is not shown, as it may hold a password"


def _name(key: str) -> str:
    """A key from a file, which may hold anything, on one line."""
    return key if key.isidentifier() else _show(key)


def _show(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 80 else text[:77] + "..."


def _expected(kind: Any) -> str:
    """Say in words what a field's type admits."""
    schema = msgspec.json.schema(kind)
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "pattern" in schema:
        return f"text matching {schema['pattern']}"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    if "minimum" in schema:
        return f"{words[schema['type']]} from {schema['minimum']} to {schema['maximum']}"
    if "exclusiveMinimum" in schema:
        return f"{words[schema['type']]} above {schema['exclusiveMinimum']} and up to {schema['maximum']}"
    return words[schema["type"]]
