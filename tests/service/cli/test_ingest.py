"""`barprop ingest --exchange`: an exchange's bars by the command line, and what does not go together."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.database import Engine
from tests.jobs.exchange import NOW, Binance, Fault, rows, serving
from tests.model import synthetic
from tests.service.cli.conftest import Barprop

BARS = synthetic.bars(24 * 60 + 1)
FROM = ("--exchange", "binance", "--exchange-symbol", "BTC/USDT", "--since", "2024-01-01")


@pytest.fixture
def binance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Binance]:
    """The exchange that commands find where they look for Binance; they try once."""
    with serving(Binance(rows(BARS), NOW)) as found:
        assert isinstance(found, Binance)
        options = {"binance": {**found.options(), "rateLimit": 0}}
        monkeypatch.setenv("BARPROP_SOURCES__EXCHANGES", json.dumps(options))
        monkeypatch.setenv("BARPROP_SOURCES__ATTEMPTS", "1")
        yield found


def test_json_is_the_ingest_document_of_all_pages(barprop: Barprop, fresh: Engine, binance: Binance) -> None:
    ran = barprop("ingest", "BTCUSDT", "60m", *FROM, "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert report["market"] == {"symbol": "BTCUSDT", "timeframe": "1h"}
    assert (report["added"], report["last"]) == (1_440, "2024-02-29T23:00:00Z")
    assert len(binance.asked) == 2
    assert ran.err.count("\n") == 1
    assert "ahead of that of binance" in ran.err  # its bars end in 2024


def test_without_json_it_says_what_came(barprop: Barprop, fresh: Engine, binance: Binance) -> None:
    ran = barprop("ingest", "BTCUSDT", "1h", *FROM, "--until", "2024-01-02")
    assert ran.code == 0
    assert "BTCUSDT 1h: 24 bars added, 0 repeated, 0 corrected, 0 gaps" in ran.out
    assert "from 2024-01-01T00:00:00Z to 2024-01-01T23:00:00Z" in ran.out
    assert barprop("ingest", "BTCUSDT", "1h", *FROM, "--until", "2024-01-01").out.count("\n") == 1


def test_an_exchange_that_is_not_reachable_is_exit_code_3(
    barprop: Barprop, fresh: Engine, binance: Binance
) -> None:
    binance.faults.append(Fault(503, "<html>\nsorry</html>"))
    ran = barprop("ingest", "BTCUSDT", "1h", *FROM)
    assert (ran.code, ran.out) == (3, "")
    assert "barprop: binance does not answer after 1 attempts: ExchangeNotAvailable" in ran.err


def test_a_symbol_that_the_exchange_has_not_is_exit_code_1(
    barprop: Barprop, fresh: Engine, binance: Binance
) -> None:
    ran = barprop("ingest", "BTCUSDT", "1h", *FROM[:3], "BTC-USDT", *FROM[4:])
    assert (ran.code, ran.out) == (1, "")
    assert "binance has no symbol 'BTC-USDT'; try 'BTC/USDT'" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["BTCUSDT", "1h"], "three arguments, FILE SYMBOL TIMEFRAME, not 2"),
        (["a.csv", "BTCUSDT", "1h", "--since", "2024-01-01"], "go with --exchange"),
        (["a.csv", "BTCUSDT", "1h", *FROM], "SYMBOL TIMEFRAME, not 3 arguments"),
        (["BTCUSDT", "1h", *FROM[:2]], "needs --exchange-symbol"),
        (["BTCUSDT", "1h", *FROM[:4]], "needs --exchange-symbol"),
        (["BTCUSDT", "1h", *FROM, "--tz", "Asia/Tokyo"], "do not go with --exchange"),
        (["BTCUSDT", "1h", *FROM, "--until", "soon"], "'soon' is not a time"),
        (["BTC/USDT", "1h", *FROM], "try 'BTCUSDT'"),
        (["BTCUSDT", "1h", "--exchange", "nosuch", *FROM[2:]], "ccxt knows no exchange 'nosuch'"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    barprop: Barprop, fresh: Engine, arguments: list[str], said: str
) -> None:
    ran = barprop("ingest", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_without_ccxt_it_says_what_to_install(
    barprop: Barprop, fresh: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)
    ran = barprop("ingest", "BTCUSDT", "1h", *FROM)
    assert ran.code == 2
    assert "pip install '.[exchanges]'" in ran.err


def test_a_file_needs_no_ccxt(
    barprop: Barprop, fresh: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)
    BARS.write_parquet(tmp_path / "bars.parquet")
    assert barprop("ingest", tmp_path / "bars.parquet", "BTCUSDT", "1h").code == 0
