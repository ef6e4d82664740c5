// What one model says of the query: numbers, bits, the carpet of bits by angles, the map, the hits.

import {ACCENT, HIGH, LOW, STEP, TURNS, h, mix, put, quiet} from "./parts.js";

export const MOST = 20;  // hits
const on = value => value > 0.5;
const short = d => (d && d < 0.001 ? d.toExponential(0) : String(+d.toFixed(3)));

export class Panel {
  // model: {name, bits, map}; explorer: the one whose panel it is.
  constructor(explorer, model, number) {
    Object.assign(this, {explorer, model, number, images: new Map(), ids: [], places: []});
    this.numbers = [0, 1, 2, 3].map(() => h("div", {class: "dh-number"}, h("b"), h("span")));
    this.bits = Array.from({length: model.bits}, (_, i) => h("span", {class: "dh-bit"},
      h("i"), h("b", {}, "0")));
    this.strip = h("div", {class: "dh-bits", role: "img"}, this.bits);
    this.carpet = h("canvas", {width: TURNS, height: model.bits});
    this.here = h("i", {class: "dh-here"});
    this.rug = h("div", {class: "dh-carpet", title: "bits by angles: press to turn there", role: "img",
      "aria-label": "soft bits, one row each, at every angle from 0 to 355 degrees",
      onclick: event => {
        const box = this.carpet.getBoundingClientRect();
        const column = Math.floor((event.clientX - box.left) / box.width * TURNS);
        explorer.turn(Math.min(Math.max(column, 0), TURNS - 1) * STEP);
      }}, this.carpet, this.here);
    this.path = h("path", {class: "dh-path"});
    this.map = h("svg", {viewBox: "0 0 100 100", role: "img",
      "aria-label": "map of the codes in two dimensions, by class, with the query's path"},
      this.dots(), this.path);
    this.spot = h("i", {class: "dh-spot"});
    this.cards = Array.from({length: MOST}, (_, place) => this.card(place));
    this.hits = h("ol", {class: "dh-hits"}, this.cards.map(({el}) => el));
    this.none = h("p", {class: "dh-none", hidden: true},
      "No image lies within this radius. Choose a larger one.");
    const axis = [0, 90, 180, 270].map(a => h("span", {style: `left: ${a / 3.6}%`}, `${a}°`));
    this.el = h("section", {class: "dh-panel", "aria-label": model.name || "the model's answer"},
      h("header", {}, model.name ? h("h2", {}, model.name) : null,
        h("div", {class: "dh-numbers"}, this.numbers)),
      this.strip,
      h("div", {class: "dh-two"},
        h("figure", {}, this.rug, h("div", {class: "dh-axis"}, axis)),
        h("figure", {class: "dh-map"}, this.map, this.spot)),
      this.none, this.hits);
    new ResizeObserver(() => { this.places = []; }).observe(this.el.firstChild);
  }

  // Where the database images lie on the map: a path of dots for each class.
  dots() {
    const {about, indexes} = this.explorer, {codes, bits, size} = indexes[this.number];
    const paths = Object.fromEntries(about.classes.map(({name}) => [name, ""]));
    for (let i = 0; i < size; i += Math.ceil(size / 2500))
      paths[about.database[i].label] += `M${this.place(codes, i * bits).join(" ")}h0`;
    return about.classes.map(({name, color}) =>
      h("path", {class: "dh-dots", style: `color: ${color}`, d: paths[name]}));
  }

  // The place of a code on the map, in its percent; what lies outside stands at the edge.
  place(codes, from) {
    const {axes, offset} = this.model.map;
    const shares = axes.map((axis, i) => axis.reduce((sum, a, b) => sum + a * codes[from + b], offset[i]));
    return shares.map(v => Math.min(Math.max(6 + 88 * v, 3), 97).toFixed(1));
  }

  // now: what explorer.look() says of the query as it is turned; first: of the query unturned.
  show(now, first, query, k) {
    if (this.now === now) return;
    this.now = now;
    const {code, ids} = now, reference = first.code;
    const right = ids.filter(i => this.explorer.about.database[i].label === query.label).length;
    const numbers = [[query.label === null ? "–" : (right / Math.max(ids.length, 1)).toFixed(2), `precision@${k}`],
      [now.within.toLocaleString("en"), "within radius"], [`${now.flips} of ${code.length}`, "bits flipped"],
      [`${now.kept} of ${first.ids.length}`, "hits kept"]];
    numbers.forEach((texts, i) => texts.forEach((text, n) => put(this.numbers[i].children[n], text)));
    this.numbers[2].classList.toggle("dh-moved", now.flips > 0);
    this.bits.forEach((bit, i) => {
      const flipped = on(code[i]) !== on(reference[i]), value = code[i].toFixed(3);
      bit.classList.toggle("dh-flipped", flipped);
      bit.firstChild.style.transform = `scaleY(${code[i]})`;
      put(bit.lastChild, on(code[i]) ? "1" : "0");
      bit.title = `bit ${i}: ${value}${flipped ? `, unturned ${reference[i].toFixed(3)}` : ""}`;
    });
    const digits = Array.from(code, v => (on(v) ? "1" : "0")).join("");
    this.strip.setAttribute("aria-label", `code ${digits}, ${now.flips} bits flipped`);
    this.list(now, query);
    this.none.hidden = ids.length > 0;
  }

