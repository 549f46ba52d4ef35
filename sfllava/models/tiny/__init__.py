"""The small trained model inside the package, how it was trained, and small random checkpoints."""
