"""`python -m visavis`: the command, for when its script is not on the PATH."""

import sys

from visavis.script import main

sys.exit(main())
