// One module for all widgets: anywidget calls render(), a page without a kernel calls page().

import {Explorer} from "./explorer.js";
import {kernelSource, pageSource} from "./parts.js";

const views = {
  retrieval: (el, model) => new Explorer(el, kernelSource(model)),
};

export function render({model, el}) {
  const view = views[model.get("kind")](el, model);
  return () => view.close?.();
}

export const page = (el, data) => new Explorer(el, pageSource(data));
export {Index} from "./search.js";

export default {render};
