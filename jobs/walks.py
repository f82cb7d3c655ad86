"""A walk that is interrupted keeps what it has done, refit by refit, and goes on from there when it is asked to."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import numpy as np

import store.backtests
from model import artifact, backtest, predictor
from model.artifact import Packed
from model.backtest import Block, Contents, Fits, Policy, Refit, Said, Standing
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import BadArtifact
from model.recalibration import Recalibration
from store import database
from store.database import Engine

MADE = "made."  # before the names of a version's arrays


def blocks(
    engine: Engine,
    market_id: int,
    data: Dataset,
    config: TrainConfig,
    policy: Policy,
    fits: Fits,
    resume: bool,
    clock: Callable[[], datetime],
) -> Iterator[Block]:
    """The blocks of a walk, each kept in the database before it is given away; with `resume` those that are kept already
    come first. Bars that came since then may follow; where earlier ones have changed it begins anew from there."""
    walk = name(market_id, config, policy)
    data_until = Prefix(data)
    done: list[Block] = []
    if resume:
        with database.read(engine) as conn:
            done = _still_right(
                _unpacked(store.backtests.blocks(conn, walk)), data, config, policy, data_until
            )
    with database.write(engine) as conn:
        store.backtests.drop_blocks(conn, walk, len(done))
    yield from done
    for number, block in enumerate(backtest.walk_forward(data, config, policy, fits, done), len(done)):
        packed = _packed(block, data_until(block.rows.stop))
        with database.write(engine) as conn:
            store.backtests.add_block(conn, walk, number, market_id, packed, clock())
        yield block


def name(market_id: int, config: TrainConfig, policy: Policy) -> str:
    """SHA-256 of what decides a walk besides its bars."""
    asked = {"market": market_id, "config": config.document(), "policy": asdict(policy)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Prefix:
    """The SHA-256 of the first rows of a dataset, for numbers of rows that only grow."""

    def __init__(self, data: Dataset) -> None:
        self._data, self._rows, self._hash = data, 0, hashlib.sha256()

    def __call__(self, rows: int) -> str:
        new = self._data.part(slice(self._rows, rows))
        for array in (new.closed_at, new.known_at, new.X, new.log_return, new.scale, new.close):
            self._hash.update(array.tobytes())
        self._rows = rows
        return self._hash.hexdigest()


def _still_right(
    kept: Iterable[tuple[Block, str]], data: Dataset, config: TrainConfig, policy: Policy, until: Prefix
) -> list[Block]:
    """Those of the kept blocks that this walk would give too."""
    done: list[Block] = []
    for (block, digest), row in zip(kept, backtest.refit_rows(data, config, policy), strict=False):
        rows = backtest.answered_after(row, policy, len(data))
        expected = rows if block.standing is not None else slice(rows.stop, rows.stop)
        if block.refit.row != row or block.rows != expected or until(block.rows.stop) != digest:
            break
        done.append(block)
    return done


def _packed(block: Block, digest: str) -> Packed:
    arrays: dict[str, Any] = {
        "said": np.stack([getattr(block.said, column.name) for column in fields(Said)]),
        "refused": block.refused.astype(np.int64),
    }
    made: dict[str, Any] | None = None
    if block.made is not None:
        own, made = block.made
        arrays |= {MADE + key: array for key, array in own.items()}
    standing = block.standing
    return artifact.pack(
        arrays,
        {
            "refit": asdict(block.refit),
            "rows": [block.rows.start, block.rows.stop],
            "moved": None if standing is None else asdict(standing.moved),
            "until": None if standing is None else standing.until,
            "made": made,
            "data": digest,
        },
    )


def _unpacked(kept: Iterable[Packed]) -> Iterator[tuple[Block, str]]:
    """Blocks and the digests of their data, up to the first that is damaged."""
    model = None
    for packed in kept:
        try:
            arrays, manifest = artifact.unpack(packed)
            made: Contents | None = None
            if manifest["made"] is not None:
                own = {key.removeprefix(MADE): array for key, array in arrays.items() if key.startswith(MADE)}
                made = own, manifest["made"]
                model = predictor.from_arrays(*made)
        except BadArtifact:
            return
        standing = None
        if manifest["moved"] is not None:
            assert model is not None
            standing = Standing(model, Recalibration(**manifest["moved"]), manifest["until"])
        refit = manifest["refit"]
        block = Block(
            Refit(**{**refit, "health": tuple(refit["health"])}),
            slice(*manifest["rows"]),
            Said(*arrays["said"]),
            arrays["refused"].astype(np.uint8),
            standing,
            made,
        )
        yield block, manifest["data"]
