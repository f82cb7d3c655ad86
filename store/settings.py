"""Settings: defaults < TOML file < environment (`BARPROP_SECTION__KEY`) < flags. Units stand in key names.

A section is a frozen model; each key has its one default here. Add a setting by adding a field.
"""

import os
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


def default_database_url() -> str:
    """A SQLite file in the user's data directory."""
    return f"sqlite:///{user_data_path('barprop') / 'barprop.db'}"


def config_file() -> Path:
    """The TOML file that is read: `BARPROP_CONFIG`, else `config.toml` in the user's configuration directory."""
    return Path(os.environ.get("BARPROP_CONFIG") or user_config_path("barprop") / "config.toml")


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Database(Section):
    """Where everything is kept."""

    url: str = Field(default_factory=default_database_url)


class Service(Section):
    """What `serve` listens on and how much it takes."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    require_keys: bool = False  # beyond loopback keys are always required
    max_body_bytes: int = Field(16 * 1024 * 1024, gt=0)
    max_bars_per_request: int = Field(50_000, gt=0)
    stale_after_timeframes: float = Field(2.0, gt=0)


class Jobs(Section):
    """How the worker works."""

    processes: int = Field(1, ge=1)  # jobs that run at once, each in a process of its own
    poll_seconds: float = Field(0.5, gt=0)
    heartbeat_seconds: float = Field(5.0, gt=0)
    lease_seconds: float = Field(30.0, gt=0)
    inbox: Path | None = None  # a folder of SYMBOL_TIMEFRAME.(parquet|feather|csv|json) that the ingest schedule reads


class Training(Section):
    """What a scheduled or asked-for training uses; see model.training.TrainConfig for the rest."""

    window_bars: int = Field(10_000, ge=200)
    horizon_bars: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    blas_threads: int = Field(1, ge=1)


class Backtest(Section):
    """What a backtest assumes where its command line does not say."""

    refit_every_bars: int = Field(1_000, ge=1)
    fee_bps: float = Field(10.0, ge=0)  # of the traded value, each way
    slippage_bps: float = Field(2.0, ge=0)  # of the traded value, each way


class Log(Section):
    """What is written to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"


class Settings(BaseSettings):
    """All settings of one process, frozen."""

    model_config = SettingsConfigDict(
        env_prefix="BARPROP_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    database: Database = Field(default_factory=Database)
    service: Service = Field(default_factory=Service)
    jobs: Jobs = Field(default_factory=Jobs)
    training: Training = Field(default_factory=Training)
    backtest: Backtest = Field(default_factory=Backtest)
    log: Log = Field(default_factory=Log)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def load(**flags: dict[str, Any]) -> Settings:
    """The settings of this process; `flags` are sections given on the command line, e.g. `service={"port": 0}`."""
    return Settings(**flags)  # type: ignore[arg-type]
