/** The frontend extension: which node gets what below its widgets. The only module here that registers anything. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { compareSlider } from "./compare_slider.js";
import { latestOutput, locatorOf, nodeOfExecution, showBelow, takeOverPictures } from "./node_display.js";
import { previewStrip } from "./preview_strip.js";
import { qualityChart } from "./quality_chart.js";

/** @typedef {import("./node_display.js").GraphNode} GraphNode */
/** @typedef {(output: Record<string, any[]> | undefined) => void} Update takes what the node showed last */

/** By class, what prepares a new node. @type {Record<string, (node: GraphNode) => Update>} */
const DISPLAYS = {
  KintsugiAdaResSampler: previews,
  KintsugiCompare: slider,
  KintsugiMeasureQuality: chart,
  KintsugiSelectByQuality: chart,
};

/** @type {WeakMap<GraphNode, () => void>} */
const refreshers = new WeakMap();
/** The strips of samplers, which outlive the node while another graph is open. @type {Map<string, ReturnType<typeof previewStrip>>} */
const strips = new Map();
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

/** @param {GraphNode} node @returns {Update} */
function slider(node) {
  const display = compareSlider(api);
  showBelow(app, node, "kintsugi_compare", display.element, 180);
  takeOverPictures(node);
  return onChange("kintsugi_compare", display.show);
}

/** @param {GraphNode} node @returns {Update} */
function chart(node) {
  const display = qualityChart();
  let placed = false;
  return onChange("kintsugi_quality", (pictures) => {
    if (!placed) showBelow(app, node, "kintsugi_quality", display.element, 48);
    placed = true;
    display.show(pictures);
  });
}

/** @param {GraphNode} node @returns {Update} */
function previews(node) {
  let placed = false;
  return () => {
    const strip = strips.get(locatorOf(app, node));
    if (!strip || placed) return;
    showBelow(app, node, "kintsugi_previews", strip.element, 200);
    takeOverPictures(node);
    placed = true;
  };
}

/** Outputs are handed over again and again; `show` is told of new ones. @returns {Update} */
function onChange(key, show) {
  let shown;
  return (output) => {
    const entries = output?.[key];
    if (!entries || entries === shown) return;
    shown = entries;
    show(entries);
  };
}

/** @param {GraphNode} node */
function prepare(node) {
  const update = DISPLAYS[node.comfyClass]?.(node);
  if (!update) return;
  const refresh = () => orWarn(() => update(latestOutput(app, node)));
  refreshers.set(node, refresh);
  const { onExecuted, onDrawForeground } = node;
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    orWarn(() => update(output));
  };
  // A graph that comes back (another tab, an earlier run) gets its outputs without a message; they are there when it is drawn.
  node.onDrawForeground = function (...drawing) {
    refresh();
    return onDrawForeground?.apply(this, drawing);
  };
}

/** @param {{blob: Blob, displayNodeId: string, promptId?: string, jobId?: string}} preview */
function collect({ blob, displayNodeId, promptId, jobId }) {
  const node = nodeOfExecution(app, displayNodeId);
  if (node?.comfyClass !== "KintsugiAdaResSampler") return;
  const key = locatorOf(app, node);
  if (!strips.has(key)) strips.set(key, previewStrip());
  strips.get(key).add(blob, promptId ?? jobId ?? "");
  refreshers.get(node)?.();
}

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./kintsugi.css", import.meta.url).href;
document.head.append(style);

api.addEventListener("b_preview_with_metadata", ({ detail }) => orWarn(() => collect(detail)));

app.registerExtension({
  name: "kintsugi.displays",
  nodeCreated: (node) => orWarn(() => prepare(node)),
  // Nodes that the page draws instead of the canvas hear of returned outputs here.
  afterLoadGraph: () => app.graph.nodes.forEach((node) => refreshers.get(node)?.()),
});
