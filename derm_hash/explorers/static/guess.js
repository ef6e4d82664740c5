// A guess before the answer: a number, a choice, or a curve drawn with the finger.

import {button, h, mount} from "./parts.js";

const ACROSS = 420, TALL = 180;

export class Guess {
  constructor(root, model) {
    const about = model.get("about");
    Object.assign(this, {model, about, value: model.get("guess")});
    this.body = h("div", {class: "dh-guess-body"});
    this.answer = h("p", {class: "dh-answer", "aria-live": "polite"});
    this.commit = button("That is my guess", "commit the guess", () => this.settle());
    mount(root);
    root.append(h("div", {class: "dh-guess"}, h("p", {class: "dh-question"}, about.question), this.body,
      this.commit, this.answer));
    if (about.options) this.choice();
    else if (about.x) this.curve();
    else this.number();
    const show = () => this.show();
    model.on("change:truth", show);
    this.close = () => model.off("change:truth", show);
    this.show();
  }

  number() {
    const {low, high, unit} = this.about, step = high - low > 2 ? 1 : 0.01;
    this.value ??= Math.round((low + high) / 2 / step) * step;
    this.input = h("input", {type: "range", min: low, max: high, step, value: this.value,
      "aria-label": "guess", oninput: () => {
        this.value = +this.input.value;
        this.shown.textContent = `${+this.value.toFixed(2)} ${unit}`;
      }});
    this.shown = h("output", {}, `${+this.value.toFixed(2)} ${unit}`);
    this.mark = h("i", {class: "dh-truth", hidden: true});
    this.body.append(h("span", {class: "dh-line"}, this.input, this.mark), this.shown);
  }

  choice() {
    this.buttons = this.about.options.map(option => button(option, option, () => {
      this.value = option;
      for (const b of this.buttons) b.setAttribute("aria-pressed", String(b.textContent === option));
    }, {"aria-pressed": String(this.value === option)}));
    this.body.append(...this.buttons);
  }

  curve() {
    this.value ??= this.about.x.map(() => null);
    this.line = h("path", {class: "dh-mine"});
    this.line_of_truth = h("path", {class: "dh-flips", "stroke-width": 3});
    const {low, high, x} = this.about;
    const words = [[low, TALL - 2, 2], [high, 12, 2]].map(([v, y, at]) => h("text", {x: at, y}, v));
    this.plot = h("svg", {viewBox: `0 0 ${ACROSS} ${TALL + 20}`, class: "dh-chart dh-draw", role: "img",
      "aria-label": "draw your guess from left to right", onpointerdown: e => {
        if (this.settled) return;
        this.plot.setPointerCapture(e.pointerId);
        this.held = true;
        this.stroke(e);
      }, onpointermove: e => this.held && this.stroke(e), onpointerup: () => { this.held = false; }},
      h("rect", {width: ACROSS, height: TALL, class: "dh-sheet"}), words, this.line, this.line_of_truth,
      h("text", {x: 2, y: TALL + 15}, x[0]),
      h("text", {x: ACROSS, y: TALL + 15, "text-anchor": "end"}, x[x.length - 1]));
    this.body.append(this.plot);
    this.path(this.line, this.value);
  }

  stroke(event) {
    const box = this.plot.getBoundingClientRect(), {x, low, high} = this.about;
    const part = (event.clientX - box.left) / box.width, level = (event.clientY - box.top) / box.height;
    const place = Math.round(part * (x.length - 1));
    if (place < 0 || place >= x.length) return;
    const value = high - Math.min(level * (TALL + 20) / TALL, 1) * (high - low);
    // A quick hand jumps over places: the ones between get the line's values.
    const from = this.last ?? place, by = Math.sign(place - from) || 1, old = this.value[from] ?? value;
    for (let i = from; i !== place + by; i += by)
      this.value[i] = from === place ? value : old + (value - old) * (i - from) / (place - from);
    this.last = place;
    this.path(this.line, this.value);
  }

  path(line, values) {
    const {low, high, x} = this.about;
    const points = values.map((v, i) => (v === null ? null
      : `${i / (x.length - 1) * ACROSS} ${TALL * (1 - (v - low) / (high - low))}`)).filter(p => p !== null);
    line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
  }

  settle() {
    if (this.value === null || (this.about.x && this.value.includes(null)))
      return void (this.answer.textContent = this.about.x ? "Draw from one end to the other first."
        : "Choose one first.");
    this.settled = true;
    this.model.set("guess", this.value);
    this.model.save_changes();
    for (const e of [this.commit, this.input, ...this.buttons ?? []]) if (e) e.disabled = true;
    this.show();
  }

  // Guess and truth together, once there are both.
  show() {
    const truth = this.model.get("truth"), {unit, low, high} = this.about;
    if (!this.settled) return;
    if (truth === null || truth === undefined)
      return void (this.answer.textContent = "Noted. Run the next cell to see.");
    if (this.about.x) {
      this.path(this.line_of_truth, truth);
      const off = truth.reduce((sum, v, i) => sum + Math.abs(v - this.value[i]), 0) / truth.length;
      this.answer.textContent = `On average you are ${+off.toFixed(2)} away.`;
    } else if (this.about.options) {
      for (const b of this.buttons) b.classList.toggle("dh-true", b.textContent === truth);
      this.answer.textContent = this.value === truth ? `✓ It is “${truth}”, as you said.`
        : `✗ You said “${this.value}”; it is “${truth}”.`;
    } else {
      this.mark.hidden = false;
      this.mark.style.left = `calc(8px + (100% - 16px) * ${(truth - low) / (high - low)})`;
      this.answer.textContent = `You said ${+this.value.toFixed(2)}, it is ${+truth.toFixed(2)} ${unit}`;
    }
  }
}
