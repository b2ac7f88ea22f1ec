"""`python -m dxos.cli`: the command `dx` of this interpreter."""

import sys

from dxos.cli.main import main

sys.exit(main())
