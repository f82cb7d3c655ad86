"""What a search tries next, as Optuna proposes it, which comes with the extra `tune`: nothing is stored by it."""

from collections.abc import Generator
from typing import Any

from model import extras
from model.tuning import Point, Space, Steps

DIGITS = 3  # of a number that is tried: more would say nothing

Proposals = Generator[Point, float | None, None]


def need() -> Any:
    """Optuna. Raises BadInput where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise extras.missing(error.name, "tune") from error
    return optuna


def points(searched: Space, start: Point, seed: int) -> Proposals:
    """Points to try, `start` first, then those of a tree-structured Parzen estimator (Bergstra et al. 2011); each is
    answered by its objective, or by None where it failed. Equal answers and seed give equal points."""
    optuna = need()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    of = {
        name: optuna.distributions.IntDistribution(0, len(axis.values) - 1)
        if isinstance(axis, Steps)
        else optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
        for name, axis in searched.items()
    }
    # steps are asked for by their place, so that neighbours are near each other whatever lies between them
    study.enqueue_trial(
        {
            name: axis.values.index(int(start[name])) if isinstance(axis, Steps) else start[name]
            for name, axis in searched.items()
        }
    )
    point = dict(start)
    trial = study.ask(of)
    while True:
        value = yield point
        if (
            value is None
        ):  # as worse than all others: of a failed one nothing would be learned, and it comes back to it
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
        trial = study.ask(of)
        point = {
            name: axis.values[trial.params[name]]
            if isinstance(axis, Steps)
            else float(f"{trial.params[name]:.{DIGITS}g}")
            for name, axis in searched.items()
        }
