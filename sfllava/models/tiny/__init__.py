"""The small trained model in the package, its training, and small checkpoints with random weights."""

from pathlib import Path

SCORER = Path(__file__).with_name("scorer")  # the folder of the small scorer
