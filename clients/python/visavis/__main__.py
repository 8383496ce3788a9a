"""`python -m visavis`: the command, where its script is not on the path."""

import sys

from visavis.script import main

sys.exit(main())
