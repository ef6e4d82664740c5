// The loss explorer: four copies of a bit that can be moved, and what each penalty does about them.

import {Chart, field, h, mount, put, report} from "./parts.js";

// Penalties rho(d) at scale g and their slopes, as in derm_hash.losses.
const PENALTIES = {
  cauchy: [(d, g) => Math.log1p(d / g), (d, g) => 1 / (g + d)],
  l1: [(d, g) => d / g, (d, g) => 1 / g],
  l2: [(d, g) => (d / g) ** 2 / 2, (d, g) => d / g ** 2],
  gaussian: [(d, g) => 1 - Math.exp(-((d / g) ** 2) / 2),
    (d, g) => d / g ** 2 * Math.exp(-((d / g) ** 2) / 2)],
};
const DASHES = {"-": "", "--": "9 5", "-.": "9 4 2 4", ":": "2 4"};
const HEADS = ["penalty", "loss of the orbit", "slope ρ′(d) at 0°", "gradient at 0°, the mean moves too"];
const GRID = Array.from({length: 101}, (_, n) => n / 100);
const mean = values => values.reduce((a, b) => a + b) / values.length;

export class LossExplorer {
  constructor(root, model) {
    const draw = () => this.draw();
    this.model = model;
    this.gamma = h("input", {type: "range", min: 0.05, max: 2, step: 0.05, value: model.get("gamma"),
      oninput: draw});
    this.says = h("span");
    this.copies = model.get("copies").map((value, k) => h("input", {type: "range", min: 0, max: 1,
      step: 0.01, value, "aria-label": `copy turned by ${90 * k} degrees`, oninput: draw}));
    this.values = this.copies.map(() => h("output"));
    this.mean = h("i.dh-mean");
    this.charts = ["loss ρ", "slope ρ′"].map(name =>
      new Chart(`${name} at the distance d from the mean`, [240, 200], [0, 0.5, 1], [0, 0, 0, 0, 0]));
    this.rows = model.get("about").kinds.map(each => this.row(each, draw));
    mount(root, h("div.dh-loss",
      h("div.dh-copies", h("b", "soft bit of the four copies"),
        this.copies.map((copy, k) => [h("span", `${90 * k}°`), copy, this.values[k]]), this.mean,
        field("γ, the scale", this.gamma), this.says),
      h("div.dh-charts", this.charts.map(c => c.el),
        h("table", h("thead", h("tr", HEADS.map(head => h("th", {scope: "col"}, head)))),
          h("tbody", this.rows.map(row => row.el))),
        h("p.dh-hint", "Drag a handle, or use the arrow keys, Page Up and Page Down. ■ is the copy at 0°, " +
          "● are the others; d is the distance of a copy from the mean, the dashed line."))));
    this.draw();
  }

  // A penalty's row in the table, and its paths in the charts.
  row({kind, name, color: stroke, line}, draw) {
    const look = {stroke, fill: "none", "stroke-width": 2.5, "stroke-dasharray": DASHES[line]};
    const box = h("input", {type: "checkbox", checked: true, "aria-label": name, onchange: draw});
    const cells = [0, 1, 2].map(() => h("td")), sample = h("path", {...look, d: "M0 5H40"});
    const paths = this.charts.map(chart => [chart.path(look), chart.path({stroke, class: "dh-points"}, true),
      chart.path({stroke, class: "dh-first"}, true)]);
    const el = h("tr", h("th", {scope: "row"}, h("label.dh-pick", box,
      h("svg", {width: 40, height: 10}, sample), name)), cells);
    return {functions: PENALTIES[kind], box, cells, paths, el};
  }

  draw() {
    const gamma = +this.gamma.value, copies = this.copies.map(copy => +copy.value), middle = mean(copies);
    const distance = copies.map(u => Math.abs(u - middle));
    copies.forEach((u, k) => put(this.values[k], u.toFixed(2)));
    this.mean.style.setProperty("--share", middle);
    put(this.says, `γ = ${gamma.toFixed(2)}, mean ${middle.toFixed(2)}`);
    for (const {functions: [rho, slope], box, cells} of this.rows) {
      const slopes = distance.map(d => slope(d, gamma));
      const loss = distance.reduce((sum, d) => sum + rho(d, gamma), 0);
      const signed = slopes.map((s, k) => s * Math.sign(copies[k] - middle));
      const numbers = [loss, slopes[0], signed[0] - mean(signed)];  // every copy moves the mean too
      cells.forEach((cell, n) => put(cell, box.checked ? numbers[n].toFixed(3) : "–"));
    }
    this.charts.forEach((chart, which) => this.plot(chart, which, gamma, distance));
    clearTimeout(this.telling);
    this.telling = setTimeout(() => report(this.model, {gamma, copies}), 400);
  }

  // The curves of a chart, 0: the penalties, 1: their slopes, and on them the four copies.
  plot(chart, which, gamma, distance) {
    const shown = this.rows.filter(({box}) => box.checked);
    const ends = shown.flatMap(({functions}) => [0, 0.25, 0.5, 0.75, 1].map(d => functions[which](d, gamma)));
    const top = Math.max(...ends, 0.1);
    chart.scale([0, 1, 2, 3, 4].map(i => i * top / 4));
    for (const {functions, box, paths} of this.rows) {
      const [line, others, first] = paths[which];
      const points = ds => box.checked ? ds.map(d => [d, functions[which](d, gamma) / top]) : [];
      line(points(GRID));
      others(points(distance.slice(1)));
      first(points(distance.slice(0, 1)));
    }
  }
}
