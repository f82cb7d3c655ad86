"""Every error that Barprop raises on purpose.

    BarpropError
     ├── BadInput          what was given cannot be used; the message says what would be right
     │    ├── BadBars      bars or a file of bars that cannot be understood
     │    └── BadArtifact  stored weights that are damaged, of an unknown version, or not finite
     ├── NotFound          no such market, version, job …
     ├── Busy              somebody else holds the market
     │    └── QueueFull    as many jobs wait as may
     ├── TrainingFailed    a training that cannot give a usable network, and why
     ├── BrokenEvaluation  a forecaster whose scores are known beforehand scored otherwise
     ├── SeenRows          a version was to be judged on rows that it has learned from
     └── Unreachable       the database or the service does not answer, or its schema is not at head

A message is one line, names place and fact, and is fit for a user's eyes.
"""


class BarpropError(Exception):
    """Base of all errors raised on purpose."""


class BadInput(BarpropError):
    """What was given cannot be used."""


class BadBars(BadInput):
    """Bars, or a file of bars, that cannot be understood."""


class BadArtifact(BadInput):
    """Stored weights that are damaged, of an unknown version, or not finite."""


class NotFound(BarpropError):
    """No such market, version, job or key."""


class Busy(BarpropError):
    """Somebody else holds what is asked for."""


class QueueFull(Busy):
    """As many jobs wait as may; what was asked for was not queued."""


class TrainingFailed(BarpropError):
    """A training that cannot give a usable network."""


class BrokenEvaluation(BarpropError):
    """A forecaster whose scores are known beforehand scored otherwise, so the judgement cannot be believed."""


class SeenRows(BarpropError):
    """A version was to be judged on rows that it has learned from."""


class Unreachable(BarpropError):
    """The database or the service does not answer, or its schema is not at head."""
