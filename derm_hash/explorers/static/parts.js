// What all views are made of: elements and colours.

const SVG = new Set(["svg", "path", "circle", "line", "g", "text", "rect", "title"]);
export const STEP = 5, TURNS = 72;  // degrees between encoded orientations, and how many there are
export const DISC = 2 * TURNS;      // the unturned query, cut to the disc that other angles show
export const quiet = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const LEFT = 44, TOP = 26;  // of a chart's axes, in pixels

// An element with attributes, listeners (on...) and children. Text becomes text nodes, never markup.
export function h(tag, attributes = {}, ...children) {
  const e = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.flat(Infinity).filter(child => ![null, undefined, false].includes(child)));
  return e;
}

// Set a text, if it is another one than before.
export function put(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

// Give an element the style sheet, and switch off Jupyter's own keys (R: a raw cell) where its focus is.
export function mount(root) {
  root.classList.add("dh");
  root.addEventListener("focusin", ({target}) => { target.dataset.lmSuppressShortcuts = "true"; });
}

export const button = (text, title, onclick, more = {}) =>
  h("button", {type: "button", title, onclick, ...more,
    "aria-label": typeof text === "string" && text !== title ? `${text}: ${title}` : title}, text);

// A labelled control.
export function field(name, control) {
  control.setAttribute("aria-label", name);
  return h("label", {class: "dh-field"}, h("span", {}, name), control);
}

// Several controls under one name.
export const group = (name, ...controls) =>
  h("div", {class: "dh-field"}, h("span", {}, name), h("span", {class: "dh-group"}, ...controls));

export function chooser(options, onchange) {
  const select = h("select", {onchange: () => onchange(select.value)});
  for (const [text, value] of options) select.append(h("option", {value}, text));
  return select;
}

// Colours of the style sheet's light theme, for canvases; in the dark one it inverts them.
export const LOW = [227, 231, 238], HIGH = [52, 67, 94], ACCENT = [194, 65, 12];
export const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);

// A line on a slider, that is, in the same box as one of its width, at a share of its scale.
export const marked = (line, share) => {
  line.style.left = `calc(8px + (100% - 16px) * ${share})`;
};

export function save(content, type, name) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], {type}));
  h("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// A chart in SVG, wide * high pixels: a title, numbers xs below and ys at the left. Both go from one end
// of an axis to the other in equal steps.
export class Chart {
  constructor(title, [wide, high], xs, ys) {
    Object.assign(this, {wide, high, box: [0, 0, LEFT + wide + 20, TOP + high + 24]});
    const rows = ys.map((_, i) => this.at(0, i / (ys.length - 1))[1]);
    this.numbers = rows.map(y => h("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}));
    this.el = h("svg", {viewBox: this.box.join(" "), width: this.box[2], class: "dh-chart", role: "img",
      "aria-label": title}, h("text", {y: 14, class: "dh-title"}, title),
      rows.map(y => h("line", {class: "dh-base", x1: LEFT, x2: LEFT + wide, y1: y, y2: y})), this.numbers,
      xs.map((x, i) => h("text", {x: LEFT + wide * i / (xs.length - 1), y: TOP + high + 18,
        "text-anchor": "middle"}, x)));
    this.scale(ys);
  }

  // Write other numbers at the left.
  scale(ys) {
    ys.forEach((y, i) => put(this.numbers[i], +y.toPrecision(2)));
  }

  // Where a point lies in pixels; x and y are shares of the axes.
  at(x, y) { return [LEFT + this.wide * x, TOP + this.high * (1 - y)]; }

  // The shares of the axes at which a pointer is.
  shares({clientX, clientY}) {
    const {left, top, width} = this.el.getBoundingClientRect(), unit = this.box[2] / width;
    return [((clientX - left) * unit - LEFT) / this.wide, 1 - ((clientY - top) * unit - TOP) / this.high]
      .map(v => Math.min(Math.max(v, 0), 1));
  }

  // Lead a path through points.
  draw(path, points) {
    path.setAttribute("d", points.length ? `M${points.map(([x, y]) => this.at(x, y)).join("L")}` : "");
  }
}
