"""The Open Inference Protocol v2 over the versions that make Signals, for whoever has a client of it.

A model is a market, named `SYMBOL:TIMEFRAME`, or `SYMBOL:TIMEFRAME:bars` where it takes bars. Its versions are the
market's; where none is named, today's champion answers.
"""

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as version_of
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import BaseModel, Field

import model.bars
import store.database
import store.loaded
import store.markets
import store.versions
from model.bars import Market
from model.errors import BadArtifact, BadInput, NotFound
from service import readiness, tensors
from service.answers import Answers
from service.deps import AnswersDep, ClockDep, EngineDep, SettingsDep
from service.oip_errors import ERRORS, PREFIX
from service.oip_models import KINDS, Asked
from service.tensors import InferenceRequest, InferenceResponse
from store.database import Engine

PLATFORM = "barprop_numpy"
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


class Server(BaseModel):
    """What this server is, and which extensions of the protocol it has."""

    name: str = Field(examples=["barprop"])
    version: str
    extensions: list[str] = Field(examples=[[tensors.EXTENSION]])


class Live(BaseModel):
    """The server answers."""

    live: bool


class Ready(BaseModel):
    """Whether the server can answer; the protocol's text calls it `live` here too, its servers call it `ready`."""

    live: bool
    ready: bool


class ModelReady(BaseModel):
    """Whether a version can be used."""

    name: str
    ready: bool


class MetadataTensor(BaseModel):
    """An input or output; -1 in `shape` is any number. `columns`: what the numbers of a row are, with commas between."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str | int] | None = None


class Metadata(BaseModel):
    """A model: the versions that can be asked, newest first, and what the one that answers takes and gives."""

    name: str = Field(examples=["ETHUSDT:1h"])
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]
    parameters: dict[str, str | int] = Field(
        description="The `version` that answers, its `horizon` in bars and the first digits of its `weights`' SHA-256."
    )


@dataclass(frozen=True)
class Named:
    """The model of a path, and the version where it names one."""

    market: Market
    kind: str
    version: str | None

    @property
    def name(self) -> str:
        """The model's name, in its one spelling."""
        return ":".join((self.market.symbol, self.market.timeframe, self.kind)).removesuffix(":")


ModelName = Annotated[
    str,
    Path(
        description="A market as `SYMBOL:TIMEFRAME`, or `SYMBOL:TIMEFRAME:bars`.",
        examples=["ETHUSDT:1h:bars"],
        max_length=64,
    ),
]
VersionName = Annotated[
    str, Path(description="One of the model's `versions`.", examples=["1"], max_length=64)
]


async def _named(request: Request, model_name: ModelName) -> Named:
    symbol, _, rest = model_name.partition(":")
    timeframe, colon, kind = rest.partition(":")
    try:
        market = model.bars.market(symbol, timeframe)
        if kind not in KINDS or (colon and not kind):
            raise BadInput(f"{kind!r} is none of its kinds")
    except BadInput as error:
        raise NotFound(
            f"no model {model_name!r}: a model is SYMBOL:TIMEFRAME or SYMBOL:TIMEFRAME:bars, and {error}"
        ) from error
    return Named(market, kind, request.path_params.get("model_version"))


async def _named_version(model_version: VersionName) -> None:
    """Only for the documentation: the path's version is read with the model."""


async def _body(request: Request) -> bytes:
    return await request.body()


NamedDep = Annotated[Named, Depends(_named)]


def _asked(engine: Engine, named: Named, answers: Answers, now: datetime) -> Asked:
    """The version that answers. Raises NotFound, BadArtifact."""
    with store.database.read(engine) as conn:
        row = store.markets.need(conn, named.market)
        if named.version is None:
            version = store.versions.champion(conn, row.id)
        else:
            by_name = {str(ident): ident for ident in store.versions.ids(conn, row.id)}
            version = by_name.get(named.version)
            if version is None:
                raise NotFound(f"no version {named.version!r} of {named.market}")
        if version is None:
            raise NotFound(f"no version answers for {named.market} yet: barprop train {named.market}")
        predictor = store.loaded.load(conn, named.market, version, answers.versions).model
    return Asked(engine, named.market, version, predictor, answers, now)


