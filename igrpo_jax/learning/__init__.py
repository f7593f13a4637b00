"""The update: a rollout is cut into micro-batches, their gradients are added up, and AdamW takes a step."""
