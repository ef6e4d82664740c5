"""Run the course without a browser, and write its pages.

    python notebooks/build.py                         every notebook, pages in build/walkthrough/
    python notebooks/build.py --only 03 --only 04     some of them
    python notebooks/build.py --only 05 --parameters data=data/ham10000 images=2000
    python notebooks/build.py --inplace               save the outputs in the notebooks (authors)

`--parameters` sets variables of the cell tagged `parameters`: a cell with the new values runs right
after it. A notebook that fails does not stop the others, but the exit status is 1 then.
"""

import argparse
import ast
import base64
import html
import io
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from PIL import Image
from tqdm.auto import tqdm

from derm_hash.errors import print_on_any_console

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "walkthrough"
# nbconvert closes <details> at once and shows the answer; words in its place come through.
ANSWER = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LARGE = 30_000  # bytes of a picture that may be smaller as a photograph
QUALITY = 78  # of a JPEG: text can still be read with ease


@dataclass
class Result:
    """How one notebook went; `problem` is empty where it ran to the end."""

    name: str
    title: str
    seconds: float
    problem: str = ""


class OwnKernel(AsyncKernelManager):
    """The kernel of the Python that runs this script, whatever kernels the user has installed."""

    def _kernel_spec_manager_default(self):
        return KernelSpecManager(kernel_dirs=[])  # nowhere to look: the built-in one is left


def main(argv=None):
    """Run what the command line asks for; 0 when every notebook ran to the end, else 1."""
    print_on_any_console()
    options = parse(argv)
    paths = sorted(options.notebooks.glob("[0-9]*.ipynb"))
    if options.only:
        paths = [path for path in paths if path.name.startswith(tuple(options.only))]
    if not paths:
        sys.exit(f"There is no such notebook in {options.notebooks}.")
    notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    try:
        inject(notebooks.values(), dict(options.parameters))
    except ValueError as error:
        sys.exit(str(error))

    os.environ.pop("MPLBACKEND", None)  # figures belong into the notebook, whatever the shell says
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for path, notebook in notebooks.items():
        result = run(notebook, path, options.timeout)
        results.append(result)
        print(f"{path.name:40} {result.problem or 'ok':>8} {result.seconds:7.1f} s", flush=True)
        freeze_widgets(notebook)
        if options.inplace and not result.problem:
            save(notebook, path)
        write_page(notebook, path, options.out)
    write_index(results, options.out / "index.html")
    print(f"pages: {options.out / 'index.html'}")

    failed = [result for result in results if result.problem]
    if failed:
        print(f"{len(failed)} of {len(results)} notebooks failed:", *(r.name for r in failed))
    return int(bool(failed))


