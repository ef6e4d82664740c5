// One module for all widgets: anywidget calls render(), a page without a kernel calls page().

import {Explorer} from "./explorer.js";
import {Guess} from "./guess.js";
import {HeatmapExplorer} from "./heat.js";
import {LossExplorer} from "./loss.js";
import {stored} from "./source.js";

const views = {retrieval: Explorer, heat: HeatmapExplorer, loss: LossExplorer, guess: Guess};

export function render({model, el}) {
  new views[model.get("kind")](el, model);
  return () => model.off();  // when the cell's output goes: all that this view listens to
}

export const page = (el, data) => new Explorer(el, stored(data));

export default {render};
