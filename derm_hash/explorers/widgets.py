"""The explorers: turn a lesion and watch the bits, see why a hit matched, bend the loss.

Each explorer is a thin ipywidgets view on a state of `derm_hash.explorers.states`. Pictures travel
as encoded bytes (in HTML, since ipywidgets' Image knows no alternative text). The page sends a
slider's latest value only when the last one has been answered, so dragging never queues up work.

Saved in a notebook, an explorer leaves a picture of its first view for pages without a
kernel. Running its cell again closes the one before.
"""

import html
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import ipywidgets as widgets
from IPython import get_ipython
from matplotlib.figure import Figure

from derm_hash import plots
from derm_hash.errors import InputError, counted
from derm_hash.explorers.parts import (
    about,
    code_strip,
    enlarged,
    heat_in_words,
    in_words,
    jpeg,
    lines,
    link,
    picture_html,
    stacked,
    svg_charts,
    svg_follows,
    with_heat,
)
from derm_hash.explorers.states import (
    MOST_BYTES,
    MOST_SHOWN,
    PAGE,
    HeatmapState,
    Hit,
    LossState,
    QueryState,
    RetrievalState,
    RetrievalView,
    hits_csv,
    image_id,
)
from derm_hash.losses import PENALTIES
from derm_hash.plots.pictures import format_distance
from derm_hash.plots.style import RIGHT, WRONG
from derm_hash.retrieval import METRICS

ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 10px"}
SIDE_BY_SIDE = {"flex_flow": "row wrap", "grid_gap": "4px 16px"}
ACCENT = "#d55e00"
NO_LIMIT = -1  # stands for None, which ipywidgets takes for "nothing chosen"
WIDE = {"description_width": "initial"}
STYLE = """<style>
.derm-hash-cell { position: relative }
.derm-hash-cell button { position: static; overflow: visible }
.derm-hash-cell button::after { content: ""; position: absolute; inset: 0; cursor: pointer }
.derm-hash-cell button:focus-visible::after { outline: 3px solid #d55e00 }
.derm-hash-explorer a { color: var(--jp-content-link-color, #0b5cad); text-decoration: underline }
</style>"""
"""A press anywhere on a picture is a press of the button below it, which the keyboard reaches."""
OPEN: dict[str, list[tuple[str, "Explorer"]]] = {}  # cell -> (run of it, explorer)


class Explorer(widgets.VBox):
    """What the explorers have in common: one place for actions, errors and the end.

    A subclass has a ``state``, and ``draw()`` brings what is shown in line with it.
    """

    def __init__(self, state, controls: Sequence[widgets.Widget], body: Sequence[widgets.Widget]):
        self.state = state
        self._links: list[Callable[[], None]] = []
        # JupyterLab may handle messages from the page in several threads of the kernel.
        self._turn, self._drawing = threading.Lock(), None
        self.message, self.links = widgets.HTML(), widgets.HTML()
        super().__init__([widgets.HTML(STYLE), *controls, self.message, self.links, *body])
        self.add_class("derm-hash-explorer")
        self._take_the_place_of_earlier_ones()

    def when(self, widget: widgets.Widget, action: Callable) -> None:
        """Call ``action(value)`` and draw when the widget's value changes."""

        def changed(change):
            self.act(action, change.new)

        widget.observe(changed, "value")
        self._links.append(partial(widget.unobserve, changed, "value"))

    def on_click(self, button: widgets.Button, action: Callable, *values, draw=True) -> None:
        """Call ``action(*values)`` and (unless told not to) draw when the button is pressed."""

        def clicked(_):
            self.act(action, *values, draw=draw)

        button.on_click(clicked)
        self._links.append(partial(button.on_click, clicked, remove=True))

    def act(self, action: Callable, *values, draw: bool = True) -> None:
        """Do it and draw; if it cannot be done, say why in a sentence."""
        if self._drawing == threading.get_ident():  # a control that draw() has just set
            return
        with self._alone():
            sentence = ""
            try:
                action(*values)
                if draw:
                    self.links.value = ""  # they hold the view before
                    self.draw()
            except (InputError, RuntimeError, MemoryError, OSError) as error:
                sentence = html.escape(" ".join(str(error).split()) or type(error).__name__)
                self.sync()
            self.message.value = sentence and f'<div role="alert"><b>⚠ {sentence}</b></div>'

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads waiting, and this one from listening to what it sets itself."""
        with self._turn:
            self._drawing = threading.get_ident()
            try:
                yield
            finally:
                self._drawing = None

    def show(self) -> None:
        """Draw without listening to the controls that are set thereby."""
        with self._alone():
            self.draw()

    def draw(self) -> None:
        """Show the state."""
        raise NotImplementedError

    def sync(self) -> None:
        """Set the controls to what the state says."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The present view as a figure, for pages without a kernel."""
        raise NotImplementedError

    def picture_png(self) -> bytes:
        """The present view as a PNG file."""
        return plots.figure_png(self.figure())

    def _repr_mimebundle_(self, **kwargs):
        data = super()._repr_mimebundle_(**kwargs)
        data["image/png"] = self.picture_png()
        data["text/plain"] = f"{type(self).__name__} (run the cell to use it)"
        return data

    def close(self) -> None:
        """Unlink the controls and close every part, so that nothing is kept alive."""
        for unlink in self.__dict__.pop("_links", ()):  # none where it could not be made
            unlink()
        for part in [*parts_of(self)][1:]:
            part.close()
        super().close()

    def _take_the_place_of_earlier_ones(self) -> None:
        """Close the explorers that an earlier run of the same cell has made."""
        shell = get_ipython()
        parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
        cell = parent.get("metadata", {}).get("cellId")
        if cell is None:
            return
        run, same = parent["header"]["msg_id"], []
        for earlier, explorer in OPEN.get(cell, []):
            if earlier == run:
                same.append((earlier, explorer))
            else:
                explorer.close()
        OPEN[cell] = [*same, (run, self)]


