"""The command line: ``python -m data_setup NAME --root FOLDER``."""

from __future__ import annotations

import argparse
import sys

from data_setup import audit, folder, ham10000, synthetic
from derm_hash.errors import InputError

COMMANDS = {"synthetic": synthetic, "ham10000": ham10000, "folder": folder, "audit": audit}


def main(argv: list[str] | None = None) -> int:
    """Run one command; exit code 0, 2 for bad input, 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        COMMANDS[args.command].run(args)
    except InputError as error:
        print(f"data_setup: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"data_setup: the system refuses: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndata_setup: stopped; the same command completes the folder.", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser with one subparser per command."""
    top = argparse.ArgumentParser(
        prog="python -m data_setup",
        description="Prepare a data folder: images, lesion masks, manifest.csv, dataset.json.",
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
