"""`python -m camcli`."""

import sys

from camcli.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
