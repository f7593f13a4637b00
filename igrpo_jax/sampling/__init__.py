"""Sampling: a fixed number of rows in flight, refilled as prompts finish."""
