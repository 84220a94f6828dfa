"""`python -m penchant`: the command line, where the script of that name is not on the path."""

import sys

from penchant.cli import main

sys.exit(main())
