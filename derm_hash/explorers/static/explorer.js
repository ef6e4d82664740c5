// The retrieval explorer: what is asked, the controls, and one repaint a frame.

import {exportPicture, table} from "./export.js";
import {MOST, Panel} from "./panel.js";
import {DISC, STEP, TURNS, button, chooser, field, group, h, mount, put, save} from "./parts.js";
import {Index, METRICS} from "./search.js";
import {floats} from "./source.js";
import {Stage} from "./stage.js";

const TRAIL = 8;  // queries that the way back shows
const SHARED = ["k", "radius", "rank", "angle", "mirrored"];  // traits that the kernel knows as well

export class Explorer {
  constructor(root, source) {
    const {about, model} = source;
    Object.assign(this, {root, source, about, trail: [], query: null, dirty: false});
    this.colours = Object.fromEntries(about.classes.map(c => [c.name, c.color]));
    this.view = Object.fromEntries(SHARED.map(name => [name, model.get(name)]));
    const codes = model.get("codes");
    this.indexes = about.models.map(({bits}, m) => new Index(floats(codes[m]), bits));
    this.stage = new Stage(about.models, (angle, mirrored) => this.turn(angle, mirrored));
    this.panels = about.models.map((each, m) => new Panel(this, each, m));
    this.build();
    Object.assign(source, {
      onquery: query => this.arrive(query), oncodes: () => this.known(),
      onfamiliar: familiar => this.familiar(familiar), onerror: text => this.say(text),
    });
    // Each trait on its own: while `tell` sets them one by one, the others are still the old ones.
    for (const name of SHARED) model.on(`change:${name}`, () => {
      if (this.view[name] === model.get(name)) return;
      this.view[name] = model.get(name);
      this.changed();
    });
    this.close = () => source.close();
    source.start();
  }

  // --- the page ---------------------------------------------------------------------------

  build() {
    const {about, view, source} = this, bits = Math.max(...about.models.map(m => m.bits));
    const classes = about.classes.map(c => c.name);
    this.k = h("input", {type: "number", min: 1, max: MOST, value: view.k,
      onchange: () => this.set("k", Math.min(Math.max(Math.round(+this.k.value) || 1, 1), MOST))});
    this.bars = Array.from({length: bits + 1}, () => h("i", {class: "dh-bar"}));
    this.radius = h("input", {type: "range", min: 0, max: bits, "aria-label": "Hamming radius",
      oninput: () => this.set("radius", +this.radius.value === bits ? null : +this.radius.value)});
    this.reach = h("span");
    this.rank = chooser(METRICS.map(m => [m, m]), value => this.set("rank", value));
    const only = chooser([["all classes", ""], ...classes.map(c => [c, c])], value => {
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
      onchange: () => this.id.value.trim() && this.ask({origin: "id", id: this.id.value.trim()}),
      // JupyterLab keeps Enter from becoming a change; leaving the field makes it one.
      onkeydown: ({key}) => { if (key === "Enter") { this.id.blur(); this.id.focus(); } }});
    const file = h("input", {type: "file", accept: "image/*", hidden: true, "aria-label": "upload",
      onchange: () => { source.upload(file.files[0]); file.value = ""; }});
    const controls = h("div", {class: "dh-controls"},
      field("hits", this.k),
      h("div", {class: "dh-field"}, this.reach,
        h("span", {class: "dh-radius"}, h("span", {class: "dh-bars"}, this.bars), this.radius)),
      field("ranking", this.rank), field("search in", only),
      names.length > 1 && group("models", names),
      group("query", this.id, ids, button("random", "any query of the class", () => {
        const among = [...this.thumbs.children].filter(thumb => !thumb.hidden);
        among[Math.floor(Math.random() * among.length)]?.click();
      }),
        about.most_bytes && button("upload", "a picture of a lesion; it is not kept",
          () => file.click()), file),
      group("save", button("PNG", "save this view as a picture", () => exportPicture(this)),
        button("CSV", "save the hits as a table", () => save(table(this), "text/csv",
          `${this.query.id}-${view.angle}.csv`))));
    this.chips = classes.map(name => button([this.dot(name), name],
      `queries of ${name}`, () => this.filter(name), {class: "dh-chip", "aria-pressed": "false"}));
    this.thumbs = h("div", {class: "dh-thumbs", role: "group", "aria-label": "queries"});
    const watch = new IntersectionObserver(entries => {
      for (const {isIntersecting, target} of entries) if (isIntersecting) {
        watch.unobserve(target);
        source.thumb("query", +target.dataset.position, target);
      }
    }, {root: this.thumbs, rootMargin: "200px"});
    about.query.forEach(({id, label}, i) => {
      const image = h("img", {alt: "", "data-position": i});
      watch.observe(image);
      this.thumbs.append(button([image], `query ${id}: ${label}`,
        () => this.ask({origin: "query", position: i}), {class: "dh-thumb"}));
    });
    this.about_query = h("div", {class: "dh-query"});
    this.near = h("p", {class: "dh-near"});
    this.way = h("div", {class: "dh-trail", role: "group", "aria-label": "queries before this one"});
    this.alert = h("div", {class: "dh-alert", role: "alert"});
    this.live = h("div", {class: "dh-live", "aria-live": "polite"});
    const rings = about.models.map(m => m.name).join(" inside, ");
    mount(this.root);
    this.root.explorer = this;  // for tests and the console
    for (const kind of ["dragover", "dragleave", "drop"])
      this.root.addEventListener(kind, event => this.drop(event));
    this.root.append(h("div", {class: "dh-all"},
      h("div", {class: "dh-queries"}, h("div", {class: "dh-chips"}, this.chips), this.thumbs),
      controls,
      h("div", {class: "dh-main"},
        h("div", {class: "dh-left"}, this.stage.el, this.about_query, this.near, this.way,
          h("p", {class: "dh-hint"}, "Drag the lesion to turn it; arrow keys, R and M do it too. The " +
            `ring${rings ? `s (${rings} outside)` : ""}: bars are flipped bits at each angle, the ` +
            "inner line changed hits. "),
          h("p", {class: "dh-hint"}, "For teaching and research. Not a diagnosis.")),
        h("div", {class: "dh-panels"}, this.panels.map(p => p.el)))),
      this.alert, this.live);
  }

