// The retrieval explorer: what is asked, the controls, and one repaint a frame.

import {exportPicture, exportTable} from "./export.js";
import {MOST, Panel} from "./panel.js";
import {STEP, TURNS, button, chooser, field, group, h, mount, put, report} from "./parts.js";
import {Index, METRICS} from "./search.js";
import {connect, floats} from "./source.js";
import {Stage, nearest} from "./stage.js";

const TRAIL = 8;  // queries that the way back shows
const SHARED = ["k", "radius", "rank", "angle", "mirrored"];  // traits that the kernel knows as well

export class Explorer {
  constructor(root, model) {
    const source = connect(model), {about} = source;
    Object.assign(this, {root, model, source, about, trail: [], query: null});
    this.colours = Object.fromEntries(about.classes.map(c => [c.name, c.color]));
    this.view = Object.fromEntries(SHARED.map(name => [name, model.get(name)]));
    const codes = model.get("codes");
    this.indexes = about.models.map(({bits}, m) => new Index(floats(codes[m]), bits));
    this.stage = new Stage(about.models, this.view, (angle, mirrored) => this.turn(angle, mirrored));
    this.panels = about.models.map((each, m) => new Panel(this, each, m));
    this.build();
    // Each trait on its own: while `tell` sets them one by one, the others are still the old ones.
    for (const name of SHARED) model.on(`change:${name}`, () => {
      if (this.view[name] === model.get(name)) return;
      this.view[name] = model.get(name);
      this.changed();
    });
    source.start({
      onquery: query => this.arrive(query), oncodes: () => this.known(),
      onfamiliar: familiar => this.familiar(familiar), onerror: text => this.say(text),
    });
  }

  // --- the page ---------------------------------------------------------------------------

  build() {
    const {about, root} = this, rings = about.models.map(m => m.name).join(" inside, ");
    this.about_query = h("div.dh-query");
    this.near = h("p.dh-near");
    this.way = h("div.dh-trail", {role: "group", "aria-label": "queries before this one"});
    this.alert = h("div.dh-alert", {role: "alert"});
    this.live = h("div.dh-live", {"aria-live": "polite"});
    mount(root,
      h("div.dh-all", this.strip(), this.controls(),
        h("div.dh-main",
          h("div.dh-left", this.stage.el, this.about_query, this.near, this.way,
            h("p.dh-hint", "Drag the lesion to turn it; arrow keys, R and M do it too. The " +
              `ring${rings && `s (${rings} outside)`}: bars are flipped bits at each angle, the inner line ` +
              "changed hits."),
            h("p.dh-hint", "For teaching and research. Not a diagnosis.")),
          h("div.dh-panels", this.panels.map(p => p.el)))),
      this.alert, this.live);
    root.explorer = this;  // for tests and the console
    for (const kind of ["dragover", "dragleave", "drop"])
      root.addEventListener(kind, event => this.drop(event));
  }

  // The queries to choose from.
  strip() {
    const {classes, query} = this.about;
    this.chips = classes.map(({name}) => button([this.dot(name), name],
      `queries of ${name}`, () => this.filter(name), {class: "dh-chip", "aria-pressed": "false"}));
    this.thumbs = h("div.dh-thumbs", {role: "group", "aria-label": "queries: the arrow keys lead from one to the next",
      onkeydown: event => this.step(event)}, query.map(({id, label}, position) =>
      button([h("img", {alt: "", "data-position": position})], `query ${id}: ${label}`,
        () => this.ask({origin: "query", position}), {class: "dh-thumb", tabindex: -1})));
    const watch = new IntersectionObserver(entries => {
      for (const {isIntersecting, target} of entries) if (isIntersecting) {
        watch.unobserve(target);
        this.source.thumb("query", +target.dataset.position, target);
      }
    }, {root: this.thumbs, rootMargin: "200px"});
    for (const image of this.thumbs.querySelectorAll("img")) watch.observe(image);
    return h("div.dh-queries", h("div.dh-chips", this.chips), this.thumbs);
  }

