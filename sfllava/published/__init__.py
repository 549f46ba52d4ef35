"""The way over from the published code: its experiment files, its output folders, and its prompts."""
