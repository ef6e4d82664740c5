// The heatmap explorer: where the network looks, on the query as it is turned and on one of its hits.

import {Chart, button, chooser, field, h, mount, put} from "./parts.js";
import {connect, picture} from "./source.js";
import {Stage, nearest} from "./stage.js";

const SIDE = 256, ROUND = 30;  // pixels of a map; degrees between the angles of "once around"

// Show a picture file in a canvas, or nothing where there is none; an image would flicker.
async function fill(canvas, file) {
  const picture = file.byteLength && await createImageBitmap(new Blob([file]));
  canvas.width = canvas.height = SIDE;  // empties it
  if (picture) canvas.getContext("2d").drawImage(picture, 0, 0, SIDE, SIDE);
}

export class HeatmapExplorer {
  constructor(root, model) {
    const source = connect(model), {about} = source;
    Object.assign(this, {source, model, followed: new Map(), busy: false});
    this.view = Object.fromEntries(["subject", "place", "angle", "mirrored"].map(n => [n, model.get(n)]));
    this.stage = new Stage([], this.view, (angle, mirrored) => this.set({angle, mirrored}));
    this.hit = h("img", {alt: ""});
    this.maps = ["query", "hit"].map(of => h("div.dh-heat", {role: "img",
      "aria-label": `heatmap of the ${of}`}, h("canvas"), h("canvas")));
    this.stage.disc.append(this.maps[0]);
    this.subject = chooser(about.subjects.map(s => [s]), subject => this.set({subject}));
    const strength = h("input", {type: "range", min: 0, max: 1, step: 0.05, value: 0.6,
      oninput: () => root.style.setProperty("--heat", strength.value)});
    const ids = about.query.map(({id, label}) => [id, `${id} (${label})`]);
    this.query = chooser([[""], ...ids], id => id && source.ask({origin: "id", id}));
    this.hits = h("div.dh-trail", {role: "group", "aria-label": "hits"});
    this.names = [h("p.dh-query"), h("p.dh-query")];
    this.scores = h("p.dh-scores", {"aria-live": "polite"});
    this.chart = new Chart("Does the map turn with the lesion?", [280, 80],
      [0, 90, 180, 270, 360].map(a => `${a}°`), [-1, 0, 1]);
    this.curve = this.chart.path({class: "dh-mine"});
    this.dots = this.chart.path({class: "dh-mine dh-points"}, true);
    this.alert = h("div.dh-alert", {role: "alert"});
    mount(root,
      h("div.dh-controls", field("map", this.subject), field("opacity", strength), field("query", this.query)),
      h("div.dh-main.dh-heats",
        h("div", this.stage.el, this.names[0]),
        h("div", h("div.dh-hit-map", this.hit, this.maps[1]), this.names[1], this.hits),
        h("div.dh-side", this.scores, this.chart.el,
          button("turn it once around", "compare the map at every 30 degrees", () => this.round()),
          h("p.dh-hint", "The curve: correlation of the map with the unturned image's map, turned. " +
            "For teaching and research. Not a diagnosis."))),
      this.alert);
    source.start({onquery: query => this.arrive(query), onmap: (view, files) => this.receive(view, files),
      onerror: text => this.say(text)});
  }

  // An error also ends a turn around: nothing waits for a map any more.
  say(text) {
    this.busy = false;
    this.next = null;
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
    this.again = this.busy;
    if (this.busy) return;
    this.busy = true;
    this.model.send({kind: "map", ...this.view});
  }

  arrive(query) {
    this.stage.picture(query, `query ${query.id}: ${query.label}`);
    this.names[0].textContent = `${query.label}, ${query.id}`;
    this.query.value = query.origin === "query" ? query.id : "";
    if (this.asked) Object.assign(this.view, {angle: 0, mirrored: false, place: 0});
    this.asked = query;
    this.pose();
    this.ask();
  }

  // The lesion follows the hand; the map that was computed last is turned along until the next comes.
  pose() {
    const {angle, mirrored} = this.view, last = this.shown?.asked;
    this.stage.show(nearest(this.view));
    const by = last && last.mirrored === mirrored ? last.angle - angle : 0;
    this.maps[0].style.transform = `rotate(${by}deg)`;
  }

  receive(view, [heat, hitHeat, outline, hitOutline, hitPicture]) {
    [[heat, outline], [hitHeat, hitOutline]].forEach((layers, i) =>
      layers.forEach((layer, n) => fill(this.maps[i].children[n], layer)));
    URL.revokeObjectURL(this.hit.src);
    this.hit.src = picture(hitPicture);
    const hit = view.hits[view.place];
    this.busy = false;
    this.shown = view;
    this.hit.alt = `hit ${view.place + 1}: ${hit.label}, ${hit.id}`;
    this.names[1].textContent = `hit ${view.place + 1}: ${hit.label} ${hit.right ? "✓" : "✗"}, ${hit.id}`;
    this.hits.replaceChildren(...view.hits.map(({position, label, right}, i) =>
      button([this.source.thumb("database", position)], `hit ${i + 1}: ${label} ${right ? "right" : "wrong"}`,
        () => this.set({place: i}), {class: "dh-thumb", "aria-current": String(i === view.place)})));
    this.subject.value = view.asked.subject;
    this.follow(view);
    this.pose();
    this.words();
    if (this.again) this.ask();
    else this.next?.();
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

  // The curve of one map: how well it has followed at the angles where it has been computed. For a match, each
  // angle's map and the unturned image's are those of the hit that stands at this place there.
  follow({follows, place, asked: {subject, mirrored, angle}}) {
    const key = [this.asked.id, subject, mirrored, subject.startsWith("match") ? place : ""].join();
    if (this.key !== key) this.followed = new Map(mirrored ? [] : [[0, 1], [360, 1]]);
    this.key = key;
    if (follows !== null) for (const a of angle ? [angle] : [0, 360]) this.followed.set(a, follows);
    const all = [...this.followed].sort(([a], [b]) => a - b);
    for (const draw of [this.curve, this.dots]) draw(all.map(([a, v]) => [a / 360, (v + 1) / 2]));
    this.chart.el.ariaLabel = "correlation with the unturned map: " +
      all.map(([a, v]) => `${v.toFixed(2)} at ${a}°`).join(", ");
  }

  // Turn to each angle and wait for its map; ends where it began, or with another query.
  async round() {
    if (this.next) return;
    const began = this.view.angle, query = this.asked;
    for (let angle = ROUND; angle <= 360; angle += ROUND) {
      const done = new Promise(resolve => { this.next = resolve; });
      this.set({angle: angle % 360});
      await done;
      if (this.asked !== query) break;
    }
    this.next = null;
    if (this.asked === query) this.set({angle: began});
  }
}
