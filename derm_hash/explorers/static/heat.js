// The heatmap explorer: where the network looks, on the query as it is turned and on one of its hits.

import {button, chooser, field, h, mount, put} from "./parts.js";
import {Stage} from "./stage.js";

const SIDE = 256, ROUND = 30;  // pixels of a map; degrees between the angles of "once around"
// Matplotlib's inferno at nine places.
const INFERNO = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51],
  [249, 140, 10], [249, 201, 50], [252, 255, 164]];

function inferno(v) {
  const at = v / 255 * 8, i = Math.min(Math.floor(at), 7);
  return INFERNO[i].map((c, n) => c + (INFERNO[i + 1][n] - c) * (at - i));
}

// Draw a map (size * size bytes), as strong as it is hot, and the outline of a mask over it.
function paint(canvas, heat, mask, size, opacity) {
  const small = h("canvas", {width: size, height: size}), pen = small.getContext("2d");
  const pixels = pen.createImageData(size, size), big = canvas.getContext("2d");
  heat.forEach((v, i) => pixels.data.set([...inferno(v), v * opacity], 4 * i));
  pen.putImageData(pixels, 0, 0);
  big.clearRect(0, 0, SIDE, SIDE);
  big.drawImage(small, 0, 0, SIDE, SIDE);
  if (!mask.length) return;
  const inside = (x, y) => x >= 0 && y >= 0 && x < size && y < size && mask[y * size + x] > 127;
  const unit = SIDE / size;
  for (const [style, width] of [["#000", 3], ["#fff", 1.4]]) {
    big.beginPath();
    for (let y = 0; y <= size; y++) for (let x = 0; x <= size; x++) {
      if (inside(x, y) !== inside(x - 1, y)) { big.moveTo(x * unit, y * unit); big.lineTo(x * unit, (y + 1) * unit); }
      if (inside(x, y) !== inside(x, y - 1)) { big.moveTo(x * unit, y * unit); big.lineTo((x + 1) * unit, y * unit); }
    }
    Object.assign(big, {strokeStyle: style, lineWidth: width});
    big.stroke();
  }
}

export class HeatmapExplorer {
  constructor(root, source) {
    const {about, model} = source;
    Object.assign(this, {source, about, model, followed: new Map(), opacity: 0.6, busy: false});
    this.view = Object.fromEntries(["subject", "place", "angle", "mirrored"].map(n => [n, model.get(n)]));
    this.stage = new Stage([], (angle, mirrored) => this.set({angle, mirrored}));
    this.maps = [0, 1].map(() => h("canvas", {width: SIDE, height: SIDE, class: "dh-heat"}));
    this.stage.disc.append(this.maps[0]);
    this.hit = h("img", {alt: ""});
    this.subject = chooser(about.subjects.map(s => [s, s]), subject => this.set({subject}));
    const strength = h("input", {type: "range", min: 0, max: 1, step: 0.05, value: this.opacity,
      oninput: () => { this.opacity = +strength.value; this.shade(); }});
    this.ids = about.query.map(({id, label}) => [`${id} (${label})`, id]);
    this.query = chooser([["", ""], ...this.ids], id => id && source.ask({origin: "id", id}));
    this.hits = h("div", {class: "dh-trail", role: "group", "aria-label": "hits"});
    this.names = [h("p", {class: "dh-query"}), h("p", {class: "dh-query"})];
    this.scores = h("p", {class: "dh-scores", "aria-live": "polite"});
    this.curve = h("path", {class: "dh-mine"});
    this.dots = h("path", {class: "dh-own", "stroke-width": 5, "stroke-linecap": "round"});
    this.chart = h("svg", {viewBox: "0 0 345 130", class: "dh-chart", width: 345, role: "img"},
      h("text", {x: 0, y: 12, class: "dh-title"}, "Does the map turn with the lesion?"),
      [1, 0, -1].map((v, i) => h("g", {}, h("line", {class: "dh-base", x1: 26, x2: 326, y1: 24 + 40 * i,
        y2: 24 + 40 * i}), h("text", {x: 20, y: 28 + 40 * i, "text-anchor": "end"}, v))),
      [0, 90, 180, 270, 360].map(a => h("text", {x: 26 + a / 1.2, y: 124, "text-anchor": "middle"}, `${a}°`)),
      this.curve, this.dots);
    this.alert = h("div", {class: "dh-alert", role: "alert"});
    mount(root);
    root.append(h("div", {class: "dh-controls"}, field("map", this.subject), field("opacity", strength),
      field("query", this.query)),
      h("div", {class: "dh-main dh-heats"},
        h("div", {}, this.stage.el, this.names[0]),
        h("div", {}, h("div", {class: "dh-hit-map"}, this.hit, this.maps[1]), this.names[1], this.hits),
        h("div", {class: "dh-side"}, this.scores, this.chart,
          button("turn it once around", "compare the map at every 30 degrees", () => this.round()),
          h("p", {class: "dh-hint"}, "The curve: correlation of the map with the unturned image's map, turned. " +
            "For teaching and research. Not a diagnosis."))), this.alert);
    Object.assign(source, {onquery: query => this.arrive(query), onerror: text => this.say(text),
      onmap: (view, arrays) => this.receive(view, arrays)});
    this.close = () => source.close();
    source.ask({origin: "start"});
  }

