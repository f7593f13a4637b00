"""Metrics for trackio, Weights & Biases or MLflow, beside the run's own records and out of its way."""

from igrpo_jax.records.trackers.tracker import Tracker

__all__ = ["Tracker"]
