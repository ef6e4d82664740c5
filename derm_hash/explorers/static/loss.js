// The loss explorer: four copies of a bit that can be dragged, and what each penalty does about them.

import {field, h, mount, put} from "./parts.js";

// Penalties rho(d) at scale g and their slopes, as in derm_hash.losses.
export const PENALTIES = {
  cauchy: [(d, g) => Math.log1p(d / g), (d, g) => 1 / (g + d)],
  l1: [(d, g) => d / g, (d, g) => 1 / g],
  l2: [(d, g) => (d / g) ** 2 / 2, (d, g) => d / g ** 2],
  gaussian: [(d, g) => 1 - Math.exp(-((d / g) ** 2) / 2),
    (d, g) => d / g ** 2 * Math.exp(-((d / g) ** 2) / 2)],
};
const DASHES = {"-": "", "--": "9 5", "-.": "9 4 2 4", ":": "2 4"};
const WIDE = 300, HIGH = 200, LEFT = 44, TOP = 26;  // of a chart, in pixels

// Distances from the mean, and for a penalty the loss and its gradient at each copy.
export function orbit(copies, kind, gamma) {
  const mean = copies.reduce((a, b) => a + b) / 4, [rho, slope] = PENALTIES[kind];
  const signed = copies.map(u => Math.sign(u - mean) * slope(Math.abs(u - mean), gamma));
  const common = signed.reduce((a, b) => a + b) / 4;  // every copy moves the mean too
  return {distance: copies.map(u => Math.abs(u - mean)), mean,
    loss: copies.reduce((sum, u) => sum + rho(Math.abs(u - mean), gamma), 0),
    gradient: signed.map(s => s - common)};
}

export class LossExplorer {
  constructor(root, model) {
    const {kinds} = model.get("about");
    Object.assign(this, {model, kinds, gamma: model.get("gamma"), copies: [...model.get("copies")]});
    this.scale = h("input", {type: "range", min: 0.05, max: 2, step: 0.05, value: this.gamma,
      oninput: () => { this.gamma = +this.scale.value; this.draw(); }});
    this.says = h("span");
    this.dots = this.copies.map((_, k) => h("g", {class: "dh-copy", tabindex: 0, role: "slider",
      "aria-label": `copy turned by ${90 * k} degrees`, "aria-valuemin": 0, "aria-valuemax": 1,
      onpointerdown: e => { e.currentTarget.setPointerCapture(e.pointerId); this.held = k; },
      onpointermove: e => this.held === k && this.drag(k, e), onpointerup: () => { this.held = null; },
      onkeydown: e => this.key(k, e)},
      h("line", {x1: 40 + 46 * k, x2: 40 + 46 * k, y1: TOP, y2: TOP + HIGH, class: "dh-base"}),
      h("circle", {cx: 40 + 46 * k, r: 11}),
      h("text", {x: 40 + 46 * k, y: TOP + HIGH + 18, "text-anchor": "middle"}, `${90 * k}°`)));
    this.mean = h("line", {x1: 20, x2: 200, class: "dh-mean"});
    this.orbit = h("svg", {viewBox: "0 0 215 270", class: "dh-chart", width: 215}, h("text", {x: 4, y: 14},
      "soft bit of the four copies"), this.mean, this.dots);
    this.charts = ["loss ρ(d)", "slope ρ′(d)"].map((name, which) => this.chart(name, which));
    this.boxes = kinds.map(({name}) => h("input", {type: "checkbox", checked: true,
      "aria-label": name, onchange: () => this.draw()}));
    const rows = kinds.map((each, i) => {
      const line = h("svg", {width: 40, height: 10}, h("path", {d: "M0 5H40", stroke: each.color,
        "stroke-width": 2.5, "stroke-dasharray": DASHES[each.line], class: "dh-own"}));
      const cells = [0, 1, 2].map(() => h("td"));
      return {cells, el: h("tr", {}, h("th", {scope: "row"}, h("label", {class: "dh-pick"}, this.boxes[i],
        line, each.name)), cells)};
    });
    this.rows = rows;
    mount(root);
    root.append(h("div", {class: "dh-loss"},
      h("div", {}, this.orbit, field("γ, the scale", this.scale), this.says),
      h("div", {class: "dh-charts"}, this.charts.map(c => c.el),
        h("table", {}, h("thead", {}, h("tr", {}, ["penalty", "loss of the orbit", "slope ρ′(d) at 0°",
          "gradient at 0°, the mean moves too"].map(t => h("th", {scope: "col"}, t)))),
          h("tbody", {}, rows.map(r => r.el))),
        h("p", {class: "dh-hint"}, "Drag a dot up or down, or use the arrow keys. ◆ is the copy at 0°, " +
          "● are the others; d is the distance of a copy from the mean, the dashed line."))));
    this.draw();
  }