router = APIRouter(prefix=PREFIX, tags=["open inference protocol"], responses=ERRORS)
models = APIRouter()


@router.get("", response_model=Server)
@router.get("/", response_model=Server, include_in_schema=False)
async def server() -> dict[str, Any]:
    """What this server is."""
    return {"name": "barprop", "version": version_of("barprop"), "extensions": [tensors.EXTENSION]}


@router.get("/health/live", response_model=Live)
async def live() -> dict[str, bool]:
    """The process lives; as `/livez` it is open to whoever asks."""
    return {"live": True}


@router.get(
    "/health/ready",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Cannot answer"}},
)
def ready(found: Annotated[dict[str, Any], Depends(readiness.readyz)]) -> dict[str, bool]:
    """Whether this process can answer, by the same test as `/readyz`, which names the reasons."""
    return {"live": True, "ready": found["status"] != "unready"}


@models.get("", response_model=Metadata, response_model_exclude_none=True)
def metadata(named: NamedDep, engine: EngineDep, clock: ClockDep, answers: AnswersDep) -> dict[str, Any]:
    """What the version that answers takes and gives."""
    asked, kind = _asked(engine, named, answers, clock()), KINDS[named.kind]
    with store.database.read(engine) as conn:
        versions = store.versions.ids(conn, store.markets.need(conn, named.market).id)
    return {
        "name": named.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [tensor.document() for tensor in kind.inputs(asked.predictor)],
        "outputs": [tensor.document() for tensor in kind.outputs],
        "parameters": {
            "version": str(asked.version),
            "horizon": asked.predictor.horizon,
            "weights": asked.predictor.sha256[:12],
        },
    }


@models.get(
    "/ready",
    response_model=ModelReady,
    responses={503: {"model": ModelReady, "description": "The version's weights cannot be used"}},
)
def model_ready(
    named: NamedDep, engine: EngineDep, clock: ClockDep, answers: AnswersDep, response: Response
) -> dict[str, Any]:
    """Whether the version that answers can be used."""
    try:
        _asked(engine, named, answers, clock())
    except BadArtifact:
        response.status_code = 503
        return {"name": named.name, "ready": False}
    return {"name": named.name, "ready": True}


@models.post(
    "/infer",
    response_model=InferenceResponse,
    responses={200: {"content": {tensors.BINARY: BYTES}}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": tensors.schema(InferenceRequest)},
                tensors.BINARY: BYTES,
            },
        }
    },
)
def infer(
    named: NamedDep,
    body: Annotated[bytes, Depends(_body)],
    engine: EngineDep,
    clock: ClockDep,
    settings: SettingsDep,
    answers: AnswersDep,
    inference_header_content_length: Annotated[
        int | None, Header(ge=0, description="The JSON document's bytes, where binary tensors follow it.")
    ] = None,
) -> Response:
    """Of rows of raw features: what the network makes of each, by the calibration that the version was made with.
    `scaled_return` is in units of the return's expected size, and `abstention` is empty, or the reason for which a Signal
    from that row would have been an abstention.

    Of bars: the Signal of the newest, as `POST /v1/predict` gives it. An abstention has its reason in `abstention` and
    its detail in the parameters; the other outputs are then empty, for there is no number.
    """
    request, binary = tensors.parse(body, inference_header_content_length)
    kind = KINDS[named.kind]
    outputs = tensors.wanted(request, kind.outputs)
    asked = _asked(engine, named, answers, clock())
    most = settings.service.max_bars_per_request
    said = kind.say(asked, tensors.inputs(request, binary, kind.inputs(asked.predictor), most))
    return tensors.response(named.name, str(asked.version), request.id, outputs, said.values, said.parameters)


router.include_router(models, prefix="/models/{model_name}")
router.include_router(
    models,
    prefix="/models/{model_name}/versions/{model_version}",
    dependencies=[Depends(_named_version)],
    generate_unique_id_function=lambda route: f"{route.name}_of_version",
)
