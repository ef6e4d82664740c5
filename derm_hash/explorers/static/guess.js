// A guess before the answer: a number, a choice, or a curve drawn with the finger.

import {Chart, button, h, mount, report} from "./parts.js";

export class Guess {
  constructor(root, model) {
    const about = model.get("about");
    Object.assign(this, {root, model, about, value: model.get("guess")});
    this.body = h("div.dh-guess-body");
    this.answer = h("p.dh-answer", {"aria-live": "polite"});
    mount(root, h("div.dh-guess", h("p.dh-question", about.question), this.body,
      button("That is my guess", "commit the guess", () => this.settle()), this.answer));
    // What shows the truth, and returns what is said of it.
    this.reveal = about.options ? this.choice() : about.x ? this.curve() : this.number();
    model.on("change:truth", () => this.show());
  }

  number() {
    const {low, high, unit} = this.about, step = high - low > 2 ? 1 : 0.01;
    const shown = h("output"), mark = h("i.dh-truth", {hidden: true});
    const take = value => {
      this.value = value;
      shown.textContent = `${+value.toFixed(2)} ${unit}`;
    };
    take(this.value ?? Math.round((low + high) / 2 / step) * step);
    const input = h("input", {type: "range", min: low, max: high, step, value: this.value,
      "aria-label": "guess", oninput: () => take(+input.value)});
    this.body.append(h("span.dh-line", input, mark), shown);
    return truth => {
      mark.hidden = false;
      mark.style.setProperty("--share", (truth - low) / (high - low));
      return `You said ${+this.value.toFixed(2)}, it is ${+truth.toFixed(2)} ${unit}`;
    };
  }

  choice() {
    const buttons = this.about.options.map(option => button(option, option, () => {
      this.value = option;
      for (const each of buttons) each.ariaPressed = each.textContent === option;
    }, {"aria-pressed": String(this.value === option)}));
    this.missing = "Choose one first.";
    this.body.append(...buttons);
    return truth => {
      for (const each of buttons) each.classList.toggle("dh-true", each.textContent === truth);
      return this.value === truth ? `✓ It is “${truth}”, as you said.`
        : `✗ You said “${this.value}”; it is “${truth}”.`;
    };
  }

  curve() {
    const {low, high, x} = this.about;
    const chart = new Chart("your guess: draw from left to right, or use the arrow keys", [400, 180],
      [x[0], x.at(-1)], [low, high]);
    const mine = chart.path({class: "dh-mine"}), right = chart.path({class: "dh-path", "stroke-width": 3});
    const draw = (path, values) => path(values.map((v, i) => [i / (x.length - 1), (v - low) / (high - low)])
      .filter((_, i) => values[i] !== null));
    const stroke = event => {
      if (this.settled || !chart.el.hasPointerCapture(event.pointerId)) return;
      const [along, level] = chart.shares(event);
      this.trace(Math.round(along * (x.length - 1)), low + level * (high - low));
      draw(mine, this.value);
    };
    chart.el.classList.add("dh-draw");
    chart.el.addEventListener("pointerdown", event => {
      chart.el.setPointerCapture(event.pointerId);
      this.last = null;
      stroke(event);
    });
    chart.el.addEventListener("pointermove", stroke);
    chart.el.tabIndex = 0;
    chart.el.addEventListener("keydown", event => {
      const along = {ArrowLeft: -1, ArrowRight: 1}[event.key] ?? 0, up = {ArrowUp: 1, ArrowDown: -1}[event.key] ?? 0;
      if (this.settled || (!along && !up)) return;
      const at = this.last ?? 0, level = (this.value[at] ?? (low + high) / 2) + up * (high - low) / 20;
      this.trace(Math.min(Math.max(at + along, 0), x.length - 1), Math.min(Math.max(level, low), high));
      draw(mine, this.value);
      event.preventDefault();
    });
    this.value ??= x.map(() => null);
    this.missing = "Draw from one end to the other first.";
    this.body.append(chart.el);
    draw(mine, this.value);
    return truth => {
      draw(right, truth);
      const off = truth.reduce((sum, v, i) => sum + Math.abs(v - this.value[i]), 0) / x.length;
      return `On average you are ${+off.toFixed(2)} away.`;
    };
  }

  // A quick hand jumps over places: the ones between get the line's values.
  trace(place, value) {
    const from = this.last ?? place, by = Math.sign(place - from) || 1, old = this.value[from] ?? value;
    for (let i = from; i !== place + by; i += by)
      this.value[i] = from === place ? value : old + (value - old) * (i - from) / (place - from);
    this.last = place;
  }

  settle() {
    if ([this.value].flat().includes(null)) {
      this.answer.textContent = this.missing;
      return;
    }
    this.settled = true;
    report(this.model, {guess: this.value});
    for (const control of this.root.querySelectorAll("button, input")) control.disabled = true;
    this.show();
  }

  // Guess and truth together, once there are both.
  show() {
    const truth = this.model.get("truth");
    if (this.settled)
      this.answer.textContent = truth === null ? "Noted. Run the next cell to see." : this.reveal(truth);
  }
}