  controls() {
    const {about, view, source} = this, bits = Math.max(...about.models.map(m => m.bits));
    // JupyterLab keeps Enter from becoming a change; leaving the field makes it one.
    const onkeydown = ({key, target}) => { if (key === "Enter") { target.blur(); target.focus(); } };
    this.k = h("input", {type: "number", min: 1, max: MOST, value: view.k, onkeydown, onchange: () => {
      this.set("k", Math.min(Math.max(Math.round(this.k.value) || 1, 1), MOST));
      this.k.value = view.k;
    }});
    this.bars = Array.from({length: bits + 1}, () => h("i.dh-bar"));
    this.radius = h("input", {type: "range", min: 0, max: bits, "aria-label": "Hamming radius",
      oninput: () => this.set("radius", +this.radius.value === bits ? null : +this.radius.value)});
    this.reach = h("span");
    this.rank = chooser(METRICS.map(m => [m]), value => this.set("rank", value));
    this.only = chooser([["", "all classes"], ...about.classes.map(c => [c.name])], value => {
      this.among = value ? Uint8Array.from(about.database, ({label}) => label === value) : null;
      this.changed();
    });
    const names = about.models.map(({name}, m) =>
      button(name, `show or hide the model “${name}”`, event => this.toggle(m, event.currentTarget),
        {"aria-pressed": "true"}));
    const ids = h("datalist", {id: `dh-${Math.random().toString(36).slice(2)}`},
      about.query.slice(0, 2000).map(({id}) => h("option", {value: id})));
    this.id = h("input", {type: "text", list: ids.id, placeholder: "image id", size: 13,
      "aria-label": "image id of a query or database image",
      onkeydown, onchange: () => this.id.value.trim() && this.ask({origin: "id", id: this.id.value.trim()})});
    const file = h("input", {type: "file", accept: "image/*", hidden: true, "aria-label": "upload",
      onchange: () => { source.upload(file.files[0]); file.value = ""; }});
    const random = () => {
      const among = this.offered().filter(thumb => thumb !== this.chosen);
      among[Math.floor(Math.random() * among.length)]?.click();
    };
    return h("div.dh-controls",
      field("hits", this.k),
      h("div.dh-field", this.reach, h("span.dh-radius", h("span.dh-bars", this.bars), this.radius)),
      field("ranking", this.rank), field("search in", this.only),
      names.length > 1 && group("models", names),
      group("query", this.id, ids, button("random", "any query of the class", random),
        about.most_bytes && button("upload", "a picture of a lesion; it is not kept", () => file.click()), file),
      group("save", button("PNG", "save this view as a picture", () => exportPicture(this)),
        button("CSV", "save the hits as a table", () => exportTable(this))));
  }

  dot(label) {
    return h("i.dh-dot", {style: `background: ${this.colours[label] ?? "#888888"}`});
  }

  drop(event) {
    if (!this.about.most_bytes) return;
    event.preventDefault();
    this.root.classList.toggle("dh-over", event.type === "dragover");
    const [file] = event.type === "drop" ? event.dataTransfer.files : [];
    if (file) this.source.upload(file);
  }

  // --- what is asked ----------------------------------------------------------------------

  set(name, value) {
    this.view[name] = value;
    this.changed();
    this.tell();
  }

  turn(angle, mirrored = this.view.mirrored) {
    const side = this.view.mirrored !== mirrored;
    Object.assign(this.view, {angle, mirrored});
    if (side) this.survey();
    this.wish();
    this.tell();
  }

