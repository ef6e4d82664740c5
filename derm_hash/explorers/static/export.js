// The present view of an explorer as a table and as a picture.

import {ACCENT, HIGH, LOW, STEP, TURNS, h, save} from "./parts.js";

const COLUMNS = ["model", "query", "query_label", "angle", "mirrored", "rank", "image", "label",
  "hamming", "distance", "right", "same_lesion", "encoded_angle", "ranking", "radius", "search_in"];
const named = ({query, view: {angle, mirrored}}, ending) =>
  `${query.id}-${angle}${mirrored ? "-mirrored" : ""}.${ending}`;

// The hits of all models that are shown, as CSV with one row for each, best first.
export function exportTable(explorer) {
  const {query, view} = explorer, encoded = explorer.orientation() % TURNS * STEP, cell = value => {
    const text = String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = explorer.shownPanels().flatMap(({now, model}) =>
    now.ids.map((id, place) => {
      const {name, label, right, own} = explorer.hit(id);
      return [model.name, query.name, query.label, view.angle, view.mirrored, place + 1, name,
        label, now.hamming[place], now.distance[place].toPrecision(6), right, own, encoded, view.rank,
        view.radius, explorer.only.value];
    }));
  const lines = [COLUMNS, ...rows].map(row => row.map(cell).join(",") + "\n");
  save(new Blob(lines, {type: "text/csv"}), named(explorer, "csv"));
}

// The lesion as it is turned, and for each model its numbers, bits and hits, as a PNG file.
export function exportPicture(explorer) {
  const {query, view, about, stage} = explorer, shown = explorer.shownPanels();
  const side = 96, rows = Math.ceil(view.k / 10), height = 190 + rows * (side + 56);
  const canvas = h("canvas", {width: 1400, height: 40 + Math.max(shown.length * height, 400)});
  const pen = canvas.getContext("2d");
  const write = (text, x, y, size = 16, weight = 400, colour = "black") => {
    pen.fillStyle = colour;
    pen.font = `${weight} ${size}px system-ui, sans-serif`;
    pen.fillText(text, x, y);
  };
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.save();
  pen.setTransform(new DOMMatrix(`translate(180px, 190px) ${stage.image.style.transform}`));
  pen.beginPath();
  pen.arc(0, 0, 140, 0, 7);
  pen.clip();
  pen.drawImage(stage.image, -140, -140, 280, 280);
  pen.restore();
  write(`${query.label ?? "class not known"} ${query.id}`, 40, 368, 18, 600);
  write(`turned by ${view.angle}°${view.mirrored ? ", mirrored" : ""}. Not a diagnosis.`, 40, 392);
  write(`${view.rank} distance, ${view.radius === null ? "no radius" : `radius ${view.radius}`}, ` +
    `${explorer.only.selectedOptions[0].text}`, 40, 416);
  shown.forEach((panel, row) => {
    const {now} = panel, top = 40 + row * height, left = 380;
    write(panel.model.name || "hits", left, top + 10, 18, 600);
    write(panel.numbers.map(n => `${n.lastChild.textContent} ${n.firstChild.textContent}`).join("   "),
      left, top + 38);
    now.code.forEach((v, b) => {
      const flipped = panel.bits[b].classList.contains("dh-flipped"), bit = +(v > 0.5);
      const wide = 960 / now.code.length, x = left + b * wide;
      pen.fillStyle = `rgb(${flipped ? ACCENT : bit ? HIGH : LOW})`;
      pen.fillRect(x, top + 54, wide - 3, 26);
      write(bit, x + 0.4 * wide, top + 72, 14, 600, flipped || bit ? "white" : "black");
    });
    if (!now.ids.length) write(panel.none.textContent, left, top + 116);
    now.ids.forEach((id, place) => {
      const {label} = about.database[id], image = panel.images.get(id);
      const x = left + place % 10 * (side + 4), y = top + 100 + Math.floor(place / 10) * (side + 56);
      if (image.complete && image.naturalWidth) pen.drawImage(image, x, y, side, side);
      write(`${place + 1} ${label} ${panel.cards[place].mark.textContent}`, x, y + side + 18, 14);
      write(panel.cards[place].apart.textContent, x, y + side + 34, 12);
    });
  });
  canvas.toBlob(file => save(file, named(explorer, "png")), "image/png");
}
