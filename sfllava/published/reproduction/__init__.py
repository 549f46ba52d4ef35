"""The paper's results, measured again: its main table and its ablations, with its numbers beside ours.

paper.py has the numbers, experiments.py the runs that they need, plan.py and estimates.py what these would take, run.py
answers and judges, results.py and notes.py read the run folders, report.py and page.py write the report.
"""