  // Let the kernel know, and a screen reader, when the hand rests.
  tell() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      report(this.model, this.view);
      this.live.textContent = `${this.view.angle} degrees${this.view.mirrored ? ", mirrored" : ""}: ` +
        this.shownPanels().map(p => p.words).join("; ");
    }, 400);
  }

  ask(question, back = false) {
    Object.assign(this, {back, asking: true});
    this.alert.textContent = "";
    this.source.ask(question);
  }

  filter(name) {
    this.shown = this.shown === name ? null : name;
    this.chips.forEach((chip, i) => { chip.ariaPressed = this.about.classes[i].name === this.shown; });
    this.about.query.forEach(({label}, i) => {
      this.thumbs.children[i].hidden = this.shown !== null && label !== this.shown;
    });
    this.thumbs.scrollLeft = 0;
    this.choose(this.chosen);
  }

  offered() { return [...this.thumbs.children].filter(thumb => !thumb.hidden); }

  // The arrow keys lead from one small picture to the next.
  step(event) {
    const among = this.offered(), by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    among[among.indexOf(event.target) + by]?.focus();
    event.preventDefault();
  }

  toggle(m, press) {
    const {el} = this.panels[m];
    if (this.shownPanels().length === 1 && !el.hidden) return;
    el.hidden = !el.hidden;
    press.ariaPressed = !el.hidden;
    this.wish();
  }

  // A database image as a hit: is it right (null where that is not known), and is it the query's own lesion?
  hit(id) {
    const row = this.about.database[id], {label, lesion} = this.query;
    return {...row, right: label === null ? null : label === row.label, own: Boolean(lesion) && lesion === row.lesion};
  }

  shownPanels() { return this.panels.filter(({el}) => !el.hidden); }

  // --- what comes in ----------------------------------------------------------------------

  arrive(query) {
    if (this.query) {
      Object.assign(this.view, {angle: 0, mirrored: false});
      // An upload is no longer with the kernel, so that no way leads back to it.
      if (!this.back && this.query.origin !== "upload") this.trail = [...this.trail, this.query].slice(-TRAIL);
      this.tell();
    }
    this.query = query;
    this.back = false;
    this.alert.textContent = "";
    this.id.value = query.origin === "upload" ? "" : query.id;
    const where = {query: "", database: ", from the database", upload: ", uploaded"}[query.origin];
    const label = query.label ?? "class not known";
    this.stage.picture(query, `query ${query.id}: ${label}`);
    this.about_query.replaceChildren(query.label ? this.dot(query.label) : "",
      h("b", label), h("span.dh-id", query.id + where));
    this.familiar(query.familiar);
    this.choose(query.origin === "query" ? this.thumbs.children[query.position] : null);
    this.way.replaceChildren(this.trail.length ? h("span", "back to") : "", ...this.trail.map((each, i) =>
      button([h("img", {alt: "", src: each.seen})], `back to ${each.id}`, () => {
        this.trail = this.trail.slice(0, i);
        this.ask({origin: each.origin, position: each.position, id: each.id}, true);
      }, {class: "dh-thumb"})));
    if (this.asking) this.stage.el.scrollIntoView({block: "nearest"});  // a hit on a phone is below it
    this.asking = false;
    this.changed();
  }

  // Mark a small picture of the strip, the one that Tab leads to, and bring it into sight.
  choose(thumb) {
    const among = this.offered(), stop = among.includes(thumb) ? thumb : among[0];
    for (const each of this.thumbs.children) each.tabIndex = each === stop ? 0 : -1;
    if (this.chosen) this.chosen.ariaCurrent = false;
    this.chosen = thumb;
    if (!thumb) return;
    thumb.ariaCurrent = true;
    const strip = this.thumbs, left = thumb.offsetLeft - strip.offsetLeft - strip.scrollLeft;
    if (left < 0 || left > strip.clientWidth - 48) strip.scrollLeft += left - strip.clientWidth / 2;
  }

  familiar(familiar) {
    // A database image is as near to the database as can be.
    const known = familiar && this.query.origin !== "database", {distance, limit} = familiar ?? {};
    const strange = known && distance > limit, words = known && `distance ${distance.toFixed(2)} from the ` +
      `nearest database image, usual is up to ${limit.toFixed(2)}`;
    this.near.classList.toggle("dh-strange", Boolean(strange));
    // A page without a kernel has database images in eight orientations.
    const few = this.query.complete ? ""
      : "Its codes are known at quarter turns; between them you see the nearest one.";
    this.near.textContent = !known ? few : strange
      ? `⚠ Unlike everything in the database (${words}): its hits mean nothing.` : `Familiar: ${words}.`;
  }

  say(text) {
    this.alert.textContent = `⚠ ${text}`;
    this.alert.scrollIntoView({block: "nearest"});
    Object.assign(this, {back: false, asking: false});
  }

  // --- what is shown ----------------------------------------------------------------------

  // Forget what has been found, and find it again.
  changed() {
    for (const panel of this.panels) panel.looks = [];
    this.known();
  }

  // Codes of more orientations are known.
  known() {
    this.survey();
    this.wish();
  }

  // The encoded orientation that is nearest to the angle; until it is known, a quarter turn.
  orientation() {
    return [STEP, 90].map(step => nearest(this.view, step)).find(o => this.query.known[o]) ?? 0;
  }

  // Ask for a repaint in the next frame.
  wish() {
    if (this.query) this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.paint();
    });
  }

  paint() {
    const {view} = this, o = this.orientation(), shown = this.shownPanels();
    this.stage.show(o);
    for (const panel of shown) {
      panel.show(o, this.query, view);
      if (panel.glide()) this.wish();
    }
    const {radius} = view, within = shown.map(({now}) => now.within);
    this.spread(shown.map(({now}) => now.counts), radius ?? this.bars.length);
    const reach = radius === null ? `no radius: all ${within[0]}` : `radius ${radius}: ${within.join(" and ")}`;
    put(this.reach, `${reach} images`);
    this.radius.value = radius ?? this.radius.max;
    if (document.activeElement !== this.k) this.k.value = view.k;
    this.rank.value = view.rank;
  }

  // Bars for the images at each Hamming distance, of all models together; those within the radius are dark.
  spread(counts, limit) {
    const sums = this.bars.map((_, d) => counts.reduce((sum, each) => sum + (each[d] ?? 0), 0));
    const most = Math.max(...sums, 1);
    this.bars.forEach((bar, d) => {
      bar.style.transform = `scaleY(${sums[d] && 0.08 + 0.92 * Math.sqrt(sums[d] / most)})`;
      bar.classList.toggle("dh-in", d <= limit);
      bar.title = `${counts.map(each => each[d] ?? 0).join(" and ")} images at ${d} bits`;
    });
  }

  // Look at every angle while nothing else happens, then draw carpet and ring.
  survey() {
    cancelAnimationFrame(this.surveying);
    if (!this.query) return;
    const {panels, query} = this, first = this.view.mirrored ? TURNS : 0;
    const side = Array.from({length: TURNS}, (_, t) => first + t), known = side.filter(o => query.known[o]);
    const jobs = panels.flatMap(panel => known.map(o => () => panel.look(o)));
    panels.forEach((panel, m) => panel.weave(known, query.codes[m]));
    const work = () => {
      const until = performance.now() + 4;
      while (jobs.length && performance.now() < until) jobs.pop()();
      if (jobs.length) this.surveying = requestAnimationFrame(work);
      else panels.forEach(({looks}, m) => this.stage.ring(m, side.map(o => looks[o])));
    };
    this.surveying = requestAnimationFrame(work);
  }
}
