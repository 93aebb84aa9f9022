"""The environment, read once and validated by name. Nothing else in the package reads it."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import load_dotenv
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from bcw_assets.errors import SettingsError
from bcw_assets.locations import parse_bucket

PREFIX = "BCW_"
AUTO, EMBEDDED = "auto", "embedded"
SECRET = re.compile(r"(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS)$")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_SECRET = 6  # characters; a shorter one would be found in every text
# What Kubernetes puts into every pod for a Service of this name.
OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")

Days = Annotated[int, Field(gt=0, le=36_500)]  # a century; Python's own limit of a duration explains nothing


class Settings(BaseSettings):
    """Where things are and when they happen, as docs/settings.md says; a knob for one run is the asset's config."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    source: str = AUTO
    source_sha256: str | None = None
    storage: str = "."
    releases: str | None = None
    schedule_cron: str = "0 6 * * 1"
    schedule_timezone: str = "UTC"
    autostart: bool = False
    notify_urls: SecretStr = SecretStr("")
    ui_url: str | None = None
    stale_days: Days = 14
    keep_days: Days = 90

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, value: str) -> str:
        if "://" not in value:
            return value
        try:
            address = urlsplit(value)
        except ValueError as error:
            raise ValueError(f"this is no URL ({error}); allowed is one like https://example.org/wdbc.data") from error
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"a URL must begin with http:// or https:// and name a host, not {address.scheme}://")
        if address.username or address.password:
            raise ValueError("credentials must not stand in the URL, where they would be logged")
        return value

    @field_validator("source_sha256")
    @classmethod
    def _checksum_is_hexadecimal(cls, value: str | None) -> str | None:
        if value and not re.fullmatch("[0-9a-fA-F]{64}", value):
            raise ValueError(f"a SHA-256 is 64 hexadecimal digits, not {value!r}")
        return value and value.lower()

    @field_validator("storage", "releases")
    @classmethod
    def _place_is_known(cls, value: str | None) -> str | None:
        if value:
            parse_bucket(value)  # raises what is wrong with it
        return value

    @field_validator("schedule_timezone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, OSError, ValueError) as error:  # the last two: a folder of zones, no name at all
            raise ValueError(f"allowed is an IANA name like Europe/Berlin, not {value!r}") from error
        return value

    @field_validator("ui_url")
    @classmethod
    def _ui_is_http(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"allowed is the address of the UI, like https://bcw.example.org, not {value!r}")
        if value and "@" in value:
            raise ValueError("credentials must not stand in the URL, which every message shows")
        return value and value.rstrip("/")

    @model_validator(mode="after")
    def _checksum_has_a_source(self) -> Self:
        if self.source_sha256 and not self.source_is_named:
            raise ValueError("BCW_SOURCE_SHA256 needs a BCW_SOURCE that is a URL or a path; UCI's checksum is built in")
        return self

    @property
    def releases_place(self) -> str:
        """Where releases go."""
        return self.releases or self.storage

    @property
    def source_is_named(self) -> bool:
        """Whether the user named a URL or a path: then there is no fallback."""
        return self.source not in (AUTO, EMBEDDED)


def read_environment() -> Settings:
    """Return the settings of this process's environment, or raise a SettingsError that names the variable."""
    known = sorted(PREFIX + name.upper() for name in Settings.model_fields)
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not OF_A_SERVICE.search(name):
            near = get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise SettingsError(f"{name} is no setting; did you mean {near}? Allowed are {', '.join(known)}")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(map(_problem, error.errors()))) from error


def read_env_file() -> None:
    """Take over the `.env` of the working folder, whose values win over the environment's, as Dagster's CLI does.

    Without a DAGSTER_HOME then, it is the folder `.dagster` there.
    """
    try:
        load_dotenv(".env", override=True)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env cannot be read ({error}); allowed is a text file in UTF-8") from error
    os.environ["DAGSTER_HOME"] = str(Path(dagster_home() or ".dagster").expanduser().absolute())


def list_secrets() -> list[str]:
    """Return the values of this process's environment that no message may show, by the ends of their names."""
    secrets = (value for name, value in os.environ.items() if SECRET.search(name.upper()))
    return [value for value in secrets if len(value) >= SHORTEST_SECRET]


def find_network_variables(url: str) -> tuple[str | None, str | None]:
    """Return the variables that name the proxy of an address and the certificates, as requests looks for them."""
    name = f"{urlsplit(url).scheme}_proxy"
    proxies, bundles = (name, name.upper(), "all_proxy", "ALL_PROXY"), ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return next(filter(os.environ.get, proxies), None), next(filter(os.environ.get, bundles), None)


def bypass_proxies_on_loopback() -> None:
    """Let no proxy that the environment names see what this process sends to this machine."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in LOOPBACK if host not in hosts.split(",")]
    if missing and hosts != "*":
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*filter(None, hosts.split(",")), *missing])


def dagster_home() -> str:
    """Return the folder of Dagster's history, or an empty text."""
    return os.environ.get("DAGSTER_HOME", "")


def require_dagster_home() -> None:
    """Refuse to look into a history that does not exist."""
    if not Path(dagster_home()).is_dir():
        raise SettingsError(
            f"There is no history in {dagster_home()}, so nothing was made from here yet: bcw refresh. If another "
            f"folder has it, go there, or name its .dagster in DAGSTER_HOME"
        )


def _problem(error: ErrorDetails) -> str:
    """Name the variable and say what is wrong; the value only where it is no source, which may hold a secret."""
    text = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return text
    received = "" if error["type"] == "value_error" else f", not {error['input']!r}"
    return f"{PREFIX}{str(error['loc'][0]).upper()}: {text}{received}"
