"""`python -m dxos.worker KIND …`: the processes of a profile that nobody starts by hand.

zygote HOST DESCRIPTOR   the worker's parent, started by the leader
agent PROFILE IDLE       started by whoever wants one; its settings come on standard input
"""

import os
import sys


def main() -> None:
    """Detach from whoever started this, before anything large is imported, so that nobody has to wait for its end."""
    kind, place, detail = sys.argv[1:]
    if os.fork():
        os._exit(0)
    if kind == "agent":
        os.setsid()  # A terminal that closes, or Ctrl-C in it, is none of its business.
        from dxos.worker.agent_process import main

        main(place, detail)
    else:
        from dxos.worker.zygote import run

        run(place, int(detail))


if __name__ == "__main__":
    main()
