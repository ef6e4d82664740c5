"""The command line: ``python -m data_setup NAME --root FOLDER``.

A command is a module: HELP, ``add_arguments`` for its options, and ``run``, which fills the folder
``args.root`` or prints what it finds there.
"""

import argparse
import sys

from data_setup import audit, dermamnist, folder, ham10000, info, isic2019, ph2, synthetic, verify
from derm_hash.errors import exit_code

COMMANDS = {
    "list": info,
    "synthetic": synthetic,
    "dermamnist": dermamnist,
    "ham10000": ham10000,
    "isic2019": isic2019,
    "ph2": ph2,
    "folder": folder,
    "verify": verify,
    "audit": audit,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code, or 2 for bad input, or 130 after Ctrl-C."""

    def command() -> int | None:
        args = parser().parse_args(argv)
        return COMMANDS[args.command].run(args)

    return exit_code("data_setup", command, "stopped: run the same command again to continue")


def parser() -> argparse.ArgumentParser:
    """The parser with one subparser per command."""
    top = argparse.ArgumentParser(
        prog="python -m data_setup",
        description="Prepare a data folder (images, lesion masks, manifest.csv, dataset.json), or "
        "verify one.",
        epilog="example: python -m data_setup synthetic --root data/atlas",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="NAME")
    for name, module in COMMANDS.items():
        module.add_arguments(
            commands.add_parser(name, help=module.HELP, description=(module.__doc__ or "").strip())
        )
    return top


if __name__ == "__main__":
    sys.exit(main())
