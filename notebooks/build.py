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
import html
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
from tqdm.auto import tqdm

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "walkthrough"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


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


# --- widgets on paper -------------------------------------------------------------------------


def freeze_widgets(notebook):
    """Replace each widget by a picture in HTML of what it showed at the end of the run.

    A page has no kernel, so that live controls would be dead ones; and a notebook that carries
    the state of its widgets changes at every run, since their ids are random.
    """
    state = notebook.metadata.pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            view = output.get("data", {}).pop(WIDGET_VIEW, None)
            if view and not {"text/html", "image/png"} & set(output.data):
                output.data["text/html"] = frozen(view["model_id"], state)


def frozen(reference, state):
    """HTML of one widget and its children, from the state that the kernel left behind."""
    model = state.get(reference.removeprefix("IPY_MODEL_"))
    if model is None or model["state"].get("layout") is None:
        return ""
    kind, values = model["model_name"].removesuffix("Model"), model["state"]
    layout = state.get(values["layout"].removeprefix("IPY_MODEL_"), {}).get("state", {})
    if layout.get("display") == "none" or layout.get("visibility") == "hidden":
        return ""
    if "children" in values:
        return frozen_box(kind, values, layout, state)
    if kind == "Image":
        picture = next(b["data"] for b in model["buffers"] if b["path"] == ["value"])
        width = values.get("width") or layout.get("width") or ""
        width = f"{width}px" if str(width).isdigit() else width
        picture = "".join(picture.split())
        source = f"data:image/{values.get('format') or 'png'};base64,{picture}"
        return f'<img src="{source}" style="max-width:100%;width:{width or "auto"}">'
    if kind == "MPLCanvas":
        return f'<img src="{values.get("_data_url", "")}" style="max-width:100%">'
    if kind == "Output":
        return "".join(frozen_output(output) for output in values.get("outputs", ()))
    return f'<span style="margin:2px 8px">{frozen_value(kind, values)}</span>'


def frozen_box(kind, values, layout, state):
    """A box keeps its direction, or its columns; the pages of a tab follow one another."""
    children = [frozen(child, state) for child in values["children"]]
    titles = values.get("titles") or ()
    for i, title in enumerate(titles):
        children[i] = f"<div><b>{html.escape(title)}</b>{children[i]}</div>"
    if layout.get("grid_template_columns"):
        style = f"display:grid;gap:4px;grid-template-columns:{layout['grid_template_columns']}"
    elif kind == "HBox":
        style = "display:flex;flex-wrap:wrap;gap:4px;align-items:center"
    else:
        style = "display:flex;flex-direction:column;gap:4px"
    return f'<div style="{style}">{"".join(children)}</div>'


def frozen_output(output):
    """What an Output widget had caught: its richest form that a page can show."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img src="data:image/png;base64,{data["image/png"]}" style="max-width:100%">'
    if "text/html" in data:
        return "".join(data["text/html"])
    return f"<pre>{html.escape(''.join(output.get('text') or data.get('text/plain', '')))}</pre>"


def frozen_value(kind, values):
    """A control as text: its description and its value."""
    value = values.get("value", "")
    if "_options_labels" in values:
        chosen = values.get("index")
        chosen = chosen if isinstance(chosen, list) else [chosen]
        value = ", ".join(values["_options_labels"][i] for i in chosen if i is not None)
    if kind in ("HTML", "HTMLMath"):
        return f"{values.get('description', '')} {value}"
    if kind in ("FloatProgress", "IntProgress"):
        return f'<progress value="{value}" max="{values["max"]}"></progress>'
    if kind in ("Button", "Checkbox", "ToggleButton", "Valid"):
        mark = {True: "&#9745;", False: "&#9744;"}.get(value, "")
        return f"{mark} {html.escape(values.get('description', ''))}"
    return f"{html.escape(values.get('description', ''))} <b>{html.escape(str(value))}</b>"


# --- files ------------------------------------------------------------------------------------


def save(notebook, path):
    """Write the executed notebook back, without what changes from one machine to the next."""
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
    resources = {"metadata": {"path": str(path.parent), "name": title_of(notebook, path)}}
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources)
    write(out / f"{path.stem}.html", page)


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
