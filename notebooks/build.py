"""Run the course without a browser, and write its pages.

    python notebooks/build.py                         every notebook, pages in build/walkthrough/
    python notebooks/build.py --only 03 --only 04     some of them
    python notebooks/build.py --only 05 --parameters data=data/ham10000 images=2000
    python notebooks/build.py --inplace               save the outputs in the notebooks (authors)

papermill runs the notebooks and nbconvert writes the pages. `--parameters` sets variables of the
cell tagged `parameters`: papermill adds a cell with the new values after it. If a notebook fails,
the others still run, and the exit status is 1.

Two notebooks run at a time (`--jobs`), with half of the cores each. With `--inplace` they run one
by one with all cores, because the last digits of what a network learns depend on the number of
threads.
"""

import argparse
import ast
import base64
import html
import io
import mimetypes
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from latex2mathml.converter import convert
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from derm_hash.errors import print_on_any_console

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "walkthrough"
METADATA = {  # of a saved notebook
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
EXPLORER = "explorer.html"  # the living explorer, which `make walkthrough` puts beside the pages
FRAME = f'<iframe src="{EXPLORER}" title="the explorer" width="100%" height="800"></iframe>'
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# nbconvert's page without the scripts that it would fetch: formulas are MathML, see `mathml`.
TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block data_png %}{{ output | picture('image/png') }}{% endblock %}
{% block data_jpg %}{{ output | picture('image/jpeg') }}{% endblock %}
{% block data_latex %}{{ output.data['text/latex'].strip('$') | mathml }}{% endblock %}"""
LARGE = 30_000  # bytes; larger pictures are saved as JPEG where that is much smaller
QUALITY = 78  # of a JPEG: text stays easy to read
LONGEST = "08"  # runs first, so that the others fill the time


class OwnKernel(AsyncKernelManager):
    """The kernel of the Python that runs this script, whatever kernels the user has installed."""

    def _kernel_spec_manager_default(self):
        return KernelSpecManager(kernel_dirs=[])  # no folders: only the built-in kernel is left


def main(argv=None):
    """Run what the command line asks for; return 0 if every notebook ran to the end, else 1."""
    print_on_any_console()
    options = parse(argv)
    paths = sorted(options.notebooks.glob("[0-9]*.ipynb"))
    paths = [path for path in paths if path.name.startswith(tuple(options.only or [""]))]
    if not paths:
        sys.exit(f"there is no such notebook in {options.notebooks}: check --only and --notebooks")
    values = dict(options.parameters)
    given = {path: known(path, values) for path in paths}
    if unknown := values.keys() - set().union(*given.values()):
        sys.exit(f"no parameters cell sets {', '.join(sorted(unknown))}: check the name")

    os.environ.pop("MPLBACKEND", None)  # figures belong in the notebook, whatever the shell says
    options.out.mkdir(parents=True, exist_ok=True)
    if options.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, os.cpu_count() // options.jobs))
    longest_first = sorted(paths, key=lambda path: not path.name.startswith(LONGEST))
    pool, started = ThreadPoolExecutor(options.jobs), time.perf_counter()
    try:
        results = sorted(pool.map(lambda path: build(path, given[path], options), longest_first))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, no other notebook starts
    write_index(results, (time.perf_counter() - started) / 60, options.out / "index.html")
    print(f"pages: {options.out / 'index.html'}")

    failed = [name for name, _, status, _ in results if status == "FAILED"]
    if failed:
        print(f"{len(failed)} of {len(results)} notebooks failed:", *failed)
    return int(bool(failed))


def parse(argv):
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description="Run the course and write its pages.")
    parser.add_argument("--only", action="append", metavar="NN", help="start of a file name")
    parser.add_argument(
        "--parameters", nargs="+", type=assignment, default=[], metavar="NAME=VALUE",
        help="values for the cell tagged parameters: Python literals, or else text",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pages")
    parser.add_argument("--notebooks", type=Path, default=HERE, help="folder of the notebooks")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds a cell may take")
    parser.add_argument("--inplace", action="store_true", help="save outputs in the notebooks")
    parser.add_argument("--jobs", type=int, metavar="N", help="notebooks that run at a time")
    options = parser.parse_args(argv)
    options.jobs = options.jobs or (1 if options.inplace else 2)
    if options.inplace and options.parameters:
        parser.error("--inplace saves the course with its own parameters: leave --parameters out")
    return options


def assignment(text):
    """'images=200' -> ('images', 200); a value that is not a Python literal is taken as text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        value = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
    return name, list(value) if isinstance(value, tuple) else value  # papermill has no tuples


def known(path, values):
    """The parameters among `values` that the notebook at `path` has."""
    return {k: value for k, value in values.items() if k in papermill.inspect_notebook(path)}


def build(path, values, options):
    """Run a notebook and write its page: (name, title, "ok" or "FAILED", seconds)."""
    started = time.perf_counter()
    notebook, error = run(path, values, options.timeout)
    seconds, status = time.perf_counter() - started, "FAILED" if error else "ok"
    print(f"{path.name:40} {status:>8} {seconds:7.1f} s", flush=True)
    if error:
        report(path.name, notebook, error)
    freeze_widgets(notebook)
    if options.inplace and not error:
        save(notebook, path)
    title = write_page(notebook, options.out / f"{path.stem}.html", path.parent)
    return path.stem, title, status, seconds


