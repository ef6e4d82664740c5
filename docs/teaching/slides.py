"""`make slides`: one page of slides for each session, made from the notebooks as they are saved.

    python docs/teaching/slides.py build/slides

slides.toml lists the cells. Each page holds its pictures and formulas (MathML), so that it opens
without a network: the arrow keys turn the slides, and the browser prints them.
"""

import base64
import html
import re
import sys
import tomllib
from pathlib import Path

import mistune
import nbformat
from latex2mathml.converter import convert

from derm_hash.files import write_text

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parents[1] / "notebooks"
LONGEST = {"text": 900, "output": 420}  # characters of the text on a slide
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
html {{ scroll-snap-type: y mandatory; font: 2.6vmin/1.4 system-ui, sans-serif; color: #222 }}
body {{ margin: 0 }}
section {{ height: 100vh; box-sizing: border-box; padding: 5vmin 8vmin; scroll-snap-align: start;
  display: flex; flex-direction: column; gap: 2vmin; overflow: hidden; break-after: page }}
h1, h2 {{ margin: 0; line-height: 1.15; color: #1c4e6b }}
h1 {{ font-size: 2.6em; margin-top: 30vh }}
h2 {{ font-size: 1.5em }}
p, ul, ol {{ margin: 0 }} li + li, p + p {{ margin-top: .5em }}
.text {{ max-width: 60em }} .text:last-of-type, h2 + ol {{ font-size: 1.3em; max-width: 50em }}
.text:last-of-type:has(img) {{ font-size: 1.1em }} .text img {{ width: 100%; max-height: 49vh }}
.output {{ flex: 1; min-height: 0; display: flex; gap: 2vmin; justify-content: center;
  align-items: center }}
.output img {{ max-width: 100%; max-height: 100%; object-fit: contain; flex: 1; min-width: 0;
  height: 100% }}
table {{ border-collapse: collapse; font-size: 1.1em }}
th, td {{ padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }}
pre {{ font-size: .8em }} code {{ background: #f2f2f2; padding: 0 .2em }}
math {{ font-size: 1.1em }}
footer {{ font-size: .6em; color: #666; margin-top: auto }}
</style>
<body>
{slides}
<script>
const slides = [...document.querySelectorAll("section")];
const fit = () => {{  // a large table gets smaller letters
  for (const output of document.querySelectorAll(".output")) {{
    for (let size = 1; size > 0.3; size -= 0.05) {{
      output.style.fontSize = size + "em";
      if (output.scrollHeight <= output.clientHeight && output.scrollWidth <= output.clientWidth)
        break;
    }}
  }}
}};
addEventListener("load", fit);
addEventListener("resize", fit);
const here = () => slides.findIndex((s) => s.getBoundingClientRect().bottom > innerHeight / 2);
const steps = {{ ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1,
  PageUp: -1, Home: -999, End: 999 }};
addEventListener("keydown", (event) => {{
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = Math.min(Math.max(here() + steps[event.key], 0), slides.length - 1);
  slides[next].scrollIntoView();
}});
</script>
"""


def main() -> None:
    """Write the pages of all sessions into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, session in sessions().items():
        path = folder / f"session-{number}.html"
        write_text(path, page(number, session))
        print(path)


def sessions() -> dict[str, dict]:
    """What slides.toml says."""
    return tomllib.loads((HERE / "slides.toml").read_text("utf-8"))


def page(number: str, session: dict) -> str:
    """The page of a session."""
    about = dict(session)
    title, question = about.pop("title"), about.pop("question")
    slides = [f"<h1>{title}</h1>\n<p>Session {number} of derm-hash</p>"]
    for name, ids in about.items():
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        slides += [slide(notebook, name, chosen) for chosen in ids]
        slides.append(to_think_about(notebook, name))
    slides.append(f"<h1>{question}</h1>")
    body = "\n".join(f"<section>\n{each}\n</section>" for each in slides)
    return PAGE.format(title=f"Session {number}: {title}", slides=body)


def slide(notebook, name: str, chosen: str) -> str:
    """A slide of the cell with this id; LookupError if there is none, or it shows nothing."""
    position = next((i for i, cell in enumerate(notebook.cells) if cell.id == chosen), None)
    if position is None:
        raise LookupError(f"{name} has no cell {chosen}: mend slides.toml")
    above = [cell for cell in notebook.cells[: position + 1] if cell.cell_type == "markdown"]
    headings = re.findall(r"^#+ (.+)$", "\n".join(cell.source for cell in above), re.MULTILINE)
    cell = notebook.cells[position]
    shown = output(cell) if cell.cell_type == "code" else ""
    if cell.cell_type == "code" and not shown:
        raise LookupError(f"Cell {chosen} of {name} has no saved output: mend slides.toml")
    text = beginning(above[-1].source, LONGEST["output" if shown else "text"])
    heading = f"<h2>{rendered(headings[-1], inline=True)}</h2>" if headings else ""
    parts = [heading, f'<div class="text">{rendered(text)}</div>', shown]
    parts.append(f"<footer>{name}</footer>")
    return "\n".join(part for part in parts if part)


def beginning(source: str, longest: int) -> str:
    """The first paragraph below the last heading, and more if they fit; no hints, no tables."""
    source = re.sub(r"<details>.*?</details>", "", source, flags=re.DOTALL)
    source = re.split(r"^#+ .*$", source, flags=re.MULTILINE)[-1]
    source = re.sub(r"^\[previous.*$|^\[next.*$", "", source, flags=re.MULTILINE)
    source = source.partition("**What you will learn")[0]
    paragraphs = [part for part in re.split(r"\n{2,}", source.strip()) if part[:1] not in ("", "|")]
    kept = paragraphs[:1]
    for part in paragraphs[1:]:
        if PICTURE.match(part):  # it gets the rest of the slide
            return "\n\n".join([*kept, part])
        if len("\n\n".join([*kept, part])) > longest:
            break
        kept.append(part)
    return "\n\n".join(kept)


def output(cell) -> str:
    """The pictures and tables of a cell's saved outputs, or else its printed text."""
    found, printed = [], ""
    for out in cell.outputs:
        data = out.get("data", {})
        kind = next((kind for kind in ("image/png", "image/jpeg") if kind in data), None)
        if kind:
            found.append(f'<img alt="" src="data:{kind};base64,{data[kind].strip()}">')
        elif "text/html" in data:
            found.append(re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL))
        else:
            printed += out.get("text", "") or data.get("text/plain", "")
    if not found and printed:
        found = [f"<pre>{html.escape(printed)}</pre>"]
    return f'<div class="output">{"".join(found)}</div>' if found else ""


def to_think_about(notebook, name: str) -> str:
    """The questions at the end of a notebook, as a slide."""
    text = notebook.cells[-1].source.partition("**To think about**")[2]
    questions = re.match(r"\s*((?:\d\. .*\n?(?:[^\S\n]+.*\n?)*)+)", text)
    return f"<h2>To think about</h2>\n{rendered(questions[1])}\n<footer>{name}</footer>"


def rendered(text: str, inline: bool = False) -> str:
    """A text in Markdown as HTML, with its pictures, and formulas as MathML; without links."""
    kept = []

    def keep(made: str) -> str:
        kept.append(made)
        return f"\x02{len(kept) - 1}\x03"

    text = PICTURE.sub(lambda match: keep(picture(match[1], NOTEBOOKS / match[2])), text)
    text = FORMULA.sub(lambda match: keep(formula(match)), text)
    page = mistune.html(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))
    page = re.sub("\x02(\\d+)\x03", lambda match: kept[int(match[1])], page)
    return re.sub(r"^<p>|</p>\s*$", "", page) if inline else page


def picture(alt: str, path: Path) -> str:
    """A drawing (SVG) with its alternative text, inside the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{content}">'


def formula(match: re.Match) -> str:
    """What FORMULA found, as MathML."""
    return convert(match[1] or match[2], display="block" if match[1] else "inline")


if __name__ == "__main__":
    main()
