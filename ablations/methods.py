"""Which aggregation method is best at the same number of tokens?

SlowFast, each of its pathways alone, and other methods, among them six published token reducers, each with the setting
closest to 100, 50 and 25 % of the budget. A method that has no setting for a budget, or that needs what the model's
vision tower does not give, is left out with a warning.
"""

import logging

from sfllava.aggregators.matching import budget_methods, match_budget
from sfllava.settings import Setting
from sfllava.types import SfllavaError

BENCHMARK = "egoschema"
TOKENS = 3680
PERCENT = (100, 50, 25)


def settings(model, task, tokens) -> list[Setting]:
    found = []
    for percent in PERCENT:
        for method in budget_methods():
            label = method if percent == 100 else f"{method}, {percent} %"
            try:
                aggregation = match_budget(method, tokens * percent // 100, 50, *model.grid)
                found.append(Setting(50, aggregation, label).for_model(model))
            except SfllavaError as error:
                logging.getLogger("sfllava").warning("left out: %s: %s", label, error)
    return found
