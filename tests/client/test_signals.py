"""Signals from the real service: batches, bars in the body, by address, and the stream."""

import itertools
import threading
from datetime import timedelta
from typing import Any

from barprop_client import Bar, Client, Market, Prediction, Refused

from tests.client.test_client import ETH
from tests.service.conftest import BARS, CLOSE, Clock, walk


def test_a_batch(client: Any, champion: int) -> None:
    first, second = client.predict_batch([ETH, ("NOSUCH", "1h")])
    assert first == client.predict(*ETH)
    assert isinstance(second, Refused)
    assert (second.market, second.problem.type) == (Market("NOSUCH", "1h"), "/problems/not-found")


def test_bars_in_the_body_are_answered_and_not_kept(client: Any, champion: int) -> None:
    stored = [Bar(**row) for row in walk().tail(768).iter_rows(named=True)]
    signal = client.predict(*ETH, bars=stored)
    assert isinstance(signal, Prediction)
    assert (signal.as_of, signal.version) == (CLOSE, champion)
    assert list(client.predictions(*ETH)) == []


def test_a_signal_by_address_is_that_of_predict(client: Any, champion: int) -> None:
    first, again = (client.signal(*ETH) for _ in range(2))
    assert first == again == client.predict(*ETH)


def test_a_pushed_bar_is_heard_as_its_signal_and_nothing_is_lost_on_coming_back(
    client: Any, address: str, champion: int, clock: Clock
) -> None:
    before = client.predict(*ETH)
    (served,) = client.predictions(*ETH)
    newest = Bar(**walk(BARS + 1, CLOSE + timedelta(hours=1)).row(-1, named=True))

    def push() -> None:
        clock.now = CLOSE + timedelta(hours=1, minutes=1)
        with Client(address) as other:
            other.push_bars(*ETH, [newest])

    later = threading.Timer(0.5, push)
    later.start()
    stream = client.signals(*ETH, after=served.id - 1)
    heard = list(itertools.islice(stream, 2))
    stream.close()
    later.join()
    assert heard[0].signal == before
    assert heard[1].signal.as_of == CLOSE + timedelta(hours=1)
    assert [entry.id for entry in heard] == [entry.id for entry in client.predictions(*ETH)][::-1]
