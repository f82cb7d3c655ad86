"""A user's own features: the file that the settings name is read, what it brings is proven, and then it stands in the
table of this process. It is code and runs as this program does; nothing but the settings can name it.
"""

import runpy
import traceback
from pathlib import Path

from model.errors import BadInput
from model.features import DEFAULT, Feature, FeatureSet, Input, user
from store.settings import Settings

# In `training.features`: all that are used where nothing is said.
ALL_DEFAULTS = "default"


def register(settings: Settings, prove: bool = True) -> None:
    """Makes the features of the settings' file usable in this process; without a file, the built-in ones alone.

    Raises BadInput, in one line, where the file cannot be read, one of its features may not be used, or a training is to
    use one that nobody brings.
    """
    features = read(settings.features.file) if settings.features.file is not None else ()
    user.register(features)
    try:
        if prove:
            user.prove(features)
        FeatureSet(chosen(settings), inputs(settings))
    except BadInput:
        user.register(())
        raise


def register_as(definition: str, settings: Settings) -> None:
    """As `register`, for a process that another one started, which has proven the features of this `definition`.

    Raises BadInput where they are others by now.
    """
    register(settings, prove=False)
    if user.definition(user.registered()) != definition:
        user.register(())
        raise BadInput(f"{settings.features.file} has changed since the worker was started: start it again")


def chosen(settings: Settings) -> tuple[str, ...]:
    """The names of the features that a training uses: those of the settings, `default` standing for all usual ones."""
    names = settings.training.features
    return tuple(name for each in names for name in (DEFAULT.names if each == ALL_DEFAULTS else (each,)))


def inputs(settings: Settings) -> tuple[Input, ...]:
    """The other bars that a training sees features of, those of the settings. Raises BadInput for features unknown."""
    return tuple(each.input() for each in settings.training.inputs)


def read(file: Path) -> tuple[Feature, ...]:
    """The features that a file brings, in its order, unproven. Raises BadInput."""
    if not file.is_file():
        raise BadInput(f"the features file {file} (setting features.file) does not exist")
    try:
        # read and compiled anew each time: no bytecode is kept that could be older than the file
        brought = runpy.run_path(str(file), run_name="barprop_features")
    except Exception as error:  # whatever a user's code does wrong is told as the file's fault
        text = " ".join(str(error).split())
        said = text if isinstance(error, BadInput) else f"{type(error).__name__}: {text}"
        raise BadInput(f"the features file {file}{_line(error, file)}: {said}") from error
    features = {id(value): value for value in brought.values() if isinstance(value, Feature)}
    if not features:
        raise BadInput(
            f"the features file {file} brings no feature: write @feature(needs=…) above a function"
        )
    return tuple(features.values())


def _line(error: Exception, file: Path) -> str:
    """Where in the file it went wrong."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    return f", line {lines[-1]}" if lines else ""