  dot(label) {
    return h("i", {class: "dh-dot", style: `background: ${this.colours[label] ?? "#888888"}`});
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

  // Let the kernel know, when the hand rests.
  tell() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const {model} = this.source;
      for (const name of SHARED) model.set(name, this.view[name]);
      model.save_changes();
      this.live.textContent = this.summary ?? "";
    }, 400);
  }

  ask(question, back = false) {
    this.back = back;
    this.alert.textContent = "";
    this.source.ask(question);
  }

  filter(name) {
    this.shown = this.shown === name ? null : name;
    this.chips.forEach((chip, i) =>
      chip.setAttribute("aria-pressed", String(this.about.classes[i].name === this.shown)));
    this.about.query.forEach(({label}, i) => {
      this.thumbs.children[i].hidden = this.shown !== null && label !== this.shown;
    });
    this.thumbs.scrollLeft = 0;
  }

  toggle(m, press) {
    const {el} = this.panels[m];
    if (this.shownPanels().length === 1 && !el.hidden) return;
    el.hidden = !el.hidden;
    press.setAttribute("aria-pressed", String(!el.hidden));
    this.wish();
  }

  shownPanels() { return this.panels.filter(({el}) => !el.hidden); }

  // --- what comes in ----------------------------------------------------------------------

  arrive(query) {
    if (this.query) {
      Object.assign(this.view, {angle: 0, mirrored: false});
      if (!this.back) this.trail = [...this.trail, this.query].slice(-TRAIL);
      this.tell();
    }
    this.query = query;
    this.back = false;
    this.alert.textContent = "";
    this.id.value = query.origin === "upload" ? "" : query.id;
    const where = {query: "", database: ", from the database", upload: ", uploaded"}[query.origin];
    this.stage.picture(query, `query ${query.id}: ${query.label ?? "class not known"}`);
    this.about_query.replaceChildren(...(query.label ? [this.dot(query.label)] : []),
      h("b", {}, query.label ?? "class not known"), h("span", {class: "dh-id"}, query.id + where));
    this.familiar(query.familiar);
    this.chosen?.setAttribute("aria-current", "false");
    this.chosen = query.origin === "query" ? this.thumbs.children[query.position] : null;
    this.chosen?.setAttribute("aria-current", "true");
    const strip = this.thumbs, left = this.chosen?.offsetLeft - strip.offsetLeft - strip.scrollLeft;
    if (left < 0 || left > strip.clientWidth - 48) strip.scrollLeft += left - strip.clientWidth / 2;
    // A query of the trail that was uploaded is no longer with the kernel: its picture only reminds.
    this.way.replaceChildren(...this.trail.map((each, i) => button([h("img", {alt: "", src: each.seen})],
      `back to ${each.id}`, () => {
        this.trail = this.trail.slice(0, i);
        this.ask({origin: each.origin, position: each.position, id: each.id}, true);
      }, {class: "dh-thumb", disabled: each.origin === "upload"})));
    if (this.trail.length) this.way.prepend(h("span", {}, "back to"));
    this.changed();
  }

  familiar(familiar) {
    // A database image is as near to the database as can be.
    const known = familiar && this.query.origin !== "database", {distance, limit} = familiar ?? {};
    const strange = known && distance > limit, words = known && `distance ${distance.toFixed(2)} from the ` +
      `nearest database image, usual is up to ${limit.toFixed(2)}`;
    this.near.classList.toggle("dh-strange", Boolean(strange));
    this.near.textContent = !known ? "" : strange
      ? `⚠ Unlike everything in the database (${words}): its hits mean nothing.` : `Familiar: ${words}.`;
  }

  say(text) {
    this.alert.textContent = `⚠ ${text}`;
    this.back = false;
  }

  // --- what is shown ----------------------------------------------------------------------

  // Forget what has been found, and find it again.
  changed() {
    this.memo = this.about.models.map(() => []);
    this.known();
  }

  // Codes of more orientations are known.
  known() {
    this.survey();
    this.wish();
  }

  // The encoded orientation that is nearest to the angle; until it is known, a quarter turn.
  orientation() {
    const {angle, mirrored} = this.view, side = mirrored ? TURNS : 0;
    const near = [STEP, 90].map(step => side + Math.round(angle / step) * step / STEP % TURNS);
    return near.find(o => this.query.known[o]) ?? 0;
  }

  // The unturned query that an orientation is compared with: between quarter turns, its disc.
  reference(o) { return (o % TURNS) * STEP % 90 ? DISC : 0; }

  // The answer of a model to one orientation, computed once.
  look(m, o) {
    if (this.memo[m][o]) return this.memo[m][o];
    const {query, view, about} = this, {bits} = about.models[m];
    const code = query.codes[m].subarray(o * bits, (o + 1) * bits);
    const skip = query.origin === "database" ? query.position : -1;
    const found = this.indexes[m].search(code, {...view, skip, among: this.among});
    const now = this.memo[m][o] = {...found, code, flips: 0, kept: found.ids.length};
    const first = o === this.reference(o) ? now : this.look(m, this.reference(o));
    for (let b = 0; b < bits; b++) now.flips += (code[b] > 0.5) !== (first.code[b] > 0.5);
    now.kept = found.ids.filter(id => first.ids.includes(id)).length;
    now.before = first.ids.length;
    return now;
  }

  // Ask for a repaint in the next frame.
  wish() {
    if (this.dirty || !this.query) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      this.paint();
    });
  }

  paint() {
    const {view} = this, o = this.orientation(), shown = this.shownPanels();
    this.stage.show(view.angle, view.mirrored, o);
    const parts = shown.map(panel => {
      const now = this.look(panel.number, o);
      panel.show(now, this.look(panel.number, this.reference(o)), this.query, view.k);
      panel.point(now.code, view.angle);
      if (panel.glide()) this.wish();
      return `${panel.model.name} ${now.flips} of ${now.code.length} bits flipped, ` +
        `${now.kept} of ${now.before} hits kept`;
    });
    this.summary = `${view.angle} degrees: ${parts.join("; ")}`;
    const {counts, within} = this.look(shown[0].number, o), most = Math.max(...counts, 1);
    const limit = view.radius ?? shown[0].model.bits;
    this.bars.forEach((bar, d) => {
      bar.style.transform = `scaleY(${counts[d] ? 0.08 + 0.92 * Math.sqrt(counts[d] / most) : 0})`;
      bar.classList.toggle("dh-in", d <= limit);
      bar.title = `${counts[d] ?? 0} images at ${d} bits`;
    });
    put(this.reach, view.radius === null ? `no radius: all ${within} images`
      : `radius ${view.radius}: ${within} images`);
    if (+this.radius.value !== (view.radius ?? +this.radius.max))
      this.radius.value = view.radius ?? this.radius.max;
    if (document.activeElement !== this.k) this.k.value = view.k;
    this.rank.value = view.rank;
  }

  // Look at every angle while nothing else happens, then draw carpet and ring.
  survey() {
    cancelAnimationFrame(this.surveying);
    const {query} = this;
    if (!query) return;
    const side = this.view.mirrored ? 1 : 0, jobs = [];
    this.panels.forEach((panel, m) => {
      panel.weave(query.codes[m], this.look(m, 0).code, side, query.known);
      for (let t = 0; t < TURNS; t++) if (query.known[side * TURNS + t]) jobs.push([m, side * TURNS + t]);
    });
    const work = () => {
      const until = performance.now() + 4;
      while (jobs.length && performance.now() < until) this.look(...jobs.pop());
      if (jobs.length) this.surveying = requestAnimationFrame(work);
      else this.stage.rings(this.memo.map(all => all.slice(side * TURNS, (side + 1) * TURNS)));
    };
    this.surveying = requestAnimationFrame(work);
  }
}
