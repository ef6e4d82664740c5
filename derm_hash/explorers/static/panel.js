// What one model says of the query: numbers, bits, the carpet of bits by angles, the map, the hits.

import {ACCENT, DISC, HIGH, LOW, STEP, TURNS, h, put} from "./parts.js";

export const MOST = 20;  // hits
const on = value => value > 0.5;
const short = d => (d && d < 0.001 ? d.toExponential(0) : String(+d.toFixed(3)));
const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
// The unturned query that an orientation is compared with: between quarter turns, its disc.
const reference = o => (o % TURNS * STEP % 90 ? DISC : 0);

export class Panel {
  // model: {name, bits, map}; explorer: the one whose panel it is.
  constructor(explorer, model, number) {
    Object.assign(this, {explorer, model, number, looks: [], words: "", images: new Map(), ids: [], places: []});
    this.numbers = [0, 1, 2, 3].map(() => h("div.dh-number", h("b"), h("span")));
    this.bits = Array.from({length: model.bits}, () => h("span.dh-bit", h("i"), h("b", "0")));
    this.strip = h("div.dh-bits", {role: "img"}, this.bits);
    this.carpet = h("canvas", {width: TURNS, height: model.bits, onclick: ({offsetX}) =>
      explorer.turn(Math.floor(offsetX / this.carpet.offsetWidth * TURNS) % TURNS * STEP)});
    this.here = h("i.dh-here");
    this.path = h("polygon.dh-path");
    this.spot = h("i.dh-spot");
    this.cards = Array.from({length: MOST}, (_, place) => this.card(place));
    this.none = h("p.dh-none", {hidden: true}, "No image lies within this radius. Choose a larger one.");
    this.el = h("section.dh-panel", {"aria-label": model.name || "the model's answer"},
      h("header", model.name && h("h2", model.name), h("div.dh-numbers", this.numbers)),
      this.strip,
      h("div.dh-two",
        h("figure",
          h("div.dh-carpet", {title: "bits by angles: press to turn there", role: "img",
            "aria-label": "soft bits, one row each, at every angle from 0 to 355 degrees"}, this.carpet, this.here),
          h("div.dh-axis", [0, 90, 180, 270].map(angle => h("span", `${angle}°`)))),
        h("figure.dh-map",
          h("svg", {viewBox: "0 0 100 100", role: "img",
            "aria-label": "map of the codes in two dimensions, by class, with the query's path"},
            this.dots(), this.path),
          this.spot)),
      this.none, h("ol.dh-hits", this.cards.map(({el}) => el)));
    new ResizeObserver(() => { this.places = []; }).observe(this.el.firstChild);
  }

  get index() { return this.explorer.indexes[this.number]; }

  // Where the database images lie on the map: a path of dots for each class.
  dots() {
    const {about} = this.explorer, {codes, bits, size} = this.index;
    const paths = Object.fromEntries(about.classes.map(({name}) => [name, ""]));
    for (let i = 0; i < size; i += Math.ceil(size / 2500))
      paths[about.database[i].label] += `M${this.place(codes, i * bits)}h0`;
    return about.classes.map(({name, color}) =>
      h("path.dh-dots", {style: `color: ${color}`, d: paths[name]}));
  }

  // The place of a code on the map, in its percent; what lies outside stands at the edge.
  place(codes, from) {
    const {axes, offset} = this.model.map;
    const shares = axes.map((axis, i) => axis.reduce((sum, a, b) => sum + a * codes[from + b], offset[i]));
    return shares.map(v => Math.min(Math.max(6 + 88 * v, 3), 97).toFixed(1));
  }

  // The answer to one orientation, computed once.
  look(o) {
    if (this.looks[o]) return this.looks[o];
    const {query, view, among} = this.explorer, {bits} = this.model;
    const code = query.codes[this.number].subarray(o * bits, (o + 1) * bits);
    const skip = query.origin === "database" ? query.position : -1;
    const now = this.looks[o] = {...this.index.search(code, {...view, skip, among}), code};
    const first = this.look(reference(o));
    now.flips = code.reduce((sum, v, b) => sum + (on(v) !== on(first.code[b])), 0);
    now.kept = now.ids.filter(id => first.ids.includes(id)).length;
    now.before = first.ids.length;
    return now;
  }

