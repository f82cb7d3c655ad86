"""What things are: pure NumPy and Polars. No I/O, no clock, no settings, no SQL, no HTTP."""
