# PYTHON_ARGCOMPLETE_OK
"""`python -m sfllava.cli`."""

import sys

from sfllava.cli import main

if __name__ == "__main__":
    sys.exit(main())
