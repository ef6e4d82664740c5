"""Entry point of the ``derm-hash`` command."""

import sys

from derm_hash import doctor
from derm_hash.errors import exit_code


def main() -> int:
    """Run the command line; the doctor works even where the other commands cannot load."""
    if sys.argv[1:] == ["doctor"]:
        return exit_code("derm-hash", doctor.print_report, "stopped")
    from derm_hash import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