  chart(name, which) {
    const lines = this.kinds.map(({color, line}) => h("path", {stroke: color, fill: "none",
      "stroke-width": 2.5, "stroke-dasharray": DASHES[line], class: "dh-own"}));
    const marks = this.kinds.map(({color}) => h("path", {fill: color, class: "dh-mark-of dh-own"}));
    const title = h("text", {x: LEFT, y: 14, class: "dh-title"}, name);
    const grid = [0, 1, 2, 3, 4].map(i => h("g", {}, h("line", {class: "dh-base", x1: LEFT,
      x2: LEFT + WIDE - 60, y1: TOP + HIGH - i * HIGH / 4, y2: TOP + HIGH - i * HIGH / 4}),
      h("text", {x: LEFT - 5, y: TOP + HIGH - i * HIGH / 4 + 4, "text-anchor": "end"})));
    const ticks = [0, 0.5, 1].map(d => h("text", {x: LEFT + d * (WIDE - 60), y: TOP + HIGH + 18,
      "text-anchor": "middle"}, d));
    const el = h("svg", {viewBox: `0 0 ${WIDE} 270`, class: "dh-chart", width: WIDE, role: "img",
      "aria-label": `${name} of each penalty against the distance from the mean`}, title, grid, ticks,
      h("text", {x: LEFT + (WIDE - 60) / 2, y: 264, "text-anchor": "middle"}, "distance d from the mean"),
      lines, marks);
    return {el, which, lines, marks, grid};
  }

  drag(k, event) {
    const box = this.orbit.getBoundingClientRect();
    this.move(k, 1 - ((event.clientY - box.top) * 270 / box.height - TOP) / HIGH);
  }

  key(k, event) {
    const by = {ArrowUp: 0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowLeft: -0.01}[event.key];
    if (!by) return;
    this.move(k, this.copies[k] + by * (event.shiftKey ? 10 : 1));
    event.preventDefault();
  }

  move(k, value) {
    this.copies[k] = Math.round(100 * Math.min(Math.max(value, 0), 1)) / 100;
    this.draw();
  }

  draw() {
    const {gamma, copies} = this, y = u => TOP + HIGH * (1 - u);
    copies.forEach((u, k) => {
      this.dots[k].querySelector("circle").setAttribute("cy", y(u));
      this.dots[k].setAttribute("aria-valuenow", u);
    });
    const {mean} = orbit(copies, "l1", 1);
    for (const end of ["y1", "y2"]) this.mean.setAttribute(end, y(mean));
    put(this.says, `γ = ${gamma.toFixed(2)}, mean ${mean.toFixed(2)}`);
    this.kinds.forEach(({kind}, i) => {
      const {loss, gradient, distance} = orbit(copies, kind, gamma);
      const shown = this.boxes[i].checked;
      const texts = [loss, PENALTIES[kind][1](distance[0], gamma), gradient[0]];
      this.rows[i].cells.forEach((cell, n) => put(cell, shown ? texts[n].toFixed(3) : "–"));
    });
    for (const chart of this.charts) this.plot(chart);
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      this.model.set("gamma", gamma);
      this.model.set("copies", [...copies]);
      this.model.save_changes();
    }, 400);
  }

  plot({which, lines, marks, grid}) {
    const {gamma, copies} = this, shown = this.kinds.filter((_, i) => this.boxes[i].checked);
    const values = shown.flatMap(({kind}) => [0, 0.25, 0.5, 0.75, 1].map(d => PENALTIES[kind][which](d, gamma)));
    const top = Math.max(...values, 0.1), wide = WIDE - 60;
    const at = (d, v) => [LEFT + d * wide, TOP + HIGH * (1 - v / top)].map(n => n.toFixed(1));
    grid.forEach((line, i) => put(line.lastChild, +(i * top / 4).toPrecision(2)));
    this.kinds.forEach(({kind}, i) => {
      const f = PENALTIES[kind][which], hidden = !this.boxes[i].checked;
      const points = Array.from({length: 101}, (_, n) => at(n / 100, f(n / 100, gamma)).join(" "));
      lines[i].setAttribute("d", hidden ? "" : `M${points.join("L")}`);
      const dots = orbit(copies, kind, gamma).distance.map((d, k) => {
        const [x, y] = at(d, f(d, gamma));
        return k ? `M${x - 5} ${y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0` : `M${x} ${y - 8}l8 8l-8 8l-8 -8z`;
      });
      marks[i].setAttribute("d", hidden ? "" : dots.reverse().join(""));
    });
  }
}
