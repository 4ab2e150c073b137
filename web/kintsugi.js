/** The frontend extension: which node gets what below its widgets. The only module here that registers anything. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { compareSlider } from "./compare_slider.js";
import { latestOutput, nodeOfExecution, showBelow, takeOverPictures } from "./node_display.js";
import { previewStrip } from "./preview_strip.js";
import { qualityChart } from "./quality_chart.js";

/** A node class, the key of its `ui` that is drawn, and what draws it. */
const DISPLAYS = {
  KintsugiCompare: { key: "kintsugi_compare", display: compareSlider, height: 180, takesPictures: true, atOnce: true },
  KintsugiMeasureQuality: { key: "kintsugi_quality", display: qualityChart, height: 48 },
  KintsugiSelectByQuality: { key: "kintsugi_quality", display: qualityChart, height: 48 },
};
const SAMPLER = "KintsugiAdaResSampler";

/** Nodes with a display: what brings it up to date with what the node showed last. @type {WeakMap<object, () => void>} */
const refreshers = new WeakMap();
/** @type {WeakMap<object, ReturnType<typeof previewStrip>>} */
const strips = new WeakMap();
let warned = false;

/** Run `step`; whatever goes wrong costs the display, never the node. @param {() => void} step */
function orWarn(step) {
  try {
    step();
  } catch (error) {
    if (!warned) console.warn("Kintsugi cannot draw below a node; the node itself works.", error);
    warned = true;
  }
}

/** @param {import("./node_display.js").GraphNode} node */
function prepare(node) {
  const plan = DISPLAYS[node.comfyClass];
  if (!plan) return;
  let shown, display;
  const show = (output) => {
    const entries = output?.[plan.key];
    if (entries && entries !== shown) {
      shown = entries;
      ensure().show(entries);
    }
  };
  const ensure = () => {
    if (!display) {
      display = plan.display(api);
      showBelow(app, node, plan.key, display.element, plan.height);
    }
    return display;
  };
  if (plan.atOnce) ensure();
  if (plan.takesPictures) takeOverPictures(node);
  const { onExecuted, onDrawBackground } = node;
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    orWarn(() => show(output));
  };
  const refresh = () => show(latestOutput(app, node));
  refreshers.set(node, refresh);
  // A graph that comes back (another tab, a finished job) gets its outputs without a message; drawing is when that shows.
  node.onDrawBackground = function (...drawing) {
    if (!plan.takesPictures) onDrawBackground?.apply(this, drawing);
    orWarn(refresh);
  };
}

/** @param {{blob: Blob, displayNodeId: string, promptId?: string, jobId?: string}} preview */
function collect({ blob, displayNodeId, promptId, jobId }) {
  const node = nodeOfExecution(app, displayNodeId);
  if (node?.comfyClass !== SAMPLER) return;
  if (!strips.has(node)) {
    const strip = previewStrip();
    showBelow(app, node, "kintsugi_previews", strip.element, 200);
    takeOverPictures(node);
    strips.set(node, strip);
  }
  strips.get(node).add(blob, promptId ?? jobId ?? "");
}

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./kintsugi.css", import.meta.url).href;
document.head.append(style);

api.addEventListener("b_preview_with_metadata", ({ detail }) => orWarn(() => collect(detail)));

app.registerExtension({
  name: "kintsugi.displays",
  nodeCreated: (node) => orWarn(() => prepare(node)),
  // Nodes that are drawn by the page and not on the canvas hear of returned outputs here.
  afterLoadGraph: () => app.graph.nodes.forEach((node) => orWarn(() => refreshers.get(node)?.())),
});
