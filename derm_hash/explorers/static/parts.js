// What all views are made of: elements, colours, and sources of data with or without a kernel.

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

// A colour of the style sheet as [r, g, b], whatever theme is on.
export function colour(root, name) {
  const probe = root.appendChild(h("i", {style: `color: var(${name})`}));
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

export const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
export const css = c => `rgb(${c.map(Math.round).join(" ")})`;
export const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));

// Call back when the page changes between light and dark; returns a function that stops it.
export function onTheme(callback) {
  const query = matchMedia("(prefers-color-scheme: dark)"), watch = new MutationObserver(callback);
  query.addEventListener("change", callback);
  watch.observe(document.body, {attributes: true, attributeFilter: ["class", "data-jp-theme-light"]});
  return () => { query.removeEventListener("change", callback); watch.disconnect(); };
}

export function save(content, type, name) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], {type}));
  h("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const bytes = view => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
const floats = view => new Float32Array(bytes(view).slice().buffer);
const picture = view => URL.createObjectURL(new Blob([view], {type: "image/jpeg"}));
const fromText = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

// Write codes of some orientations where they belong: rows (o * bits) of the whole orbit.
function fill(query, known, codes, models) {
  models.forEach(({bits}, m) => {
    query.codes[m] ??= new Float32Array((DISC + 1) * bits);
    known.forEach((o, i) => query.codes[m].set(codes[m].subarray(i * bits, (i + 1) * bits), o * bits));
  });
  for (const o of known) query.known[o] = 1;
}

const empty = about => ({...about, codes: [], known: new Uint8Array(DISC + 1), familiar: null});

// --- with a kernel ---------------------------------------------------------------------------

export function kernelSource(model) {
  const about = JSON.parse(model.get("about")), thumbs = new Map(), wanted = new Map();
  const source = {about, codes: model.get("codes").map(floats), model};
  let query = null;

  source.ask = question => model.send({kind: "ask", ...question});
  source.upload = async file => {
    if (file.size > about.most_bytes)
      return source.onerror(`${file.name} has more than the ${about.most_bytes / 1e6} MB that are ` +
        "taken: make it smaller first");
    model.send({kind: "upload", name: file.name}, undefined, [await file.arrayBuffer()]);
  };
  // Pictures are asked for together, once in a frame, and remembered.
  source.thumb = (origin, position, image) => {
    const key = `${origin}:${position}`;
    if (thumbs.has(key)) return void (image.src = thumbs.get(key));
    image.removeAttribute("src");
    if (!wanted.size) setTimeout(() => {
      const all = [...wanted.values()];
      wanted.clear();
      for (const from of ["query", "database"]) {
        const positions = [...new Set(all.filter(w => w.origin === from).map(w => w.position))];
        if (positions.length) model.send({kind: "thumbs", origin: from, positions});
      }
    });
    wanted.set(image, {origin, position});
    waiting.add({key, image, position, origin});
  };
  const waiting = new Set();
  // The kernel encodes a part at a time, so that a new query never waits for an old one.
  const more = rest => about.models.length &&
    model.send({kind: rest.length ? "more" : "familiar", serial: query.serial, rest});
  const answers = {
    error: ({text}) => source.onerror(text),
    thumbs({origin, positions}, buffers) {
      positions.forEach((p, i) => thumbs.set(`${origin}:${p}`, picture(buffers[i])));
      for (const each of waiting) {
        if (!thumbs.has(each.key)) continue;
        if (each.image.dataset.key === each.key) each.image.src = thumbs.get(each.key);
        waiting.delete(each);
      }
    },
    query({about: row, known, rest}, [shown, seen, ...codes]) {
      query = Object.assign(empty(row), {picture: picture(shown), seen: picture(seen)});
      fill(query, known, codes.map(floats), about.models);
      source.onquery(query);
      more(rest);
    },
    codes({serial, known, rest}, codes) {
      if (serial !== query?.serial) return;
      fill(query, known, codes.map(floats), about.models);
      source.oncodes();
      more(rest);
    },
    familiar({serial, familiar}) {
      if (serial === query?.serial) source.onfamiliar(query.familiar = familiar);
    },
  };
  answers.map = (view, buffers) => source.onmap(view, buffers);
  const listen = (content, buffers) => answers[content.kind]?.(content, buffers);
  model.on("msg:custom", listen);
  source.close = () => model.off("msg:custom", listen);
  return source;
}

// --- without a kernel ------------------------------------------------------------------------

// data: what derm_hash.explorers.page has written into the page.
export function pageSource(data) {
  const {about} = data, urls = text => `data:image/jpeg;base64,${text}`;
  const source = {about, codes: data.codes.map(text => floats(fromText(text)))};
  const find = ({origin, position, id}) => {
    if (origin === "query" || origin === "database") return [origin, position];
    if (origin === "start") return ["query", data.start];
    for (const part of ["query", "database"]) {
      const place = about[part].findIndex(row => row.id === id || row.name === id);
      if (place >= 0) return [part, place];
    }
    return null;
  };
  source.ask = question => {
    const found = find(question);
    if (!found) return source.onerror(`There is no image ${question.id} on this page`);
    const [origin, position] = found, row = about[origin][position];
    const query = empty({...row, origin, position, serial: `${origin}:${position}`});
    const stored = data[origin][position], known = data.known[origin];
    query.picture = query.seen = urls(stored.picture);
    fill(query, known, stored.codes.map(text => floats(fromText(text))), about.models);
    source.onquery(query);
    source.onfamiliar(query.familiar = stored.familiar);
  };
  source.thumb = (origin, position, image) => {
    const row = data[origin][position];
    image.src = row.url ??= picture(fromText(row.picture));
  };
  source.close = () => {};
  return source;
}