def parts_of(widget: widgets.Widget):
    """A widget and everything that it is made of."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts_of(child)
    for name in ("layout", "style"):
        if isinstance(part := getattr(widget, name, None), widgets.Widget):
            yield part


def button(text: str, tooltip: str) -> widgets.Button:
    """A button as wide as its text."""
    return widgets.Button(description=text, tooltip=tooltip, layout={"width": "auto"})


def chooser(description: str, options) -> widgets.Dropdown:
    """A list to choose from, as wide as its longest entry."""
    return widgets.Dropdown(
        options=options, description=description, style=WIDE, layout={"width": "auto"}
    )


def classes_of(labels, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The classes that occur, after the choice of all of them, for `chooser`."""
    return [("all classes", ""), *((name, name) for name in classes if (labels == name).any())]


class Pressable(widgets.VBox):
    """A picture with words, and a button below; pressing any place of it presses the button."""

    def __init__(self):
        self.face, self.choose = widgets.HTML(), button("", "")
        super().__init__([self.face, self.choose])
        self.add_class("derm-hash-cell")

    def hide(self, hidden: bool) -> None:
        """Take it off the page, or put it back."""
        self.layout.display = "none" if hidden else None


class Thumbnails(widgets.HBox):
    """A page of the queries as small pictures, each of which can be chosen."""

    def __init__(self):
        self.cells = [Pressable() for _ in range(PAGE)]
        for cell in self.cells:
            cell.layout.align_items, cell.layout.width = "center", "60px"
            cell.choose.layout.margin = "0"
        self.earlier = button("«", "pictures of the queries before these")
        self.later = button("»", "pictures of the queries after these")
        super().__init__([self.earlier, *self.cells, self.later], layout=ROW)

    def show(self, state: QueryState, picture: Callable[[int], bytes]) -> None:
        """Show the state's page of queries and mark the one that is asked about."""
        page, table = state.on_page(), state.queries.table
        for cell, position in zip(self.cells, [*page, *[None] * PAGE], strict=False):
            cell.hide(position is None)
            if position is None:
                continue
            asked = state.query.origin == "query" and state.query.position == position
            words = f"query {position}: {table['label'].iat[position]}"
            words += f", {state.id_of(table['image'].iat[position])}"
            frame = f"solid {ACCENT if asked else 'transparent'}"
            cell.face.value = picture_html(picture(position), words, 52, frame)
            cell.choose.description = f"▸{position}" if asked else str(position)
            cell.choose.tooltip = words
        for turner in (self.earlier, self.later):
            turner.disabled = len(state.among) <= PAGE


