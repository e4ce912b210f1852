"""What running or training a model takes: memory measured on tensors without data, and which GPUs have it."""
