"""What happens by itself: ingest, scoring, retraining and backtests, each in a leased job."""