  // Each place has its card, and what stands there changes: to attach cards anew would be slow.
  list({ids, hamming, distance, code}, query) {
    const before = this.query === query ? this.ids : [], offs = this.cards.map(({off}) => off);
    Object.assign(this, {ids, query});
    this.cards.forEach((card, place) => this.fill(card, ids[place], query));
    // Where the cards lie is read once: after a change it would make the browser compute its layout twice.
    if (this.places.length < ids.length)
      this.places = ids.map((_, place) => [this.cards[place].el.offsetLeft, this.cards[place].el.offsetTop]);
    ids.forEach((id, place) => {
      const card = this.cards[place], from = before.indexOf(id), [x, y] = this.places[place];
      const [left, top] = this.places[from] ?? [x, y];
      const [across, down, veil] = offs[from] ?? [0, 0, before.length ? 1 : 0];
      put(card.apart, `${hamming[place] === 1 ? "1 bit" : `${hamming[place]} bits`} · ${short(distance[place])}`);
      this.own(card, code);
      Object.assign(card, {off: [left - x + across, top - y + down, veil], gliding: true});
    });
  }

  // Hits glide to their places, and new ones appear: each frame takes them a part of the way.
  glide() {
    const gliding = this.cards.filter(card => card.gliding), still = quiet();
    for (const card of gliding) {
      card.off = card.off.map(v => (still || Math.abs(v) < 0.02 ? 0 : 0.7 * v));
      card.gliding = card.off.some(Boolean);
      const [x, y, veil] = card.off, {style} = card.el;
      style.translate = `${x}px ${y}px`;
      style.opacity = 1 - veil;
    }
    return gliding.length > 0;
  }

  card(place) {
    const {explorer} = this, card = {off: [0, 0, 0], dot: explorer.dot(), label: h("span"),
      picture: h("span", {class: "dh-picture"}), bits: h("i", {class: "dh-own-bits"}),
      mark: h("b", {class: "dh-mark"}), apart: h("span", {class: "dh-apart"})};
    const point = () => this.compare(card.id), leave = () => this.compare();
    card.press = h("button", {type: "button",
      onclick: () => explorer.ask({origin: "database", position: card.id}),
      onpointerenter: point, onfocus: point, onpointerleave: leave, onblur: leave}, card.picture, card.bits,
      h("span", {class: "dh-what"}, h("b", {}, place + 1), card.dot, card.label, card.mark), card.apart);
    card.el = h("li", {hidden: true}, card.press);
    return card;
  }

  // Put a database image on a card, or nothing.
  fill(card, id, query) {
    if (card.id === id && card.query === query) return;
    Object.assign(card, {id, query});
    card.el.hidden = id === undefined;
    if (card.el.hidden) return;
    const {about, colours, source} = this.explorer, {id: name, label, lesion} = about.database[id];
    if (!this.images.has(id)) {
      this.images.set(id, h("img", {alt: name}));
      source.thumb("database", id, this.images.get(id));
    }
    const marks = label === query.label ? ["dh-right", "✓"] : ["dh-wrong", "✗"];
    const [kind, mark] = query.label === null ? ["", ""] : marks;
    const own = query.lesion && lesion === query.lesion;
    card.press.className = `dh-hit ${kind}`;
    card.press.title = name;
    card.picture.replaceChildren(this.images.get(id), ...(own ? [h("em", {}, "own lesion")] : []));
    card.dot.style.background = colours[label];
    put(card.label, label);
    put(card.mark, mark);
  }

  // A hit's own bits, those that differ from the query's in the accent colour.
  own(card, code) {
    const {bits, codes} = this.explorer.indexes[this.number];
    const cells = Array.from(code, (v, b) => {
      const bit = on(codes[card.id * bits + b]);
      const colour = bit !== on(v) ? "accent" : bit ? "high" : "low";
      return `var(--${colour}) ${100 * b / bits}% ${100 * (b + 1) / bits}%`;
    });
    card.bits.style.background = `linear-gradient(90deg, ${cells.join()})`;
  }

  // Mark the bits in which a hit differs from the query.
  compare(id = null) {
    const {bits, codes} = this.explorer.indexes[this.number], {code} = this.now;
    this.bits.forEach((bit, b) => bit.classList.toggle("dh-differs",
      id !== null && on(codes[id * bits + b]) !== on(code[b])));
  }

  // The carpet of this side of the orbit, and the query's path on the map.
  weave(orbit, reference, side, known) {
    const {bits} = this.model, line = [];
    const pen = this.carpet.getContext("2d"), pixels = pen.createImageData(TURNS, bits);
    for (let t = 0; t < TURNS; t++) {
      const o = side * TURNS + t;
      for (let b = 0; b < bits; b++) {
        const v = orbit[o * bits + b], moved = on(v) !== on(reference[b]);
        const c = mix(LOW, HIGH, v), at = 4 * (b * TURNS + t);
        pixels.data.set(moved ? mix(ACCENT, c, 0.25) : c, at);
        pixels.data[at + 3] = known[o] ? 255 : 0;
      }
    }
    pen.putImageData(pixels, 0, 0);
    for (let t = 0; t <= TURNS; t++) {
      const o = side * TURNS + t % TURNS;
      if (known[o]) line.push(this.place(orbit, o * bits).join(" "));
    }
    this.path.setAttribute("d", `M${line.join("L")}`);
  }

  // Mark the present angle on the carpet and the present code on the map.
  point(code, angle) {
    this.here.style.transform = `translateX(${(Math.round(angle / STEP) % TURNS + 0.5) / TURNS * 100}%)`;
    const [x, y] = this.place(code, 0);
    this.spot.style.transform = `translate(${x}%, ${y}%)`;
  }
}