class QueryExplorer(Explorer):
    """The controls that choose and turn the query."""

    def __init__(self, state: QueryState, controls, body):
        self.classes = chooser("queries", classes_of(state.queries.table["label"], state.classes))
        self.previous = button("◀ previous", "the query before this one")
        self.next = button("next ▶", "the next query")
        self.any = button("random", "any query of the class")
        self.back = button("↩ back", "back to the query before")
        self.name = widgets.Combobox(
            placeholder="of a query or database image",
            options=sorted({state.id_of(path) for path in state.queries.table["image"]}),
            continuous_update=False,
            description="image id",
            style=WIDE,
            layout={"width": "240px"},
        )
        self.thumbnails = Thumbnails()
        self.small = lru_cache(256)(lambda i: jpeg(state.queries.picture(i), 64))
        self.angle = widgets.FloatSlider(
            0, min=0, max=360, step=5, description="turned by (°)", readout_format=".0f", style=WIDE
        )
        self.mirrored = widgets.Checkbox(False, description="mirrored", indent=False)
        self.mirrored.layout.width = "auto"
        self.export = button("export", "links that save this view as a picture, and its numbers")
        self.choosing = [self.classes, self.previous, self.next, self.any, self.back, self.name]
        super().__init__(state, [*controls[:1], self.thumbnails, *controls[1:]], body)

    def connect(self) -> None:
        """Let the controls act on the state; the last thing that a subclass's __init__ does."""
        state = self.state
        self.when(self.classes, lambda name: state.show_class(name or None))
        self.on_click(self.previous, state.step, -1)
        self.on_click(self.next, state.step, 1)
        self.on_click(self.any, state.random)
        self.on_click(self.back, state.back)
        self.when(self.name, lambda name: name.strip() and state.choose_id(name))
        self.on_click(self.thumbnails.earlier, self._leaf, -1, draw=False)
        self.on_click(self.thumbnails.later, self._leaf, 1, draw=False)
        for place, cell in enumerate(self.thumbnails.cells):
            self.on_click(cell.choose, self._use_thumbnail, place)
        self.when(self.angle, state.turn)
        self.when(self.mirrored, state.mirror)
        self.on_click(self.export, self.offer, draw=False)
        self.show()

    def _leaf(self, by: int) -> None:
        self.state.leaf(by)
        self.thumbnails.show(self.state, self.small)

    def _use_thumbnail(self, place: int) -> None:
        self.state.choose(self.state.on_page()[place])

    def offer(self) -> None:
        """Show the links that save the present view."""
        name = f"{image_id(self.state.query.name)}-{self.state.angle:g}"
        self.links.value = link(self.picture_png(), "image/png", f"{name}.png", "picture (PNG)")

    def sync(self) -> None:
        # 360 and 0 are one angle, but the slider stays at the end where the hand left it.
        if self.angle.value % 360 != self.state.angle:
            self.angle.value = self.state.angle
        self.mirrored.value = self.state.mirrored
        self.back.disabled = not self.state.can_go_back
        query = self.state.query
        self.name.value = "" if query.origin == "upload" else self.state.id_of(query.name)
        self.thumbnails.show(self.state, self.small)


