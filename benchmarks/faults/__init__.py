"""The faults that are injected into healthy trainings to score the doctor.

A fault takes a healthy patient and gives it back with one value broken: its data, a part, a head, its optimiser or its
settings. Its true class is where its cause lies, and was fixed before anything was measured. Add a fault by adding a row
to the FAULTS of its class's module.
"""

from benchmarks.faults import backward, data, forward, setting, update
from benchmarks.faults.injection import Fault
from benchmarks.faults.trainings import healthy, learns, settings

__all__ = ["FAULTS", "KINDS", "Fault", "healthy", "learns", "settings"]

# By true class, in causal order.
KINDS: dict[str, dict[str, Fault]] = {
    "data": data.FAULTS,
    "forward": forward.FAULTS,
    "backward": backward.FAULTS,
    "update": update.FAULTS,
    "setting": setting.FAULTS,
}
FAULTS: dict[str, Fault] = {name: fault for faults in KINDS.values() for name, fault in faults.items()}
