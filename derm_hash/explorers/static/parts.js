// What all views are made of: elements and colours.

const SVG = new Set(["svg", "path", "circle", "line", "g", "text", "rect", "title"]);
export const STEP = 5, TURNS = 72;  // degrees between encoded orientations, and how many there are
export const DISC = 2 * TURNS;      // the unturned query, cut to the disc that other angles show
export const quiet = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// An element with attributes, listeners (on...) and children. Text becomes text nodes, never markup.
export function h(tag, attributes = {}, ...children) {
  const e = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.flat().filter(child => child !== null && child !== undefined));
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

export function chooser(options, onchange) {
  const select = h("select", {onchange: () => onchange(select.value)});
  for (const [text, value] of options) select.append(h("option", {value}, text));
  return select;
}

// Colours of the style sheet's light theme, for canvases; in the dark one it inverts them.
export const LOW = [227, 231, 238], HIGH = [52, 67, 94], ACCENT = [194, 65, 12];
export const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);

export function save(content, type, name) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], {type}));
  h("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
