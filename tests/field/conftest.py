"""Commands of data_setup, run as people run them."""

import pytest

from data_setup.__main__ import main
from derm_hash.data.manifest import read_manifest


@pytest.fixture
def filled(tmp_path, capsys):
    """Let a command make the data folder anew; its manifest or its error, and what it printed."""

    def run(*command):
        root = tmp_path / "data"
        status = main([*map(str, command), "--root", str(root), "--force"])
        out, error = capsys.readouterr()
        return (error if status else read_manifest(root)), out

    return run
