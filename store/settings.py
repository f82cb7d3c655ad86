"""Settings: defaults < TOML file < environment (`BARPROP_SECTION__KEY`) < flags. Units stand in key names.

A section is a frozen model; each key has its one default here. Add a setting by adding a field.
"""

import os
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from platformdirs import user_config_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

import model.bars
from model.bars import Market
from model.caution import Caution
from model.errors import BadInput
from model.portfolio import Costs, policies

if TYPE_CHECKING:
    from model.features import Input

# What ccxt calls the parts of a user's account.
CREDENTIALS = (
    "apiKey",
    "secret",
    "password",
    "uid",
    "login",
    "token",
    "privateKey",
    "walletAddress",
    "twofa",
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

    url: str = Field(default_factory=default_database_url, repr=False)  # may hold a password


class Service(Section):
    """What `serve` listens on and how much it takes."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1)  # processes that answer, beside the one worker of jobs
    keep_alive_seconds: float = Field(default=75.0, gt=0)  # of a connection without a request
    headers_seconds: float = Field(default=10.0, gt=0)  # until a request's headers have come whole
    require_keys: bool = False  # beyond loopback keys are always required
    max_body_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    max_bars_per_request: int = Field(default=10_000, gt=0)
    max_batch_markets: int = Field(default=1_000, gt=0)  # of one `POST /v1/predict/batch`
    max_streams: int = Field(default=100, gt=0)  # open at once in one process
    max_streams_per_key: int = Field(default=20, gt=0)
    heartbeat_seconds: float = Field(
        default=15.0, gt=0
    )  # between the comments of a stream that has no events
    body_seconds: float = Field(default=10.0, gt=0)  # until a request's body has arrived
    # of each key in one process, without keys of each address. None: a generous one for keys, none without; 0: none
    requests_per_second: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    burst: int = Field(default=2_000, ge=1)  # requests at once before that counts
    stale_after_timeframes: float = Field(default=2.0, gt=0)
    # where answers wait for a database that is away, and how many of them at most
    journal: Path = Field(default_factory=lambda: user_data_path("barprop") / "journal")
    journal_rows: int = Field(default=10_000, gt=0)


class Jobs(Section):
    """How the worker works."""

    processes: int = Field(default=1, ge=1)  # jobs that run at once, each in a process of its own
    poll_seconds: float = Field(default=0.5, gt=0)
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    lease_seconds: float = Field(default=30.0, gt=0)
    max_queued: int = Field(
        default=1_000, ge=1
    )  # jobs that were asked for and wait; scheduled ones do not count
    # a folder of SYMBOL_TIMEFRAME.(parquet|feather|csv|json) that the ingest schedule reads
    inbox: Path | None = None

    @model_validator(mode="after")
    def _a_beat_may_be_missed(self) -> "Jobs":
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"lease_seconds ({self.lease_seconds:g}) must be at least twice heartbeat_seconds "
                f"({self.heartbeat_seconds:g}), or one late heartbeat loses a living worker its job"
            )
        return self


class Source(Section):
    """A market's bars at an exchange."""

    symbol: str
    timeframe: str
    exchange: str  # as ccxt names it
    exchange_symbol: str  # as the exchange names it, e.g. BTC/USDT
    since: datetime  # of a market without bars; one without a zone is UTC

    @property
    def market(self) -> Market:
        """The market, spelled in the one right way."""
        return model.bars.market(self.symbol, self.timeframe)

    @field_validator("since")
    @classmethod
    def _in_utc(cls, since: datetime) -> datetime:
        return model.bars.utc(since)

    @model_validator(mode="after")
    def _is_a_market(self) -> "Source":
        try:
            self.market  # noqa: B018
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self


class Sources(Section):
    """The exchanges that bars are fetched from by themselves; none as long as no market is named."""

    markets: tuple[Source, ...] = ()
    # by exchange: what ccxt is told as it is, e.g. {"binance": {"timeout": 5000}}
    exchanges: dict[str, dict[str, Any]] = Field(default_factory=dict)
    attempts: int = Field(default=7, ge=1)  # at one request, over about a minute

    @model_validator(mode="after")
    def _one_source_a_market(self) -> "Sources":
        named = [source.market for source in self.markets]
        for market in named:
            if named.count(market) > 1:
                raise ValueError(f"{market} has {named.count(market)} sources: name one")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> "Sources":
        for name, options in self.exchanges.items():
            if secret := next((key for key in options if key in CREDENTIALS), None):
                raise ValueError(f"{name} needs no {secret}: bars are public, and settings are shown")
        return self


class TrainingInput(Section):
    """Features of other bars beside a market's own: of another market, or without a symbol of a longer timeframe."""

    symbol: str | None = None
    timeframe: str
    features: tuple[str, ...] | None = None  # a choice of their own where nothing is said

    def input(self) -> "Input":
        """As a training takes it."""
        # features are built when they are first asked for, which most commands never do
        from model.features import Input

        named = {} if self.features is None else {"features": self.features}
        return Input(self.symbol, self.timeframe, **named)

    @model_validator(mode="after")
    def _is_an_input(self) -> "TrainingInput":
        # its features are looked at with the others, once a user's own are there
        try:
            model.bars.market(self.symbol or "OWN", self.timeframe)
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self


class Signals(Section):
    """When a version that could answer abstains."""

    min_confidence: float = Field(default=0.5, ge=0.5, lt=1)  # of p_up or its complement; 0.5: any will do
    stale_model_after_bars: int = Field(default=10_000, ge=1)  # timeframes since the newest label it has seen

    def caution(self, length: timedelta) -> Caution:
        """As a version of a market with bars of that length takes it."""
        stale_after = self.stale_model_after_bars * (length // timedelta(microseconds=1))
        return Caution(self.min_confidence, stale_after)


class Features(Section):
    """Features of a user's own."""

    # a Python file; it is run as a part of this program
    file: Path | None = None


class Training(Section):
    """What a scheduled or asked-for training uses. None stands for what `model.config.TrainConfig` has, which looks at
    the values too."""

    window_bars: int = Field(default=30_000, ge=200)
    horizon_bars: int = Field(default=1, ge=1)
    # names from `barprop features list`; "default" stands for all that are used where nothing is said
    features: tuple[str, ...] = ("default",)
    inputs: tuple[TrainingInput, ...] = ()
    jump_z: float = Field(
        default=60.0, gt=0, allow_inf_nan=False
    )  # robust standard deviations beyond which a move is a break
    hidden: tuple[int, ...] | None = None
    activation: str | None = None
    initialiser: str | None = None
    normalisation: str | None = None
    residual: bool | None = None
    dropout: float | None = None
    optimiser: str | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    warm_up: float | None = None
    weight_decay: float | None = None
    clip_value: float | None = None
    clip_norm: float | None = None
    batch_rows: int | None = None
    epochs: int | None = None
    patience_epochs: int | None = None
    half_life_bars: int | None = None
    dead_zone: float | None = None
    uniqueness: bool | None = None
    return_weight: float | None = None
    calibration: str | None = None
    members: int | None = None
    relearn: bool | None = None
    seed: int = Field(default=0, ge=0)
    blas_threads: int = Field(default=1, ge=1)


class Backtest(Section):
    """What a backtest assumes where its command line does not say."""

    refit_every_bars: int = Field(default=1_000, ge=1)
    fee_bps: float = Field(default=10.0, ge=0)  # of the traded value, each way
    slippage_bps: float = Field(default=2.0, ge=0)  # of the traded value, each way, beside half the spread
    spread_bps: float = Field(default=0.0, ge=0)  # from bid to ask: each way pays half of it
    borrow_bps_annual: float = Field(default=0.0, ge=0)  # of the value held short
    funding_bps_8h: float = Field(
        default=0.0, allow_inf_nan=False
    )  # the long pay the short; below 0 the short pay
    latency_bars: int = Field(default=0, ge=0)  # until a position is traded, beyond the next open
    baselines: tuple[str, ...] = ("no_change", "logistic")  # beside the base rate; "lightgbm" needs its extra
    processes: int | None = Field(default=None, ge=1)  # that train; None: one for each core but one

    def costs(self) -> Costs:
        """What trading and holding costs."""
        return Costs(
            self.fee_bps, self.slippage_bps, self.spread_bps, self.borrow_bps_annual, self.funding_bps_8h
        )


class Portfolio(Section):
    """How a forecast becomes a position, in backtests and in Signals alike."""

    policy: str = "cost_aware"
    long_only: bool = False
    cap: float = 1.0  # largest position, as a share of the capital
    threshold: float = 0.55  # of `threshold`: p_up from which to be long, its complement to be short
    kelly_fraction: float = 0.5  # of `kelly`
    target_volatility_bps: float = 50.0  # of `volatility`: of the capital over the horizon

    def chosen(self, policy: str | None = None) -> policies.Policy:
        """As positions are made by it, or by another policy with the same limits. Raises BadInput for one that is none."""
        named = self.model_dump()
        configured = named.pop("policy")
        return policies.Policy(policy or configured, **named)

    @model_validator(mode="after")
    def _is_a_policy(self) -> "Portfolio":
        try:
            self.chosen()
        except BadInput as error:
            raise ValueError(str(error)) from error
        return self


class Log(Section):
    """What is written to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"
    format: Literal["console", "json"] = "console"  # json: one object a line


class Otel(Section):
    """Traces of requests, by OpenTelemetry."""

    # a collector's OTLP address over HTTP; None: what OTEL_EXPORTER_OTLP_ENDPOINT names, else there are no traces
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/@?#]+(/[^@?#]*)?$")


class Settings(BaseSettings):
    """All settings of one process, frozen."""

    model_config = SettingsConfigDict(
        env_prefix="BARPROP_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    database: Database = Field(default_factory=Database)
    service: Service = Field(default_factory=Service)
    jobs: Jobs = Field(default_factory=Jobs)
    sources: Sources = Field(default_factory=Sources)
    signals: Signals = Field(default_factory=Signals)
    features: Features = Field(default_factory=Features)
    training: Training = Field(default_factory=Training)
    backtest: Backtest = Field(default_factory=Backtest)
    portfolio: Portfolio = Field(default_factory=Portfolio)
    log: Log = Field(default_factory=Log)
    otel: Otel = Field(default_factory=Otel)

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
    """The settings of this process; `flags` are sections given on the command line, e.g. `service={"port": 0}`.

    Raises BadInput where a value does not fit, a name is unknown, or the TOML file cannot be read.
    """
    named = os.environ.get("BARPROP_CONFIG")
    if named and not Path(named).is_file():
        raise BadInput(f"the settings file {named} (BARPROP_CONFIG) does not exist")
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        raise BadInput(_fault(error)) from None  # the cause would show the value, maybe a password
    except SettingsError as error:
        raise BadInput(f"the settings cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"the settings file {config_file()} is not TOML: {error}") from error
    except OSError as error:
        raise BadInput(f"the settings file {config_file()} cannot be read: {error.strerror}") from error


def _fault(error: ValidationError) -> str:
    """The first fault in one line, with the setting's name in the file and in the environment."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    return f"setting {'.'.join(place)} (BARPROP_{'__'.join(place).upper()}): {message}"
