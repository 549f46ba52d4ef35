"""Migration from the published code: its experiment files, output folders and prompts.

config.py reads an experiment file, plan.py says what it means here, run.py runs it. outputs.py and judged.py read an
output folder, importing.py writes it as a run folder. wordings.py imports prompts, from what inference_wordings.py and
judge_wordings.py parse with templates.py. reproduction/ reproduces the paper's tables.
"""