class RetrievalExplorer(QueryExplorer):
    """Ask the index: choose or upload a query, turn it, and see its hits and its bits.

    ``RetrievalExplorer(run, index, dataset)`` as the last line of a cell.

    Parameters
    ----------
    model : DermHash or Run
    index : HashIndex
        Of the database images, in their order: ``build_index(model, dataset.split("database"))``.
    dataset : LesionDataset
        With the splits ``query`` and ``database``; or the queries alone, if ``database`` is given.
    database : LesionDataset, optional
        The images that the index was built from, if they are not a split of ``dataset``.
    other : (DermHash or Run, HashIndex), optional
        A second model and its index of the same database, to be asked the same beside the first.
    names : (str, str) of the two models

    Attributes
    ----------
    state : RetrievalState
    """

    def __init__(self, model, index, dataset, database=None, other=None, names=("first", "second")):
        state = RetrievalState(model, index, dataset, database)
        self.states = {names[0]: state}
        if other is not None:
            self.states[names[1]] = RetrievalState(*other, state.queries, state.database)
        most = min(8, *(each.index.bits for each in self.states.values()))
        self.k = widgets.IntSlider(
            state.k, min=1, max=MOST_SHOWN, description="hits (k)", style=WIDE
        )
        state.set_radius(min(state.radius, most))
        radii = [(str(r), r) for r in range(most + 1)] + [("no limit", NO_LIMIT)]
        self.radius = widgets.SelectionSlider(
            options=radii, value=state.radius, description="radius (bits)", style=WIDE
        )
        self.rank = chooser("ranking", METRICS)
        self.source = chooser("search in", classes_of(state.database.table["label"], state.classes))
        self.file = widgets.FileUpload(
            description="upload an image",
            tooltip=f"a picture of a lesion, at most {MOST_BYTES // 10**6} MB; it is not kept",
            layout={"width": "auto"},
        )
        self.thumbnail = lru_cache(512)(lambda i: jpeg(state.database.picture(i), 160))
        self.picture, self.caption = widgets.HTML(), widgets.HTML()
        self.panels = [HitPanel(name if other else "") for name in self.states]
        left = widgets.VBox([self.picture, self.caption], layout={"flex": "0 0 auto"})
        body = widgets.HBox([left, *self.panels], layout=SIDE_BY_SIDE)
        rows = [widgets.HBox(layout=ROW) for _ in range(3)]
        super().__init__(state, rows, [body])
        rows[0].children = [*self.choosing, self.file]
        rows[1].children = [self.angle, self.mirrored, self.k, self.radius]
        rows[2].children = [self.rank, self.source, self.export]
        self.when(self.k, state.set_k)
        self.when(self.radius, lambda r: state.set_radius(None if r == NO_LIMIT else r))
        self.when(self.rank, state.set_rank)
        self.when(self.source, lambda name: state.search_in(name or None))
        self.when(self.file, self._upload)
        for number, panel in enumerate(self.panels):
            for place, cell in enumerate(panel.cells):
                self.on_click(cell.choose, self._use_hit, number, place)
        self.connect()

    def _upload(self, files) -> None:
        if files:
            self.file.value = ()  # so that the same file can be chosen again
            self.state.upload(bytes(files[0]["content"]), files[0]["name"])

    def _use_hit(self, number: int, place: int) -> None:
        # The hit that is on the page, even where the state has moved on.
        view = [*self.views.values()][number]
        self.state.ask_database(view.hits[place].position)

    def draw(self) -> None:
        for state in self.states.values():
            if state is not self.state:
                state.follow(self.state)
        self.views = {name: state.view() for name, state in self.states.items()}
        self.view = view = next(iter(self.views.values()))
        self.sync()
        self.caption.value = about(view.query, self.state.id_of(view.query.name))
        for panel, state, shown in zip(
            self.panels, self.states.values(), self.views.values(), strict=True
        ):
            panel.show(state, shown, self.thumbnail)
        # The last message: when the page has it, it has everything.
        turned = f"turned by {self.angle.value:g} degrees" + ", mirrored" * self.mirrored.value
        words = f"query {self.state.id_of(view.query.name)}, {turned}"
        self.picture.value = picture_html(jpeg(view.picture), words)

    def offer(self) -> None:
        """Show the links that save the present view, and its hits as a table."""
        super().offer()
        content = hits_csv(self.views, self.state.angle, self.state.mirrored).encode()
        name = f"{image_id(self.state.query.name)}-{self.state.angle:g}.csv"
        self.links.value = f"save: {self.links.value} · " + link(
            content, "text/csv", name, "hits (CSV)"
        )

    def picture_png(self) -> bytes:
        """The present view as a PNG file; two models stand one below the other."""
        return stacked([plots.figure_png(self._figure(name)) for name in self.states])

    def figure(self) -> Figure:
        """The present view of the (first) model as a figure."""
        return self._figure(next(iter(self.states)))

    def _figure(self, name: str) -> Figure:
        view, database = self.views[name], self.state.database
        return plots.plot_hits(
            view.picture,
            [database.picture(hit.position) for hit in view.hits],
            [hit.label for hit in view.hits],
            view.query.label,
            [hit.hamming for hit in view.hits],
            [hit.distance for hit in view.hits],
            view.code,
            self.states[name].index.codes[[hit.position for hit in view.hits]],
            title=name if len(self.states) > 1 else None,
        )


