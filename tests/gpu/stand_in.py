"""`visavis serve` with the CPU as its device: `python -m tests.gpu.stand_in OPTIONS`."""

import sys
from unittest.mock import patch

from visavis_server import process

if __name__ == "__main__":
    process.take_signals()

from visavis_server.__main__ import main
from visavis_server.models import planning

from .site import STAND_IN

if __name__ == "__main__":
    with patch.object(planning, "choose", lambda device, bf16: (STAND_IN, "in a GPU's place")):
        sys.exit(main(sys.argv[1:], "stand_in"))
