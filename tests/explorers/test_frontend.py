"""The front end, and an installation without the extra that has it."""

import subprocess
import sys

from derm_hash.explorers.frontend import module

WITHOUT = "import sys; sys.modules['anywidget'] = None; from derm_hash import RetrievalExplorer"


def test_a_bare_install_says_what_is_missing():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: The explorers need anywidget, which is not installed: run `make setup`, or "
        "`pip install 'derm-hash[lab]'`"
    )


def test_the_module_asks_for_no_other():
    assert "\nimport " not in module() and module().count("export default") == 1
