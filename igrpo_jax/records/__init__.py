"""What a run writes down: metrics, samples, checkpoints, and whose directory it is."""
