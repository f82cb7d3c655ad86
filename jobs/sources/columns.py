"""Which column of a file is which. Teach it a name by adding it to NAMES.

Names are compared in any case and without blanks and signs: `Open Time`, `open_time` and `<OPENTIME>` are one.
"""

import re
from collections.abc import Mapping, Sequence

from model.errors import BadBars

# What a column is, and the names that it goes by, the surest first.
NAMES: dict[str, tuple[str, ...]] = {
    "ts": (
        "ts", "opentime", "timestamp", "datetime", "unix", "unixtime", "unixtimestamp", "epoch", "timestampms",
        "timestampns", "timestampus", "gmttime", "utctime", "timeutc", "dateutc", "starttime", "barstart", "t",
        "time",
    ),
    "date": ("date", "day", "tradedate", "tradingday"),
    "open": ("open", "o", "openprice", "priceopen", "first"),
    "high": ("high", "h", "highprice", "pricehigh", "max"),
    "low": ("low", "l", "lowprice", "pricelow", "min"),
    "close": ("close", "c", "closeprice", "priceclose", "closelast", "last", "price"),
    "volume": (
        "volume", "vol", "v", "basevolume", "volumebase", "basevol", "basecoinvolume", "volumefrom", "tickvol",
        "tickvolume",
    ),
    "symbol": ("symbol", "ticker", "pair", "instrument", "sym"),
}  # fmt: skip
NEEDED = ("open", "high", "low", "close")
# What `columns` may name; "time" is a time of day beside a "date", else the whole stamp.
MAPPABLE = ("ts", "date", "time", *NEEDED, "volume", "symbol")

# A column without a name, or a stored index, is the time when nothing else is.
_NAMELESS = re.compile(r"|index|unnamed0?|indexlevel0|level0")
# Where volume stands in two currencies and no symbol tells, the one that is not money is the base.
_MONEY = ("usd", "usdt", "usdc", "busd", "tusd", "fdusd", "dai", "eur", "gbp", "jpy", "krw", "try", "quote")
_VOLUME_IN = re.compile(r"vol(?:ume)?([a-z]{2,8})")

HEADERLESS = ("ts", *NEEDED, "volume")


def plain(name: str) -> str:
    """A name as it is compared: small letters and digits; the number before `1. open` is dropped."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^\s*\d+\.\s*", "", name.lower()))


def is_time(name: str) -> bool:
    """Whether a column of that name holds times."""
    return plain(name) in (*NAMES["ts"], *NAMES["date"])


def known(names: Sequence[str], columns: Mapping[str, str]) -> int:
    """How many of `names` are names of columns that bars have."""
    every = {name for row in NAMES.values() for name in row} | {plain(name) for name in columns.values()}
    return sum(plain(name) in every or _VOLUME_IN.fullmatch(plain(name)) is not None for name in names)


def symbol_column(names: Sequence[str], columns: Mapping[str, str]) -> int | None:
    """The position of the column that names the market itself, if there is one."""
    if "symbol" in columns:
        return _given(names, {"symbol": columns["symbol"]}).get("symbol")
    return _find("symbol", names, "")


def roles(names: Sequence[str], columns: Mapping[str, str], symbol: str = "") -> dict[str, int]:
    """The position of each column that is needed, by what it is: ts or date or both, open … close, volume, symbol.

    Where both stand, `ts` may be a time of day: its values tell. `columns` says so for unusual names, e.g.
    {"close": "PX_LAST"}; an empty name leaves a column out. `symbol` helps to tell the base currency's volume from
    the quote's. Raises BadBars.
    """
    found = {role: at for role in NAMES if (at := _find(role, names, symbol)) is not None}
    found |= _given(names, columns)
    for role in [role for role, name in columns.items() if not name]:
        found.pop(role, None)
    if "time" in found:
        found["ts"] = found.pop("time")
    if "ts" in columns:
        found.pop("date", None)
    if "ts" not in found and "date" not in found:
        nameless = next((at for at, name in enumerate(names) if _NAMELESS.fullmatch(plain(name))), None)
        if nameless is not None:
            found["ts"] = nameless
    for role in ("ts", *NEEDED):
        if role not in found and not (role == "ts" and "date" in found):
            what = "the time" if role == "ts" else role
            raise BadBars(f"no column for {what} among {_listed(names)}; name it with --columns {role}=NAME")
    return found


def _find(role: str, names: Sequence[str], symbol: str) -> int | None:
    spelled = [plain(name) for name in names]
    for candidate in NAMES[role]:
        places = [at for at, name in enumerate(spelled) if name == candidate]
        if len(places) > 1:
            twice = " and ".join(repr(names[at]) for at in places)
            raise BadBars(f"two columns may be {role}: {twice}; say which with --columns {role}=NAME")
        if places:
            return places[0]
    if role != "volume":
        return None
    currencies = {match[1]: at for at, name in enumerate(spelled) if (match := _VOLUME_IN.fullmatch(name))}
    return _base(currencies, plain(symbol))


def _base(currencies: Mapping[str, int], symbol: str) -> int | None:
    """Of volumes in several currencies that of the base: with which the symbol begins, else the one that is not money."""
    begins = sorted(
        (currency for currency in currencies if symbol.startswith(currency)), key=len, reverse=True
    )
    goods = [currency for currency in currencies if currency not in _MONEY]
    base = next(iter([*begins, *goods, *currencies]), None)
    return None if base is None else currencies[base]


def _given(names: Sequence[str], columns: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for role, name in columns.items():
        if role not in MAPPABLE:
            raise BadBars(f"--columns names {role!r}, which is none of {', '.join(MAPPABLE)}")
        if not name:
            continue
        exact = [at for at, there in enumerate(names) if there.strip() == name.strip()]
        alike = exact or [at for at, there in enumerate(names) if plain(there) == plain(name)]
        if len(alike) != 1:
            fact = "no column" if not alike else f"{len(alike)} columns"
            raise BadBars(f"{fact} {name!r}, asked for as {role}; the columns are {_listed(names)}")
        found[role] = alike[0]
    return found


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
