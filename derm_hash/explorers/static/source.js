// Messages between an explorer and its kernel, or what stands in for a kernel in a page without one.

import {DISC, h} from "./parts.js";

const bytes = view => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
export const floats = view => new Float32Array(bytes(view).slice().buffer);
export const picture = view => URL.createObjectURL(new Blob([view]));

// model: a widget's model. The explorer starts it with what is done with answers: onquery, oncodes,
// onfamiliar, onmap and onerror.
export function connect(model) {
  const about = model.get("about"), source = {about};
  const pictures = {query: [], database: []}, wanted = {query: [], database: []};
  let query = null;

  // Write codes of some orientations where they belong: rows (o * bits) of the whole orbit.
  const fill = (known, codes) => {
    about.models.forEach(({bits}, m) => {
      const found = floats(codes[m]);
      query.codes[m] ??= new Float32Array((DISC + 1) * bits);
      known.forEach((o, i) => query.codes[m].set(found.subarray(i * bits, (i + 1) * bits), o * bits));
    });
    for (const o of known) query.known[o] = 1;
  };
  // The kernel encodes a part at a time, so that a new query never waits for an old one.
  const more = rest =>
    model.send({kind: rest.length ? "more" : "familiar", serial: query.serial, rest});
  const answers = {
    error: ({text}) => source.onerror(text),
    map: (view, buffers) => source.onmap(view, buffers),
    thumbs: ({origin, positions}, buffers) =>
      positions.forEach((p, i) =>
        (pictures[origin][p] ??= Promise.withResolvers()).resolve(picture(buffers[i]))),
    query({about: row, known, rest, serial}, [shown, seen, ...codes]) {
      query = {...row, serial, picture: picture(shown), seen: picture(seen), codes: [],
        known: new Uint8Array(DISC + 1), familiar: null, complete: known.length + rest.length > DISC};
      fill(known, codes);
      source.onquery(query);
      if (about.models.length) more(rest);
    },
    codes({serial, known, rest}, codes) {
      // All views of an explorer get an answer that one of them has asked for, so some come twice.
      if (serial !== query?.serial || known.every(o => query.known[o])) return;
      fill(known, codes);
      source.oncodes();
      more(rest);
    },
    familiar({serial, familiar}) {
      if (serial === query?.serial) source.onfamiliar(query.familiar = familiar);
    },
  };
  const listen = (content, buffers) => answers[content.kind]?.(content, buffers);

  source.ask = question => model.send({kind: "ask", ...question});
  // The first query comes with the widget; for another view of it later, the kernel is asked.
  source.start = handlers => {
    Object.assign(source, handlers);
    model.on("msg:custom", listen);
    const beginning = model.get("start");
    for (const [content, buffers] of beginning) listen(content, buffers);
    if (!beginning.length) source.ask({origin: "start"});
  };
  source.upload = async file => {
    if (file.size > about.most_bytes)
      return source.onerror(`${file.name} has more than the ${about.most_bytes / 1e6} MB that are ` +
        "taken: make it smaller first");
    model.send({kind: "upload", name: file.name}, undefined, [await file.arrayBuffer()]);
  };
  // The small picture of an image. Those that are not here yet are asked for together, and once.
  source.thumb = (origin, position, image = h("img", {alt: ""})) => {
    if (!pictures[origin][position]) {
      pictures[origin][position] = Promise.withResolvers();
      if (!wanted[origin].length) setTimeout(() =>
        model.send({kind: "thumbs", origin, positions: wanted[origin].splice(0)}));
      wanted[origin].push(position);
    }
    pictures[origin][position].promise.then(url => { image.src = url; });
    return image;
  };
  return source;
}

// A model whose kernel is what derm_hash.explorers.page has written into the page.
export function stored({traits: state, known, ...parts}) {
  const decoded = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const {about} = state;
  let answer, asked;
  const kernel = {
    ask({origin, position = 0, id}) {
      const is = row => row.id === id || row.name === id;
      if (origin === "start") origin = "query";
      if (origin === "id") {
        origin = about.query.some(is) ? "query" : "database";
        position = about[origin].findIndex(is);
      }
      if (position < 0) {
        const text = `There is no image ${id} on this page: write an id as it stands with a picture`;
        return answer({kind: "error", text});
      }
      asked = parts[origin][position];
      const row = {...about[origin][position], origin, position}, image = decoded(asked.picture);
      answer({kind: "query", about: row, known: known[origin], rest: []},
        [image, image, ...asked.codes.map(decoded)]);
    },
    familiar: ({serial}) => answer({kind: "familiar", serial, familiar: asked.familiar}),
    thumbs: ({origin, positions}) => answer({kind: "thumbs", origin, positions},
      positions.map(p => decoded(parts[origin][p].picture))),
  };
  const values = {start: [], ...state, codes: state.codes.map(decoded)};
  return {get: name => values[name], set() {}, save_changes() {},
    on: (event, listen) => { if (event === "msg:custom") answer = listen; },
    send: content => kernel[content.kind](content)};
}
