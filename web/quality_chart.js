/** Measured quality as bars: a group for each measure, a bar for each picture. */

import { element } from "./elements.js";
import { measuresOf } from "./quality_scale.js";

const ARROWS = { "higher is better": "\u2191", "lower is better": "\u2193" };

/** @returns {{element: HTMLElement, show: (pictures: import("./quality_scale.js").Picture[]) => void}} */
export function qualityChart() {
  const chart = element("div", "kintsugi kintsugi-chart kintsugi-scrolls");
  return {
    element: chart,
    show(pictures) {
      chart.replaceChildren(...measuresOf(pictures).map(pictures.length > 1 ? group : singleRow));
    },
  };
}

/** @param {import("./quality_scale.js").Measure} measure */
function singleRow(measure) {
  const name = element("span", "kintsugi-metric", { textContent: `${measure.metric} ${ARROWS[measure.direction] ?? ""}` });
  return element("div", "kintsugi-measure", {}, [row(measure, measure.bars[0], name)]);
}

/** @param {import("./quality_scale.js").Measure} measure */
function group(measure) {
  const arrow = ARROWS[measure.direction];
  const head = element("div", "kintsugi-measure-head", {}, [
    element("span", "kintsugi-metric", { textContent: measure.metric }),
    element("span", "kintsugi-direction", { textContent: `${arrow ? `${arrow} ` : ""}${measure.direction}` }),
  ]);
  const rows = measure.bars.map((bar) => row(measure, bar, element("span", "kintsugi-picture", { textContent: String(bar.picture) })));
  return element("div", "kintsugi-measure", {}, [head, ...rows]);
}

/** @param {import("./quality_scale.js").Measure} measure @param {import("./quality_scale.js").Bar} bar @param {HTMLElement} name */
function row(measure, bar, name) {
  const value = `${bar.text} ${measure.unit}`.trim();
  const fill = element("span", "kintsugi-bar");
  fill.style.width = `${100 * bar.length}%`;
  const verdict = bar.kept ? "" : ", dropped";
  const about = `${measure.metric} of picture ${bar.picture}: ${value}, ${measure.direction}${verdict}; the bar ends at ${measure.end}`;
  const made = element("div", "kintsugi-row", { title: about }, [
    name,
    element("span", "kintsugi-track", {}, [fill]),
    element("span", "kintsugi-value", { textContent: value }),
  ]);
  made.classList.toggle("kintsugi-best", bar.best);
  made.classList.toggle("kintsugi-dropped", !bar.kept);
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", about);
  return made;
}
