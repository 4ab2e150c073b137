/** What a display needs of a node of the frontend: a place below its widgets, and what the node showed last. */

/**
 * A node as the frontend makes it; of its many properties those that are used here.
 * @typedef {object} GraphNode
 * @property {string} comfyClass
 * @property {number | string} id
 * @property {any} graph
 * @property {[number, number]} size
 * @property {() => [number, number]} computeSize
 * @property {(size: [number, number]) => void} setSize
 * @property {(name: string, type: string, element: HTMLElement, options: object) => any} addDOMWidget
 * @property {(output: Record<string, any[]>) => void} [onExecuted]
 * @property {(...drawing: any[]) => void} [onDrawBackground]
 * @property {(...drawing: any[]) => void} [onDrawForeground]
 * @property {boolean} [hideOutputImages]
 */

/**
 * Put an element below the widgets of a node, which grows where it must. It is no value: nothing of it is saved or sent.
 * @param {any} app the frontend
 * @param {GraphNode} node
 * @param {string} name unique within the node
 * @param {HTMLElement} element
 * @param {number} height least height in units of the graph
 */
export function showBelow(app, node, name, element, height) {
  const options = { serialize: false, hideOnZoom: false, margin: 6, getMinHeight: () => height };
  const widget = node.addDOMWidget(name, "kintsugi", element, options);
  widget.serialize = false;
  element.onwheel = (event) => passOn(app, event);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
}

/** The wheel zooms the graph over an element too, but where there is more to scroll to. */
function passOn(app, event) {
  const scrolled = event.target.closest(".kintsugi-scrolls");
  if (scrolled && (scrolled.scrollHeight > scrolled.clientHeight || scrolled.scrollWidth > scrolled.clientWidth)) {
    event.stopPropagation();
    return;
  }
  event.preventDefault();
  event.stopPropagation();
  app.canvas.canvas.dispatchEvent(new WheelEvent(event.type, event));
}

/** The node's pictures are shown by its display: the frontend need not show them a second time. @param {GraphNode} node */
export function takeOverPictures(node) {
  node.hideOutputImages = true;
  node.onDrawBackground = () => {};
}

/**
 * What a node showed last; outputs are kept under the node's id, within a subgraph after the subgraph's.
 * @param {any} app
 * @param {GraphNode} node
 * @returns {Record<string, any[]> | undefined}
 */
export function latestOutput(app, node) {
  return app.nodeOutputs?.[isInside(app, node) ? `${node.graph.id}:${node.id}` : node.id];
}

/** A name for a node that it keeps while its graph is away. @param {any} app @param {GraphNode} node */
export function locatorOf(app, node) {
  return [rootOf(app).id, ...(isInside(app, node) ? [node.graph.id] : []), node.id].join("/");
}

function rootOf(app) {
  return app.rootGraph ?? app.graph;
}

function isInside(app, node) {
  return Boolean(node.graph) && node.graph !== rootOf(app);
}

/**
 * The node of an execution id; `5:3` is node 3 of the subgraph that node 5 stands for.
 * @param {any} app
 * @param {string} id
 * @returns {GraphNode | undefined}
 */
export function nodeOfExecution(app, id) {
  let graph = rootOf(app);
  let node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node ?? undefined;
}