  // Show the answer to an orientation.
  show(o, query, {k, angle}) {
    const now = this.look(o), {code, ids, flips} = now, unturned = this.look(reference(o)).code;
    this.point(angle, code);
    if (this.now === now) return;
    this.now = now;
    const right = ids.filter(id => this.explorer.hit(id).right).length, found = ids.length;
    const precision = query.label === null || !found ? "–" : (right / found).toFixed(2);
    const flipped = [`${flips} of ${code.length}`, "bits flipped"];
    const kept = [`${now.kept} of ${now.before}`, "hits kept"];
    const within = [now.within.toLocaleString("en"), "within radius"];
    const numbers = [[precision, `precision@${found || k}`], within, flipped, kept];
    this.words = `${this.model.name} ${flipped.join(" ")}, ${kept.join(" ")}`;
    numbers.forEach((texts, i) => texts.forEach((text, n) => put(this.numbers[i].children[n], text)));
    this.numbers[2].classList.toggle("dh-moved", flips > 0);
    this.bits.forEach((bit, i) => {
      const other = on(code[i]) !== on(unturned[i]);
      bit.classList.toggle("dh-flipped", other);
      bit.firstChild.style.transform = `scaleY(${code[i]})`;
      put(bit.lastChild, +on(code[i]));
      bit.title = `bit ${i}: ${code[i].toFixed(3)}${other ? `, unturned ${unturned[i].toFixed(3)}` : ""}`;
    });
    this.strip.ariaLabel = `code ${Array.from(code, v => +on(v)).join("")}, ${flips} bits flipped`;
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
      put(card.apart, `${hamming[place]} bit${hamming[place] === 1 ? "" : "s"} · ${short(distance[place])}`);
      this.own(card, code);
      Object.assign(card, {off: [left - x + across, top - y + down, veil], gliding: true});
    });
  }

  // Hits glide to their places, and new ones appear: each frame takes them a part of the way.
  glide() {
    const gliding = this.cards.filter(card => card.gliding);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
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
    const {explorer} = this, card = {off: [0, 0, 0], dot: h("i.dh-dot"), label: h("span"),
      picture: h("span.dh-picture"), bits: h("i.dh-own-bits"), mark: h("b.dh-mark"), apart: h("span.dh-apart")};
    const point = () => this.compare(card.id), leave = () => this.compare();
    card.press = h("button", {type: "button",
      onclick: () => explorer.ask({origin: "database", position: card.id}),
      onpointerenter: point, onfocus: point, onpointerleave: leave, onblur: leave}, card.picture, card.bits,
      h("span.dh-what", h("b", place + 1), card.dot, card.label, card.mark), card.apart);
    card.el = h("li", {hidden: true}, card.press);
    return card;
  }

  // Put a database image on a card, or nothing.
  fill(card, id, query) {
    if (card.id === id && card.query === query) return;
    Object.assign(card, {id, query});
    card.el.hidden = id === undefined;
    if (card.el.hidden) return;
    const {colours, source} = this.explorer, {id: name, label, right, own} = this.explorer.hit(id);
    if (!this.images.has(id)) this.images.set(id, source.thumb("database", id, h("img", {alt: name})));
    const [kind, mark] = right === null ? ["", ""] : right ? ["dh-right", "✓"] : ["dh-wrong", "✗"];
    card.press.className = `dh-hit ${kind}`;
    card.press.title = name;
    card.picture.replaceChildren(this.images.get(id), ...(own ? [h("em", "own lesion")] : []));
    card.dot.style.background = colours[label];
    put(card.label, label);
    put(card.mark, mark);
  }

  // A hit's own bits, those that differ from the query's in the accent colour.
  own(card, code) {
    const {bits, codes} = this.index;
    const cells = Array.from(code, (v, b) => {
      const bit = on(codes[card.id * bits + b]);
      const colour = bit !== on(v) ? "accent" : bit ? "high" : "low";
      return `var(--${colour}) ${100 * b / bits}% ${100 * (b + 1) / bits}%`;
    });
    card.bits.style.background = `linear-gradient(90deg, ${cells.join()})`;
  }

  // Mark the bits in which a hit differs from the query.
  compare(id = null) {
    const {bits, codes} = this.index;
    this.bits.forEach((bit, b) => bit.classList.toggle("dh-differs",
      id !== null && on(codes[id * bits + b]) !== on(this.now.code[b])));
  }

  // The carpet of the orientations that are known of one side, and their path on the map.
  weave(orientations, orbit) {
    const {bits} = this.model;
    const pen = this.carpet.getContext("2d"), pixels = pen.createImageData(TURNS, bits);
    for (const o of orientations) for (let b = 0; b < bits; b++) {
      const value = orbit[o * bits + b], unturned = orbit[reference(o) * bits + b], colour = mix(LOW, HIGH, value);
      const shown = on(value) !== on(unturned) ? mix(ACCENT, colour, 0.25) : colour;
      pixels.data.set([...shown, 255], 4 * (b * TURNS + o % TURNS));
    }
    pen.putImageData(pixels, 0, 0);
    this.path.setAttribute("points", orientations.map(o => this.place(orbit, o * bits)).join(" "));
  }

  // Mark the present angle on the carpet and the present code on the map.
  point(angle, code) {
    this.here.style.transform = `translateX(${(Math.round(angle / STEP) % TURNS + 0.5) / TURNS * 100}%)`;
    const [x, y] = this.place(code, 0);
    this.spot.style.transform = `translate(${x}%, ${y}%)`;
  }
}
