// One module for all widgets: anywidget calls render(), a page without a kernel calls page().

import {Explorer} from "./explorer.js";
import {Guess} from "./guess.js";
import {HeatmapExplorer} from "./heat.js";
import {LossExplorer} from "./loss.js";
import {connect, stored} from "./source.js";

const views = {
  retrieval: (el, model) => new Explorer(el, connect(model)),
  heat: (el, model) => new HeatmapExplorer(el, connect(model)),
  loss: (el, model) => new LossExplorer(el, model),
  guess: (el, model) => new Guess(el, model),
};

export function render({model, el}) {
  views[model.get("kind")](el, model);
  return () => model.off();  // when the cell's output goes: all that this view listens to
}

export const page = (el, data) => views.retrieval(el, stored(data));
export {Index} from "./search.js";

export default {render};