def parse(argv):
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Run the course and write its pages.")
    parser.add_argument("--only", action="append", metavar="NN", help="start of a file name")
    parser.add_argument(
        "--parameters", nargs="+", type=assignment, default=[], metavar="NAME=VALUE",
        help="values for the cell tagged parameters; Python literals, or else text",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pages")
    parser.add_argument("--notebooks", type=Path, default=HERE, help="folder of the notebooks")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds a cell may take")
    parser.add_argument("--inplace", action="store_true", help="save outputs in the notebooks")
    options = parser.parse_args(argv)
    if options.inplace and options.parameters:
        parser.error("--inplace saves the course at its own scale: leave --parameters out")
    return options


def assignment(text):
    """'images=200' -> ('images', 200); what is not a Python literal is taken as text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def inject(notebooks, values):
    """Add a cell with `values` after the `parameters` cell of each notebook that has them.

    Raises ValueError for a name that no notebook has, since that is a slip of the pen.
    """
    unknown = set(values)
    for notebook in notebooks:
        for i, cell in enumerate(notebook.cells):
            if "parameters" in cell.metadata.get("tags", ()):
                known = {k: v for k, v in values.items() if k in assigned(cell.source)}
                unknown -= set(known)
                if known:
                    source = "\n".join(f"{name} = {value!r}" for name, value in known.items())
                    extra = nbformat.v4.new_code_cell(source)
                    extra.metadata["tags"] = ["injected-parameters"]
                    notebook.cells.insert(i + 1, extra)
                break
    if unknown:
        raise ValueError(
            f"No parameters cell sets {', '.join(sorted(unknown))}: check the name in the notebook."
        )


def assigned(source):
    """The names that a cell assigns at its top level."""
    statements = [s for s in ast.parse(source).body if isinstance(s, ast.Assign | ast.AnnAssign)]
    targets = [t for s in statements for t in getattr(s, "targets", [getattr(s, "target", None)])]
    return {t.id for t in targets if isinstance(t, ast.Name)}


def run(notebook, path, timeout):
    """Execute `notebook` in place, in the folder of its file, with a bar over its code cells."""
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code_cells:
        cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,  # random ids, and of no use without a kernel
    )
    started, problem = time.perf_counter(), ""
    with tqdm(total=len(code_cells), desc=path.stem, unit="cell", leave=False, disable=None) as bar:
        client.on_cell_complete = lambda **_: bar.update()
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            problem = "FAILED"
            bar.clear()
            print_failure(path, notebook, error)
    return Result(path.stem, title_of(notebook, path), time.perf_counter() - started, problem)


def print_failure(path, notebook, error):
    """Say which cell stopped the notebook, and why."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ran = [i for i, cell in enumerate(cells) if cell.execution_count or cell.outputs]
    number = ran[-1] if ran else 0
    print(f"\n{path.name}, code cell {number + 1} of {len(cells)}:\n", file=sys.stderr)
    print(cells[number].source, file=sys.stderr)
    traceback = [
        line for output in cells[number].outputs if output.output_type == "error"
        for line in output.traceback
    ] or [str(error)]  # fmt: skip
    traceback = "\n".join(traceback)
    traceback = traceback if sys.stderr.isatty() else strip_ansi(traceback)
    print(f"\n{traceback}\n", file=sys.stderr, flush=True)


def title_of(notebook, path):
    """The first heading of a notebook, without its mark."""
    for cell in notebook.cells:
        heading = re.match(r"#\s+(.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            return heading[1].strip()
    return path.stem


def freeze_widgets(notebook):
    """Leave of each widget what can be shown without a kernel: its picture, page or text.

    The explorers bring a picture of themselves. A progress bar has done its work and goes.
    """
    for cell in notebook.cells:
        for output in list(cell.get("outputs", ())):
            data = output.get("data", {})
            if data.pop(WIDGET_VIEW, None) and "%|" in "".join(data.get("text/plain", "")):
                cell.outputs.remove(output)


def shrink_pictures(notebook):
    """Store large figures full of photographs as JPEG, where that takes far less."""
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
                data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode()


def save(notebook, path):
    """Write the executed notebook back, small and without what differs between machines."""
    shrink_pictures(notebook)
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.kernelspec = {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    write(path, nbformat.writes(notebook) + "\n")


def write_page(notebook, path, out):
    """One self-contained page: pictures inside, links to other notebooks turned into links to
    their pages."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.html", cell.source)
            cell.source = ANSWER.sub(r"\n\nHIDE:\1:\n\n\2\n\nHIDE-END\n\n", cell.source)
    resources = {"metadata": {"path": str(path.parent), "name": title_of(notebook, path)}}
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources)
    page = re.sub(r"<p>HIDE:(.*?):</p>", r"<details><summary>\1</summary>", page)
    write(out / f"{path.stem}.html", page.replace("<p>HIDE-END</p>", "</details>"))


INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>derm-hash: the course</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 17px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem;
       color: #222; background: #fdfdfb }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .5rem .8rem; border-bottom: 1px solid #ddd }}
td:last-child, th:last-child {{ text-align: right; font-variant-numeric: tabular-nums }}
a {{ color: #0b5cad }} .ok {{ color: #1a7f37 }} .failed {{ color: #b3261e; font-weight: 600 }}
</style></head><body>
<h1>derm-hash: the course</h1>
<p>{summary}</p>
<table><tr><th>Notebook</th><th>Status</th><th>Time</th></tr>
{rows}
</table></body></html>
"""


def write_index(results, path):
    """The list of pages with how each run went."""
    failed = sum(bool(result.problem) for result in results)
    minutes = sum(result.seconds for result in results) / 60
    ended = f"{failed} failed" if failed else "none failed"
    rows = "\n".join(
        f'<tr><td><a href="{r.name}.html">{html.escape(r.title)}</a></td>'
        f'<td class="{"failed" if r.problem else "ok"}">{r.problem.lower() or "ok"}</td>'
        f"<td>{r.seconds:.0f} s</td></tr>"
        for r in results
    )
    summary = f"Notebooks executed: {len(results)}, in {minutes:.1f} minutes; {ended}."
    write(path, INDEX.format(summary=summary, rows=rows))


def write(path, text):
    """Write a whole file or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
