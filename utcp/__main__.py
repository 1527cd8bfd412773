"""``python -m utcp``: the ``utcp`` command."""

import sys

from utcp.cli.main import main

sys.exit(main())
