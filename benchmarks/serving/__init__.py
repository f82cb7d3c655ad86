"""What `benchmarks.serve` is made of.

cores      processes on a core of their own, and what the system knows of them
data       bars, a network, and a database full of markets
running    the service and what stands beside it, started and stopped
bare       the peer: an endpoint that answers a constant
load       requests as fast as they are answered, from a process of its own
pushing    a pushed bar until its Signal is on a stream
servers    the same network behind servers of models, each in a Python of its own
"""
