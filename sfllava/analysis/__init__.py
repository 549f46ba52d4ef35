"""Run folders -> tables: accuracy, paired differences, agreement of judges."""