  say(text) {
    this.busy = false;
    this.alert.textContent = `⚠ ${text}`;
  }

  set(change) {
    Object.assign(this.view, change);
    if ("angle" in change) this.pose();
    this.ask();
  }

  // One question at a time: while the kernel computes, the latest wish waits.
  ask() {
    this.alert.textContent = "";
    if (this.busy) return void (this.again = true);
    this.busy = true;
    this.again = false;
    this.model.send({kind: "map", ...this.view});
  }

  arrive(query) {
    this.asked = query;
    this.stage.picture(query, `query ${query.id}: ${query.label}`);
    this.names[0].textContent = `${query.label}, ${query.id}`;
    this.query.value = query.origin === "query" ? query.id : "";
    Object.assign(this.view, this.began ? {angle: 0, mirrored: false, place: 0} : {});
    this.began = true;
    this.pose();
    this.ask();
  }

  // The lesion follows the hand; the map that was computed last is turned along until the next comes.
  pose() {
    const {angle, mirrored} = this.view, last = this.shown?.asked;
    this.stage.show(angle, mirrored, (mirrored ? 72 : 0) + Math.round(angle / 5) % 72);
    const by = last && last.mirrored === mirrored ? last.angle - angle : 0;
    this.maps[0].style.transform = `rotate(${by}deg)`;
  }

  receive(view, [heat, hitHeat, mask, hitMask, picture]) {
    const bytes = data => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.busy = false;
    this.shown = view;
    this.arrays = [[bytes(heat), bytes(mask)], [bytes(hitHeat), bytes(hitMask)]];
    URL.revokeObjectURL(this.hit.src);
    this.hit.src = URL.createObjectURL(new Blob([picture], {type: "image/jpeg"}));
    const hit = view.hits[view.place], {subject, mirrored, angle} = view.asked;
    this.hit.alt = `hit ${view.place + 1}: ${hit.label}, ${hit.id}`;
    this.names[1].textContent = `hit ${view.place + 1}: ${hit.label} ${hit.right ? "✓" : "✗"}, ${hit.id}`;
    this.hits.replaceChildren(...view.hits.map((each, i) => {
      const image = h("img", {alt: ""});
      this.source.thumb("database", each.position, image);
      return button([image], `hit ${i + 1}: ${each.label} ${each.right ? "right" : "wrong"}`,
        () => this.set({place: i}), {class: "dh-thumb", "aria-current": String(i === view.place)});
    }));
    this.subject.value = subject;
    const key = [this.asked.id, subject, mirrored, subject.startsWith("match") ? hit.id : ""].join();
    if (this.key !== key) this.followed = new Map(mirrored ? [] : [[0, 1]]);
    this.key = key;
    if (view.follows !== null) this.followed.set(angle, view.follows);
    this.draw();
    this.shade();
    this.pose();
    this.words();
    if (this.again) this.ask();
    else this.next?.();
  }

  shade() {
    this.maps.forEach((canvas, i) => this.arrays && paint(canvas, ...this.arrays[i], this.shown.size, this.opacity));
  }

  words() {
    const {low, high, energy, area, points, follows} = this.shown, parts = [];
    const share = v => `${Math.round(100 * v)} %`;
    if (low !== null) parts.push(`The query's gate goes from ${low.toFixed(2)} (dark) to ${high.toFixed(2)} (bright).`);
    if (energy === null) parts.push("There is no lesion mask for this image.");
    else parts.push(`${share(energy)} of the heat is on the lesion, which covers ${share(area)} of the image; ` +
      `the hottest point is ${points ? "on" : "off"} it.`);
    if (follows !== null) parts.push(`The map follows the turn with correlation ${follows.toFixed(2)}.`);
    put(this.scores, parts.join(" "));
  }

  draw() {
    const all = [...this.followed].sort(([a], [b]) => a - b);
    const points = [...all, ...(this.followed.has(0) ? [[360, this.followed.get(0)]] : [])]
      .map(([a, v]) => `${26 + a / 1.2} ${64 - 40 * v}`);
    this.curve.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    this.dots.setAttribute("d", points.map(p => `M${p}h0`).join(""));
    this.chart.setAttribute("aria-label", "correlation with the unturned map: " +
      all.map(([a, v]) => `${v.toFixed(2)} at ${a}°`).join(", "));
  }

  // Turn to each angle and wait for its map; ends where it began.
  async round() {
    const began = this.view.angle;
    for (let angle = ROUND; angle <= 360; angle += ROUND) {
      const done = new Promise(resolve => { this.next = resolve; });
      this.set({angle: angle % 360});
      await done;
    }
    this.next = null;
    this.set({angle: began});
  }
}
