"""The small trained model in the package, its training, and small checkpoints with random weights."""
