"""`python -m dxos.worker HOST DESCRIPTOR`: becomes the zygote of a profile; started by its leader, not by hand."""

import os
import sys


def main() -> None:
    """Detach from whoever started this, before anything large is imported, so that nobody has to wait for its end."""
    host, descriptor = sys.argv[1], int(sys.argv[2])
    if os.fork():
        os._exit(0)
    from dxos.worker.zygote import run

    run(host, descriptor)


if __name__ == "__main__":
    main()
