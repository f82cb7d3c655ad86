"""Laws of the settings: which source wins, and that a fault is one line that names its place."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

import jobs.retrain
import store.settings
from model.config import TrainConfig
from model.errors import BadInput


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a settings file of its own."""
    file = tmp_path / "config.toml"
    file.touch()
    monkeypatch.setenv("BARPROP_CONFIG", str(file))


def write(text: str) -> None:
    store.settings.config_file().write_text(text)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert store.settings.load().service.port == 8000
    write("[service]\nport = 1\nhost = '127.0.0.2'\n")
    assert store.settings.load().service.port == 1
    monkeypatch.setenv("BARPROP_SERVICE__PORT", "2")
    assert store.settings.load().service.port == 2
    given = store.settings.load(service={"port": 3}).service
    assert given.port == 3
    assert given.host == "127.0.0.2"  # a source gives only what it names


def test_the_default_database_is_a_file_in_the_users_data_directory() -> None:
    assert store.settings.load().database.url.startswith("sqlite:////")


BTC = (
    "{symbol = 'BTCUSDT', timeframe = '60m', exchange = 'binance', exchange_symbol = 'BTC/USDT', "
    "since = '2024-01-01'}"
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[service]\nport = 'x'\n", "setting service.port (BARPROP_SERVICE__PORT): "),
        ("[service]\nprot = 1\n", "setting service.prot (BARPROP_SERVICE__PROT): "),
        ("[sevrice]\nport = 1\n", "setting sevrice (BARPROP_SEVRICE): "),
        ("[jobs]\nlease_seconds = 9\n", "at least twice heartbeat_seconds"),
        ("[jobs\n", "is not TOML"),
        (f"[sources]\nmarkets = [{BTC}, {BTC}]\n", "BTCUSDT 1h has 2 sources: name one"),
        (f"[sources]\nmarkets = [{BTC.replace('BTCUSDT', 'BTC/USDT')}]\n", "; try 'BTCUSDT'"),
        (f"[sources]\nmarkets = [{BTC.replace('60m', '7x')}]\n", "sources.markets.0"),
        (f"[sources]\nmarkets = [{BTC.replace('2024-01-01', 'once')}]\n", "sources.markets.0.since"),
        (
            "[training]\ninputs = [{timeframe = '7x'}]\n",
            "setting training.inputs.0 (BARPROP_TRAINING__INPUTS__0): unknown",
        ),
        ("[training]\ninputs = [{symbol = 'A/B', timeframe = '1h'}]\n", "; try 'AB'"),
        ("[training]\ninputs = [{timeframe = '1h', feature = ['z_24']}]\n", "training.inputs.0.feature"),
        ("[sources.exchanges.binance]\napiKey = 'hunter2'\n", "binance needs no apiKey"),
    ],
)
def test_a_fault_is_one_line_that_names_its_place(text: str, named: str) -> None:
    write(text)
    with pytest.raises(BadInput) as caught:
        store.settings.load()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_settings_file_that_is_named_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BARPROP_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(BadInput, match=r"none\.toml .* does not exist"):
        store.settings.load()


def test_a_settings_value_shows_no_password() -> None:
    settings = store.settings.load(database={"url": "postgresql://u:hunter2@host/db"})
    assert "hunter2" not in repr(settings)
    with pytest.raises(BadInput) as caught:
        store.settings.load(database={"url": ["postgresql://u:hunter2@host/db"]})
    assert "hunter2" not in str(caught.value)


def test_settings_never_change() -> None:
    settings = store.settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.service.port = 1


def test_sources_are_read_from_the_file_and_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.settings.load().sources.markets == ()
    write(f"[sources]\nmarkets = [{BTC}]\n\n[sources.exchanges.binance]\ntimeout = 5000\n")
    (source,) = store.settings.load().sources.markets
    assert (str(source.market), source.since) == ("BTCUSDT 1h", datetime(2024, 1, 1, tzinfo=UTC))
    assert store.settings.load().sources.exchanges == {"binance": {"timeout": 5000}}
    monkeypatch.setenv("BARPROP_SOURCES__MARKETS", "[]")
    assert store.settings.load().sources.markets == ()


def test_a_training_has_the_same_defaults_where_nothing_is_set() -> None:
    chosen, plain = jobs.retrain.config_of(store.settings.load(), {}), TrainConfig()
    assert chosen == plain


@pytest.mark.parametrize("jump_z", ["0", "-1.0", "inf", "nan"])
def test_a_jump_of_no_size_is_refused(jump_z: str) -> None:
    write(f"[training]\njump_z = {jump_z}\n")
    with pytest.raises(BadInput, match=r"training\.jump_z"):
        store.settings.load()
    write("[training]\njump_z = 80\n")
    assert jobs.retrain.config_of(store.settings.load(), {}).jump_z == 80
