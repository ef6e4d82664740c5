// The lesion that is turned by hand, and around it a ring that shows what turning does to the code.

import {STEP, TURNS, button, h, put} from "./parts.js";

const MIDDLE = 200, BAND = 30, FIRST = 128;  // of the drawing's 400 units
const clean = angle => ((Math.round(angle) % 360) + 360) % 360;

const pose = (angle, mirrored) => `rotate(${-angle}deg) scaleX(${mirrored ? -1 : 1})`;

// A point at a radius and an angle in degrees, counter-clockwise from the top.
const at = (radius, angle) => {
  const a = (angle + 90) * Math.PI / 180;
  return `${(MIDDLE + radius * Math.cos(a)).toFixed(1)} ${(MIDDLE - radius * Math.sin(a)).toFixed(1)}`;
};

export class Stage {
  // onturn(angle in degrees, mirrored) is called while the hand moves; models: [{name, bits}].
  constructor(models, onturn) {
    Object.assign(this, {models, onturn, angle: 0, mirrored: false});
    this.image = h("img", {alt: "", draggable: "false"});
    this.disc = h("div", {class: "dh-disc"}, this.image);
    this.network = h("img", {alt: "what the network sees"});
    this.seen = h("div", {class: "dh-seen"}, this.network);
    this.knob = h("div", {class: "dh-knob"});
    this.flips = models.map(() => h("path", {class: "dh-flips"}));
    this.kept = models.map(() => h("path", {class: "dh-changed"}));
    const circles = models.map((_, m) =>
      h("circle", {cx: MIDDLE, cy: MIDDLE, r: FIRST + m * (BAND + 4), class: "dh-base"}));
    this.ring = h("svg", {viewBox: "0 0 400 400", class: "dh-ring", "aria-hidden": "true"},
      circles, this.flips, this.kept);
    this.wheel = h("div", {
      class: "dh-wheel", tabindex: 0, role: "slider", "aria-label": "turn the lesion",
      "aria-valuemin": 0, "aria-valuemax": 359, onkeydown: event => this.key(event),
      onpointerdown: event => this.grab(event), onpointermove: event => this.drag(event),
      onpointerup: () => { this.held = null; }, onpointercancel: () => { this.held = null; },
    }, this.ring, this.knob, this.disc);
    this.degrees = h("output", {class: "dh-degrees"});
    this.mirror = button("mirror", "mirror the lesion (M)", () => this.turn(this.angle, !this.mirrored),
      {"aria-pressed": "false"});
    this.bar = h("div", {class: "dh-turning"}, this.degrees,
      button("↺ 90°", "turn by 90 degrees (R)", () => this.turn(this.angle + 90)),
      this.mirror, button("upright", "back to 0 degrees", () => this.turn(0, false)));
    this.el = h("div", {class: "dh-stage"}, this.wheel, this.seen, this.bar);
  }

  // Two keys may come before a repaint: the second goes on from the first.
  turn(angle, mirrored = this.mirrored) {
    Object.assign(this, {angle: clean(angle), mirrored});
    this.onturn(this.angle, mirrored);
  }

  key(event) {
    const by = event.shiftKey ? 15 : 1, {angle, mirrored} = this, more = [angle + by], less = [angle - by];
    const turns = {arrowleft: more, arrowup: more, arrowright: less, arrowdown: less, r: [angle + 90],
      m: [angle, !mirrored], home: [0, false]};
    const turn = turns[event.key.toLowerCase()];
    if (!turn || event.ctrlKey || event.metaKey || event.altKey) return;
    this.turn(...turn);
    event.preventDefault();
  }

  pointed(event) {
    const box = this.wheel.getBoundingClientRect();
    const x = event.clientX - box.left - box.width / 2, y = event.clientY - box.top - box.height / 2;
    return Math.atan2(-y, x) * 180 / Math.PI;
  }

  grab(event) {
    if (event.button) return;
    this.wheel.setPointerCapture(event.pointerId);
    this.held = {pointer: event.pointerId, from: this.pointed(event), angle: this.angle};
    this.wheel.focus({preventScroll: true});
    event.preventDefault();
  }

  drag(event) {
    if (this.held?.pointer !== event.pointerId) return;
    this.turn(this.held.angle + this.pointed(event) - this.held.from);
  }

  picture(query, words) {
    this.image.src = query.picture;
    this.image.alt = words;
    this.network.src = query.seen;
  }

  // seen: the encoded orientation that is nearest to the angle.
  show(angle, mirrored, seen) {
    Object.assign(this, {angle, mirrored});
    this.image.style.transform = pose(angle, mirrored);
    this.knob.style.transform = pose(angle, false);
    put(this.degrees, `${angle}°`);
    this.mirror.setAttribute("aria-pressed", String(mirrored));
    this.wheel.setAttribute("aria-valuenow", angle);
    this.wheel.setAttribute("aria-valuetext", `${angle} degrees${mirrored ? ", mirrored" : ""}`);
    const turned = seen % TURNS * STEP;  // between quarter turns the network sees a disc
    this.network.style.transform = pose(turned, seen >= TURNS);
    this.network.classList.toggle("dh-cut", turned % 90 !== 0);
  }

  // For each model what is known of each angle, as Explorer.look() says it.
  rings(models) {
    models.forEach((angles, m) => {
      const inner = FIRST + m * (BAND + 4), bars = [], line = [];
      angles.forEach(({flips, kept, before, code}, t) => {
        const share = Math.min(1, 2 * flips / code.length), angle = t * STEP;  // one half fills the band
        if (flips) bars.push(`M${at(inner, angle)}L${at(inner + BAND * share, angle)}`);
        if (kept < before) line.push(`M${at(inner - 3, angle - 1.8)}A${inner - 3} ${inner - 3} 0 0 0 ` +
          at(inner - 3, angle - 1.8 + 3.6 * (1 - kept / before)));
      });
      this.flips[m].setAttribute("d", bars.join(""));
      this.kept[m].setAttribute("d", line.join(""));
    });
  }
}
