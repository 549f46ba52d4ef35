"""Reproduce the paper's main table and ablations, and compare its numbers with ours.

paper.py has the numbers, experiments.py the runs that measure them, plan.py and estimates.py check and estimate these
runs, run.py answers and judges, results.py and notes.py read the run folders, report.py and page.py write the report.
"""
