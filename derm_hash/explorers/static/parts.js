// What all views are made of: elements, charts and colours.

const SVG = new Set(["svg", "path", "polygon", "circle", "line", "text"]);
export const STEP = 5, TURNS = 72;  // degrees between encoded orientations, and how many there are
export const DISC = 2 * TURNS;      // the unturned query, cut to the disc that other angles show
const LEFT = 44, TOP = 26;  // of a chart's axes, in pixels

// An element such as h("p.dh-hint", {title}, "text", child): attributes, if any, listeners (on...) and
// children. Text becomes text nodes, never markup.
export function h(kind, ...children) {
  const [tag, ...names] = kind.split(".");
  const e = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  const attributes = children[0]?.constructor === Object ? children.shift() : {};
  for (const [key, value] of Object.entries({class: names.join(" ") || false, ...attributes})) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value !== false) e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.flat(Infinity).filter(child => ![null, undefined, false].includes(child)));
  return e;
}

// Set a text, if it is another one than before.
export function put(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

// Fill the element of a view, and switch off Jupyter's own keys (R: a raw cell) where its focus is.
export function mount(root, ...children) {
  root.classList.add("dh");
  root.addEventListener("focusin", ({target}) => { target.dataset.lmSuppressShortcuts = "true"; });
  root.append(...children);
}

// Let the kernel know the values of some traits.
export function report(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

export const button = (text, title, onclick, more = {}) =>
  h("button", {type: "button", title, onclick, ...more,
    "aria-label": typeof text === "string" && text !== title ? `${text}: ${title}` : title}, text);

// A labelled control.
export function field(name, control) {
  control.setAttribute("aria-label", name);
  return h("label.dh-field", h("span", name), control);
}

// Several controls under one name.
export const group = (name, ...controls) =>
  h("div.dh-field", h("span", name), h("span.dh-group", controls));

// options: values, each with its text if that is another one.
export function chooser(options, onchange) {
  const select = h("select", {onchange: () => onchange(select.value)},
    options.map(([value, text = value]) => h("option", {value}, text)));
  return select;
}

// Colours of the style sheet's light theme, for canvases; in the dark one it inverts them.
export const LOW = [227, 231, 238], HIGH = [52, 67, 94], ACCENT = [194, 65, 12];

export function save(file, name) {
  const url = URL.createObjectURL(file);
  h("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// A chart in SVG, wide * high pixels: a title, numbers xs below and ys at the left. Both go from one end
// of an axis to the other in equal steps.
export class Chart {
  constructor(title, [wide, high], xs, ys) {
    Object.assign(this, {wide, high, whole: LEFT + wide + 20});
    const rows = ys.map((_, i) => this.at(0, i / (ys.length - 1))[1]);
    this.numbers = rows.map(y => h("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}));
    this.el = h("svg.dh-chart", {viewBox: `0 0 ${this.whole} ${TOP + high + 24}`, width: this.whole, role: "img",
      "aria-label": title}, h("text.dh-title", {y: 14}, title),
      rows.map(y => h("line.dh-base", {x1: LEFT, x2: LEFT + wide, y1: y, y2: y})), this.numbers,
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
    const {left, top, width} = this.el.getBoundingClientRect(), unit = this.whole / width;
    return [((clientX - left) * unit - LEFT) / this.wide, 1 - ((clientY - top) * unit - TOP) / this.high]
      .map(v => Math.min(Math.max(v, 0), 1));
  }

  // A new path, as a function that leads it through points, or sets a dot at each.
  path(attributes, dots = false) {
    const path = this.el.appendChild(h("path", attributes));
    return points => path.setAttribute("d", points.map(([x, y], i) =>
      dots ? `M${this.at(x, y)}h0` : `${i ? "L" : "M"}${this.at(x, y)}`).join(""));
  }
}
