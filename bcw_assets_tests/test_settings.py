"""The environment: what is taken, what is refused, and that no secret is repeated."""

from pathlib import Path

import pytest
import yaml

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
    ("variables", "says"), yaml.safe_load(Path(__file__).with_name("refused_settings.yaml").read_text())
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


def test_leading_zeros_change_no_number_and_of_two_spellings_the_capitals_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"BCW_KEEP_DAYS": "00000000014", "bcw_source": "x.csv", "BCW_SOURCE": "y.csv"}.items():
        monkeypatch.setenv(name, value)
    assert (settings.read_environment().keep_days, settings.read_environment().source) == (14, "y.csv")


def test_a_home_of_nobody_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "~nobody-of-this-name/x")
    with pytest.raises(SettingsError, match="DAGSTER_HOME: Could not determine home directory"):
        settings.dagster_home()


def test_what_kubernetes_says_of_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"BCW_ASSETS_{end}", "tcp://10.0.0.1:80")
    assert settings.read_environment() == settings.Settings()


def test_every_setting_is_in_the_example() -> None:
    text = (CHECKOUT / ".env.example").read_text()
    assert [name for name in settings.PARSERS if f"BCW_{name.upper()}" not in text] == []
