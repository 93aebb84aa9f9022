"""The environment: what is taken, what is refused, and that no secret is repeated."""

import pytest

from bcw_assets import settings
from bcw_assets.errors import SettingsError
from bcw_assets_tests.conftest import CHECKOUT


def test_variables_are_read_and_empty_ones_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (settings.read_environment().source, settings.read_environment().autostart) == ("auto", False)
    for name, value in {"SOURCE": "t.csv", "SOURCE_SHA256": "AB" * 32, "AUTOSTART": "true", "STORAGE": ""}.items():
        monkeypatch.setenv(f"BCW_{name}", value)
    values = settings.read_environment()
    assert (values.source, values.source_sha256, values.autostart, values.storage, values.source_is_named) == (
        "t.csv", "ab" * 32, True, ".", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"BCW_SORCE": "auto"}, "BCW_SORCE is no setting; did you mean BCW_SOURCE? Allowed are BCW_AUTOSTART,"),
        ({"BCW_SOURCE": "ftp://example.org/t"}, "BCW_SOURCE: a URL must begin with http:// or https://"),
        ({"BCW_SOURCE": "https://[::1/t"}, "BCW_SOURCE: this is no URL (Invalid IPv6 URL); allowed is one like"),
        ({"BCW_SOURCE": "https://me:hunter2@example.org/t"}, "BCW_SOURCE: credentials must not stand in the URL"),
        ({"BCW_SOURCE": "t.csv", "BCW_SOURCE_SHA256": "123"}, "BCW_SOURCE_SHA256: a SHA-256 is 64 hexadecimal digits"),
        ({"BCW_SOURCE_SHA256": "0" * 64}, "BCW_SOURCE_SHA256 needs a BCW_SOURCE that is a URL or a path"),
        ({"BCW_STORAGE": "gs://b"}, "BCW_STORAGE: allowed is the path of a folder, or s3://bucket/prefix"),
        ({"BCW_STORAGE": "s3://My_Bucket/x"}, "BCW_STORAGE: 'My_Bucket' in 's3://My_Bucket/x' is no name of a bucket"),
        ({"BCW_STORAGE": "s3://bucket/a/../b"}, "BCW_STORAGE: 'a/../b' in 's3://bucket/a/../b' is no"),
        ({"BCW_UI_URL": "localhost:3000"}, "BCW_UI_URL: allowed is the address of the UI"),
        ({"BCW_STALE_DAYS": "1000000000"}, "BCW_STALE_DAYS: Input should be less than or equal to 36500, not '10000"),
        ({"BCW_UI_URL": "https://me:hunter2@example.org"}, "BCW_UI_URL: credentials must not stand in the URL"),
        ({"BCW_SCHEDULE_TIMEZONE": "Mars/Base"}, "BCW_SCHEDULE_TIMEZONE: allowed is an IANA name like Europe/Berlin"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        settings.read_environment()
    assert says in str(error.value)
    assert "hunter2" not in str(error.value)


def test_what_kubernetes_says_of_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"BCW_ASSETS_{end}", "tcp://10.0.0.1:80")
    assert settings.read_environment() == settings.Settings()


def test_every_setting_is_in_the_example() -> None:
    text = (CHECKOUT / ".env.example").read_text()
    assert [name for name in settings.Settings.model_fields if f"BCW_{name.upper()}" not in text] == []
