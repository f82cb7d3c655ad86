"""`barprop features`: what there is, and the proof, which names what it caught."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from model.features import FEATURES, Feature
from service.cli import app

runner = CliRunner()


def test_a_clean_table_passes_on_the_shipped_bars() -> None:
    done = runner.invoke(app, ["features", "check", "--cuts", "3", "--json"])
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said["features"] == len(FEATURES)
    assert said["look_ahead"] == said["unmet_needs"] == []


def test_a_cheat_is_named_with_the_bar_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    cheat = Feature("tomorrow", "cheat", 2, "looks ahead", pl.col("close").shift(-1) / pl.col("close") - 1)
    monkeypatch.setitem(FEATURES, "tomorrow", cheat)
    done = runner.invoke(app, ["features", "check", "--cuts", "3", "--json"])
    assert done.exit_code == 1
    (found,) = json.loads(done.stdout)["look_ahead"]
    assert found["feature"] == "tomorrow"
    assert found["first_moved"] < found["cut"]


def test_a_feature_that_states_too_few_bars_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = Feature(
        "greedy", "level", 3, "states 3 bars, looks at 50", pl.col("close").rolling_mean(50) / pl.col("close")
    )
    monkeypatch.setitem(FEATURES, "greedy", greedy)
    done = runner.invoke(app, ["features", "check", "--cuts", "3", "--json"])
    assert done.exit_code == 1
    (found,) = json.loads(done.stdout)["unmet_needs"]
    assert (found["feature"], found["needs"]) == ("greedy", 3)
