"""The update: a rollout as micro-batches, gradients summed over them, the optimizer's step."""
