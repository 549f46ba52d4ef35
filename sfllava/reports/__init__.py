"""Results as files: tables, figures, and reports in HTML."""