class HitPanel(widgets.VBox):
    """What one model says of the query: its code, the numbers, and the hits."""

    def __init__(self, name: str):
        self.strip, self.summary = widgets.HTML(), widgets.HTML()
        self.cells = [HitCell() for _ in range(MOST_SHOWN)]
        grid = widgets.GridBox(self.cells, layout={"width": "100%"})
        grid.layout.grid_template_columns = "repeat(auto-fill, minmax(128px, 1fr))"
        title = [widgets.HTML(f"<b>{html.escape(name)}</b>")] if name else []
        super().__init__([*title, self.strip, self.summary, grid])
        self.layout.flex, self.layout.min_width = "1 1 290px", "290px"

    def show(self, state: RetrievalState, view: RetrievalView, picture) -> None:
        """Show a view; picture: position in the database -> JPEG."""
        self.strip.value = code_strip(view.code, view.reference)
        self.summary.value = in_words(view, state)
        for place, cell in enumerate(self.cells):
            hit = view.hits[place] if place < len(view.hits) else None
            cell.hide(hit is None)
            if hit is not None:
                cell.show(place, hit, state.id_of(hit.name), picture(hit.position))


class HitCell(Pressable):
    """A hit: picture, what it is, and a button that makes it the query."""

    def __init__(self):
        super().__init__()
        self.choose.description = "use as query"
        self.layout.margin = "0 0 8px 0"

    def show(self, place: int, hit: Hit, name: str, picture: bytes) -> None:
        """Show a hit; place: from 0; name: its id."""
        frame = {True: f"solid {RIGHT}", False: f"dashed {WRONG}", None: "solid grey"}
        words = f"hit {place + 1}: {hit.label}, {name}"
        texts = [
            f"<b>{place + 1}. {html.escape(hit.label)} {hit.mark}</b>",
            html.escape(name),
            f"{counted(hit.hamming, 'bit')}, {format_distance(hit.distance)}",
        ]
        texts += ["<b>⚠ same lesion</b>"] * hit.same_lesion
        self.face.value = picture_html(picture, words, 116, frame[hit.right]) + lines(*texts)
        self.choose.tooltip = f"make hit {place + 1} the query"


class HeatmapExplorer(QueryExplorer):
    """See where the network looks: gates and Grad-CAM of a query and of its hit.

    Parameters as :class:`RetrievalExplorer`.

    Attributes
    ----------
    state : HeatmapState
    """

    def __init__(self, model, index, dataset, database=None):
        state = HeatmapState(model, index, dataset, database)
        self.subject = chooser("map", [*state.subjects])
        self.hit = chooser("hit", [("1", 0)])
        self.opacity = widgets.FloatSlider(
            state.opacity, min=0, max=1, step=0.05, description="opacity", style=WIDE
        )
        self.pictures = [widgets.HTML() for _ in range(4)]
        self.summary = widgets.HTML()
        self.chart = widgets.HTML(layout={"width": "360px", "max_width": "100%"})
        self.round = button("turn it once around", "compare the map at every 30 degrees")
        rows = [widgets.HBox(layout=ROW) for _ in range(3)]
        below = widgets.HBox([self.chart, self.round], layout=ROW)
        super().__init__(state, rows[:2], [rows[2], self.summary, below])
        rows[0].children = self.choosing
        rows[1].children = [self.subject, self.hit, self.opacity, self.angle, self.mirrored]
        rows[1].children += (self.export,)
        rows[2].children = self.pictures
        self.when(self.subject, state.explain)
        self.when(self.hit, state.set_place)
        self.when(self.opacity, state.set_opacity)
        self.on_click(self.round, self._turn_round, draw=False)
        self.connect()

    def _turn_round(self) -> None:
        for followed in self.state.follow_round(self.view.hit):
            self._draw_chart(followed)  # point by point: the page shows how far it is
        self._draw_chart(self.state.view().followed)

    def _draw_chart(self, followed: dict[float, float]) -> None:
        self.chart.value = svg_follows(followed, self.state.angle, self.state.mirrored)

    def draw(self) -> None:
        state = self.state
        self.view = view = state.view()
        self.sync()
        self._list_hits(view.hits, view.place)
        outlined = partial(with_heat, opacity=state.opacity)
        shown = [
            enlarged(view.picture),
            outlined(view.picture, view.heat, view.mask),
            enlarged(view.hit_picture),
            outlined(view.hit_picture, view.hit_heat, view.hit_mask),
        ]
        hit = f"hit {view.place + 1}: {view.hit.label} {view.hit.mark}"
        texts = [
            about(state.query, state.id_of(state.query.name)),
            lines("query", html.escape(state.subject)),
            lines(f"<b>{html.escape(hit)}</b>", html.escape(state.id_of(view.hit.name))),
            lines("hit", html.escape(state.subject)),
        ]
        alts = ["query", f"query with {state.subject}", hit, f"{hit} with {state.subject}"]
        for i in range(4):
            self.pictures[i].value = picture_html(jpeg(shown[i]), alts[i], 190) + texts[i]
        self.summary.value = heat_in_words(view)
        self._draw_chart(view.followed)

    def _list_hits(self, hits: list[Hit], place: int) -> None:
        options = [
            (f"{i + 1}. {hit.label} {hit.mark} ({counted(hit.hamming, 'bit')})", i)
            for i, hit in enumerate(hits)
        ]
        if list(self.hit.options) != options:
            self.hit.options = options
        self.hit.value = place

    def figure(self) -> Figure:
        view, state = self.view, self.state
        query, hit = f"query: {state.query.label}", f"hit {view.place + 1}: {view.hit.label}"
        pictures = [
            view.picture,
            with_heat(view.picture, view.heat, view.mask, state.opacity),
            view.hit_picture,
            with_heat(view.hit_picture, view.hit_heat, view.hit_mask, state.opacity),
        ]
        titles = [
            query,
            f"query\n{state.subject}",
            f"{hit} {view.hit.mark}",
            f"hit\n{state.subject}",
        ]
        return plots.image_grid(pictures, titles, columns=4)