def run(path, values, timeout):
    """Execute a copy of the notebook at `path`, in the folder of the notebook.

    Returns the copy with its outputs, and the error that stopped it, or None.
    """
    with TemporaryDirectory() as folder:
        copy, stopped = Path(folder) / path.name, None
        try:
            papermill.execute_notebook(
                path,
                copy,
                values,
                kernel_name="python3",
                progress_bar={"desc": path.stem, "leave": False, "disable": None},
                execution_timeout=timeout,
                # What follows is for nbclient.
                # Papermill's own `cwd` would change the folder of all threads.
                resources={"metadata": {"path": str(path.parent)}},
                kernel_manager_class=OwnKernel,
                extra_arguments=["--log-level=ERROR"],
                record_timing=False,
                store_widget_state=False,  # random ids, useless without a kernel
            )
        except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
            stopped = error
        return nbformat.read(copy, as_version=4), stopped


def report(name, notebook, error):
    """Print the cell that stopped a notebook, and why."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    number = sum(cell.metadata.papermill.start_time is not None for cell in cells)
    print(f"\n{name}, code cell {number} of {len(cells)}:\n", file=sys.stderr)
    print(f"{cells[number - 1].source}\n\n{error}\n", file=sys.stderr, flush=True)


def freeze_widgets(notebook):
    """Keep of each widget what can be shown without a kernel: its picture, page or text.

    The explorers bring a picture of themselves. Progress bars are removed.
    """
    for cell in notebook.cells:
        for output in list(cell.get("outputs", ())):
            data = output.get("data", {})
            if data.pop(WIDGET_VIEW, None) and "%|" in "".join(data.get("text/plain", "")):
                cell.outputs.remove(output)


def save(notebook, path):
    """Write the executed notebook back, small and without what differs between runs."""
    shrink_pictures(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    nbformat.write(notebook, path)


def shrink_pictures(notebook):
    """Store large pictures as JPEG where that takes less than 60 % of the bytes."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            png = base64.b64decode(data.get("image/png", ""))
            if len(png) < LARGE:
                continue
            jpeg = io.BytesIO()
            picture = Image.open(io.BytesIO(png)).convert("RGB")
            picture.save(jpeg, format="JPEG", quality=QUALITY, optimize=True)
            if len(jpeg.getvalue()) < 0.6 * len(png):
                del data["image/png"]
                about = output.get("metadata", {})
                if "image/png" in about:  # the alternative text
                    about["image/jpeg"] = about.pop("image/png")
                data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode()


def write_page(notebook, path, folder=HERE):
    """Write a notebook as a page whose links lead to the other pages; return its title.

    The pictures that its text names are read from the notebook's folder, and put into the page.
    Where the page of the explorer is beside it, that stands in for stills of the explorer.
    """
    for cell in notebook.cells if (path.parent / EXPLORER).exists() else ():
        for output in cell.get("outputs", ()):
            if "RetrievalExplorer" in output.get("data", {}).get("text/plain", ""):
                output.data = nbformat.from_dict({"text/html": FRAME})
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in prose:
        cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.html", cell.source)
    headings = [re.match(r"#\s+(.+)", cell.source) for cell in prose]
    title = next((found[1].strip() for found in headings if found), path.stem)
    markdown = partial(markdown2html, folder=folder)
    filters = {"markdown2html": markdown, "mathml": mathml, "picture": with_alt}
    exporter = HTMLExporter(raw_template=TEMPLATE, filters=filters)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    path.write_text(page, encoding="utf-8")
    return title


def with_alt(output, kind):
    """A picture with its alternative text, which nbconvert's own templates leave out."""
    alt = html.escape(output.get("metadata", {}).get(kind, {}).get("alt", ""))
    source = f"data:{kind};base64,{output['data'][kind].strip()}"
    image = f'<img alt="{alt}" src="{source}">'
    return f'<div class="jp-RenderedImage jp-OutputArea-output">{image}</div>'


class Formulas(IPythonRenderer):
    """Markdown cells whose formulas browsers draw by themselves, with their pictures inside."""

    def inline_math(self, body):
        return mathml(body)

    def block_math(self, body):
        return mathml(body, "block")

    def image(self, text, url, title=None):
        file = Path(self.path, url)
        if file.is_file():
            content = base64.b64encode(file.read_bytes()).decode()
            url = f"data:{mimetypes.guess_type(url)[0]};base64,{content}"
        return super().image(text, url, title)


def markdown2html(source, folder):
    """The HTML of a Markdown cell of a notebook in this folder."""
    return MarkdownWithMath(renderer=Formulas(escape=False, path=folder)).render(source)


def mathml(formula, display="inline"):
    """A formula in LaTeX, without dollar signs, as MathML."""
    found = convert(formula.replace(r"\arg", r"\operatorname{arg}"), display=display)
    # Bars around a term are no operators: without the space that a browser would put around them.
    return found.replace('stretchy="false">&#x0007C;', 'stretchy="false" lspace="0" rspace="0">|')


def write_index(results, minutes, path):
    """Write a page that lists the other pages: title, status and seconds of each notebook."""
    failed = sum(status == "FAILED" for _, _, status, _ in results)
    rows = [f"| [{title}]({name}.html) | {status} | {seconds:.0f} s |\n"
            for name, title, status, seconds in results]  # fmt: skip
    text = (
        "# derm-hash: the course\n\n"
        f"Notebooks executed: {len(rows)}, in {minutes:.1f} minutes; {failed} failed.\n\n"
        "| Notebook | Status | Time |\n|---|---|---|\n" + "".join(rows)
    )
    write_page(new_notebook(cells=[new_markdown_cell(text)]), path)


if __name__ == "__main__":
    sys.exit(main())
