// A guess before the answer: a number, a choice, or a curve drawn with the finger.

import {Chart, button, h, marked, mount} from "./parts.js";

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
  }

  number() {
    const {low, high, unit} = this.about, step = high - low > 2 ? 1 : 0.01, shown = h("output");
    const take = value => {
      this.value = value;
      shown.textContent = `${+value.toFixed(2)} ${unit}`;
    };
    take(this.value ?? Math.round((low + high) / 2 / step) * step);
    const input = h("input", {type: "range", min: low, max: high, step, value: this.value,
      "aria-label": "guess", oninput: () => take(+input.value)});
    this.mark = h("i", {class: "dh-truth", hidden: true});
    this.body.append(h("span", {class: "dh-line"}, input, this.mark), shown);
  }

  choice() {
    this.buttons = this.about.options.map(option => button(option, option, () => {
      this.value = option;
      for (const b of this.buttons) b.setAttribute("aria-pressed", String(b.textContent === option));
    }, {"aria-pressed": String(this.value === option)}));
    this.body.append(...this.buttons);
  }

  curve() {
    const {low, high, x} = this.about;
    this.value ??= x.map(() => null);
    this.mine = h("path", {class: "dh-mine"});
    this.truth = h("path", {class: "dh-path", "stroke-width": 3});
    this.chart = new Chart("your guess, drawn from left to right", [400, 180], [x[0], x.at(-1)], [low, high]);
    this.chart.el.append(this.mine, this.truth);
    this.chart.el.classList.add("dh-draw");
    const {el} = this.chart;
    el.addEventListener("pointerdown", event => {
      el.setPointerCapture(event.pointerId);
      this.last = null;
      this.stroke(event);
    });
    el.addEventListener("pointermove", event => el.hasPointerCapture(event.pointerId) && this.stroke(event));
    this.body.append(el);
    this.path(this.mine, this.value);
  }

  stroke(event) {
    if (this.settled) return;
    const {x, low, high} = this.about, [along, level] = this.chart.shares(event);
    const place = Math.round(along * (x.length - 1)), value = low + level * (high - low);
    // A quick hand jumps over places: the ones between get the line's values.
    const from = this.last ?? place, by = Math.sign(place - from) || 1, old = this.value[from] ?? value;
    for (let i = from; i !== place + by; i += by)
      this.value[i] = from === place ? value : old + (value - old) * (i - from) / (place - from);
    this.last = place;
    this.path(this.mine, this.value);
  }

  path(line, values) {
    const {low, high} = this.about, end = values.length - 1;
    const points = values.map((v, i) => v !== null && [i / end, (v - low) / (high - low)]);
    this.chart.draw(line, points.filter(Boolean));
  }

  settle() {
    if (this.value === null || (this.about.x && this.value.includes(null)))
      return void (this.answer.textContent = this.about.x ? "Draw from one end to the other first."
        : "Choose one first.");
    this.settled = true;
    this.model.set("guess", this.value);
    this.model.save_changes();
    for (const e of this.commit.parentElement.querySelectorAll("button, input")) e.disabled = true;
    this.show();
  }

  // Guess and truth together, once there are both.
  show() {
    const truth = this.model.get("truth"), {unit, low, high, x, options} = this.about, mine = this.value;
    if (!this.settled) return;
    if (truth === null)
      return void (this.answer.textContent = "Noted. Run the next cell to see.");
    if (x) {
      this.path(this.truth, truth);
      const off = truth.reduce((sum, v, i) => sum + Math.abs(v - mine[i]), 0) / truth.length;
      this.answer.textContent = `On average you are ${+off.toFixed(2)} away.`;
    } else if (options) {
      for (const b of this.buttons) b.classList.toggle("dh-true", b.textContent === truth);
      this.answer.textContent = mine === truth ? `✓ It is “${truth}”, as you said.`
        : `✗ You said “${mine}”; it is “${truth}”.`;
    } else {
      this.mark.hidden = false;
      marked(this.mark, (truth - low) / (high - low));
      this.answer.textContent = `You said ${+mine.toFixed(2)}, it is ${+truth.toFixed(2)} ${unit}`;
    }
  }
}
