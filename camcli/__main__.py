"""`python -m camcli`."""

import sys

from camcli.cli import main

if __name__ == "__main__":
    sys.exit(main())
