// The lesion that is turned by hand, and around it a ring that shows what turning does to the code.

import {STEP, TURNS, button, h, put} from "./parts.js";

const BAND = 30;  // of a model's ring, in the drawing's 400 units
const inner = m => 128 + m * (BAND + 4);  // radius of a model's ring
const clean = angle => ((Math.round(angle) % 360) + 360) % 360;

// The orientation that is nearest to an angle, of those that are `step` degrees apart.
export const nearest = ({angle, mirrored}, step = STEP) =>
  (mirrored ? TURNS : 0) + Math.round(angle / step) * step / STEP % TURNS;

const pose = (angle, mirrored) => `rotate(${-angle}deg) scaleX(${mirrored ? -1 : 1})`;

export class Stage {
  // models: [{name, bits}]; view: the angle in degrees, and whether the lesion is mirrored, as they are now;
  // onturn(angle, mirrored) changes that, while the hand moves.
  constructor(models, view, onturn) {
    Object.assign(this, {view, onturn});
    const circles = models.map((_, m) => h("circle.dh-base", {r: inner(m)}));
    this.flips = models.map(() => h("path.dh-flips"));
    this.changed = models.map((_, m) => h("circle.dh-changed", {r: inner(m) - 3, pathLength: 360}));
    // The style sheet turns the ring: its angles run counter-clockwise from the top.
    const ring = h("svg.dh-ring", {viewBox: "-200 -200 400 400", "aria-hidden": "true"},
      circles, this.flips, this.changed);
    this.image = h("img", {alt: "", draggable: "false"});
    this.disc = h("div.dh-disc", this.image);
    this.knob = h("div.dh-knob");
    this.wheel = h("div.dh-wheel", {
      tabindex: 0, role: "slider", "aria-label": "turn the lesion", "aria-valuemin": 0, "aria-valuemax": 359,
      onkeydown: event => this.key(event), onpointerdown: event => this.grab(event),
      onpointermove: event => this.drag(event), onlostpointercapture: () => { this.held = null; },
    }, ring, this.knob, this.disc);
    this.network = h("img", {alt: "what the network sees"});
    this.degrees = h("output.dh-degrees");
    this.mirror = button("mirror", "mirror the lesion (M)", () => this.turn(view.angle, !view.mirrored));
    this.el = h("div.dh-stage", this.wheel, h("div.dh-seen", this.network),
      h("div.dh-turning", this.degrees,
        button("↺ 90°", "turn by 90 degrees (R)", () => this.turn(view.angle + 90)),
        this.mirror, button("upright", "back to 0 degrees", () => this.turn(0, false))));
  }

  turn(angle, mirrored = this.view.mirrored) { this.onturn(clean(angle), mirrored); }

  key(event) {
    const by = event.shiftKey ? 15 : 1, {angle, mirrored} = this.view, more = [angle + by], less = [angle - by];
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
    this.held = {pointer: event.pointerId, from: this.view.angle - this.pointed(event)};
    this.wheel.focus({preventScroll: true});
    event.preventDefault();
  }

  drag(event) {
    if (this.held?.pointer === event.pointerId) this.turn(this.held.from + this.pointed(event));
  }

  picture(query, words) {
    this.image.src = query.picture;
    this.image.alt = words;
    this.network.src = query.seen;
  }

  // seen: the encoded orientation that is nearest to the angle.
  show(seen) {
    const {angle, mirrored} = this.view;
    this.image.style.transform = pose(angle, mirrored);
    this.knob.style.transform = pose(angle, false);
    put(this.degrees, `${angle}°`);
    this.mirror.ariaPressed = mirrored;
    this.wheel.ariaValueNow = angle;
    this.wheel.ariaValueText = `${angle} degrees${mirrored ? ", mirrored" : ""}`;
    const turned = seen % TURNS * STEP;  // between quarter turns the network sees a disc
    this.network.style.transform = pose(turned, seen >= TURNS);
    this.network.classList.toggle("dh-cut", turned % 90 !== 0);
  }

  // looks: for each angle what Panel.look() says of it, if it is known. A bar stands for the flipped bits, where
  // one half fills the band, and a dash for the changed hits, where all fill 3.6 degrees.
  ring(m, looks) {
    const at = (radius, turn) => [Math.cos, Math.sin].map(f => radius * f(turn / TURNS * 2 * Math.PI));
    const bars = looks.map((look, turn) => {
      if (!look?.flips) return "";
      const share = Math.min(1, 2 * look.flips / look.code.length);
      return `M${at(inner(m), turn)}L${at(inner(m) + BAND * share, turn)}`;
    });
    const dashes = looks.map(look => look?.kept < look?.before ? 3.6 * (1 - look.kept / look.before) : 0);
    this.flips[m].setAttribute("d", bars.join(""));
    this.changed[m].style.strokeDasharray = dashes.map(dash => `${dash} ${STEP - dash}`).join(" ");
  }
}
