// The loss explorer: four copies of a bit that can be moved, and what each penalty does about them.

import {Chart, field, h, marked, mount, put} from "./parts.js";

// Penalties rho(d) at scale g and their slopes, as in derm_hash.losses.
export const PENALTIES = {
  cauchy: [(d, g) => Math.log1p(d / g), (d, g) => 1 / (g + d)],
  l1: [(d, g) => d / g, (d, g) => 1 / g],
  l2: [(d, g) => (d / g) ** 2 / 2, (d, g) => d / g ** 2],
  gaussian: [(d, g) => 1 - Math.exp(-((d / g) ** 2) / 2),
    (d, g) => d / g ** 2 * Math.exp(-((d / g) ** 2) / 2)],
};
const DASHES = {"-": "", "--": "9 5", "-.": "9 4 2 4", ":": "2 4"};
const HEADS = ["penalty", "loss of the orbit", "slope ρ′(d) at 0°", "gradient at 0°, the mean moves too"];
const mean = values => values.reduce((a, b) => a + b) / values.length;

export class LossExplorer {
  constructor(root, model) {
    const {kinds} = model.get("about"), draw = () => this.draw();
    Object.assign(this, {model, kinds});
    this.gamma = h("input", {type: "range", min: 0.05, max: 2, step: 0.05, value: model.get("gamma"),
      oninput: draw});
    this.says = h("span");
    this.copies = model.get("copies").map((value, k) => h("input", {type: "range", min: 0, max: 1,
      step: 0.01, value, "aria-label": `copy turned by ${90 * k} degrees`, oninput: draw}));
    this.values = this.copies.map(() => h("output"));
    this.mean = h("i", {class: "dh-mean"});
    this.charts = ["loss ρ", "slope ρ′"].map(name =>
      new Chart(`${name} at the distance d from the mean`, [240, 200], [0, 0.5, 1], [0, 0, 0, 0, 0]));
    this.rows = kinds.map(({name, color, line}) => {
      const own = {stroke: color};
      const path = () => h("path", {...own, fill: "none", "stroke-width": 2.5, "stroke-dasharray": DASHES[line]});
      const sample = path(), lines = this.charts.map(path), cells = [0, 1, 2].map(() => h("td"));
      const marks = this.charts.map(() => h("path", {...own, class: "dh-points"}));
      const firsts = this.charts.map(() => h("path", {...own, class: "dh-first"}));
      this.charts.forEach(({el}, i) => el.append(lines[i], marks[i], firsts[i]));
      sample.setAttribute("d", "M0 5H40");
      const box = h("input", {type: "checkbox", checked: true, "aria-label": name, onchange: draw});
      const el = h("tr", {}, h("th", {scope: "row"}, h("label", {class: "dh-pick"}, box,
        h("svg", {width: 40, height: 10}, sample), name)), cells);
      return {box, cells, lines, marks, firsts, el};
    });
    mount(root);
    root.append(h("div", {class: "dh-loss"},
      h("div", {class: "dh-copies"}, h("b", {}, "soft bit of the four copies"),
        this.copies.map((copy, k) => [h("span", {}, `${90 * k}°`), copy, this.values[k]]), this.mean,
        field("γ, the scale", this.gamma), this.says),
      h("div", {class: "dh-charts"}, this.charts.map(c => c.el),
        h("table", {}, h("thead", {}, h("tr", {}, HEADS.map(head => h("th", {scope: "col"}, head)))),
          h("tbody", {}, this.rows.map(row => row.el))),
        h("p", {class: "dh-hint"}, "Drag a handle, or use the arrow keys, Page Up and Page Down. ■ is the " +
          "copy at 0°, ● are the others; d is the distance of a copy from the mean, the dashed line."))));
    this.draw();
  }

  draw() {
    const gamma = +this.gamma.value, copies = this.copies.map(copy => +copy.value), middle = mean(copies);
    const distance = copies.map(u => Math.abs(u - middle));
    copies.forEach((u, k) => put(this.values[k], u.toFixed(2)));
    marked(this.mean, middle);
    put(this.says, `γ = ${gamma.toFixed(2)}, mean ${middle.toFixed(2)}`);
    this.kinds.forEach(({kind}, i) => {
      const [rho, slope] = PENALTIES[kind], slopes = distance.map(d => slope(d, gamma));
      const loss = distance.reduce((sum, d) => sum + rho(d, gamma), 0);
      const signed = slopes.map((s, k) => s * Math.sign(copies[k] - middle));
      const texts = [loss, slopes[0], signed[0] - mean(signed)];  // every copy moves the mean too
      this.rows[i].cells.forEach((cell, n) => put(cell, this.rows[i].box.checked ? texts[n].toFixed(3) : "–"));
    });
    this.charts.forEach((_, which) => this.plot(which, gamma, distance));
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      this.model.set("gamma", gamma);
      this.model.set("copies", copies);
      this.model.save_changes();
    }, 400);
  }

  // The curves of a chart, 0: the penalties, 1: their slopes, and on them the four copies.
  plot(which, gamma, distance) {
    const chart = this.charts[which], curves = this.kinds.map(({kind}, i) =>
      this.rows[i].box.checked ? d => PENALTIES[kind][which](d, gamma) : null);
    const ends = curves.flatMap(f => f ? [0, 0.25, 0.5, 0.75, 1].map(f) : []), top = Math.max(...ends, 0.1);
    chart.scale([0, 1, 2, 3, 4].map(i => i * top / 4));
    curves.forEach((f, i) => {
      const {lines, marks, firsts} = this.rows[i], grid = Array.from({length: 101}, (_, n) => n / 100);
      const dots = distance.map(d => f ? `M${chart.at(d, f(d) / top)}h0` : "");
      chart.draw(lines[which], f ? grid.map(d => [d, f(d) / top]) : []);
      marks[which].setAttribute("d", dots.slice(1).join(""));
      firsts[which].setAttribute("d", dots[0]);
    });
  }
}