class LossExplorer(Explorer):
    """One bit of an image's four turned copies disagrees: what does each penalty do about it?

    Attributes
    ----------
    state : LossState
    """

    def __init__(self):
        state = LossState()
        slider = partial(widgets.FloatSlider, min=0, max=1, step=0.02, style=WIDE)
        self.odd = slider(state.odd, description="the bit that disagrees")
        self.others = slider(state.others, description="the three others")
        self.gamma = slider(state.gamma, min=0.05, max=2, step=0.05, description="γ")
        self.kinds = [
            widgets.Checkbox(True, description=plots.PENALTY_NAMES[kind], indent=False)
            for kind in PENALTIES
        ]
        for box in self.kinds:
            box.layout.width = "auto"
        self.chart = widgets.HTML()
        self.table = widgets.HTML()
        rows = [
            widgets.HBox([self.odd, self.others, self.gamma], layout=ROW),
            widgets.HBox(self.kinds, layout=ROW),
        ]
        super().__init__(state, rows, [self.chart, self.table])
        self.when(self.odd, state.set_odd)
        self.when(self.others, state.set_others)
        self.when(self.gamma, state.set_gamma)
        for box in self.kinds:
            self.when(box, self._choose)
        self.show()

    def _choose(self, _) -> None:
        chosen = zip(PENALTIES, self.kinds, strict=True)
        self.state.set_kinds([kind for kind, box in chosen if box.value])

    def sync(self) -> None:
        self.odd.value, self.others.value = self.state.odd, self.state.others
        self.gamma.value = self.state.gamma
        for kind, box in zip(PENALTIES, self.kinds, strict=True):
            box.value = kind in self.state.kinds

    def draw(self) -> None:
        self.view = view = self.state.view()
        self.chart.value = svg_charts(view, self.state.gamma)
        names = "".join(f"<th>{plots.PENALTY_NAMES[kind]}</th>" for kind in view.loss)
        losses = "".join(f"<td>{value:.3f}</td>" for value in view.loss.values())
        pulls = "".join(f"<td>{value:+.3f}</td>" for value in view.pull.values())
        self.table.value = (
            '<table style="border-spacing:16px 2px;text-align:right"><tr><td></td>'
            f"{names}</tr><tr><th>loss of the orbit</th>{losses}</tr>"
            f"<tr><th>gradient at the bit that disagrees</th>{pulls}</tr></table>"
        )

    def figure(self) -> Figure:
        return plots.plot_penalties(self.state.gamma, self.state.kinds)
