"""What people see of the work: progress bars, and objects as HTML in notebooks and reports."""
