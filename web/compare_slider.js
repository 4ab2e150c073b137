/** A before/after slider over the two halves of a side-by-side picture. */

import { button, element } from "./elements.js";

/** @typedef {{filename: string, subfolder: string, type: string}} FileEntry */

/**
 * @param {{apiURL: (route: string) => string}} api
 * @returns {{element: HTMLElement, show: (entries: FileEntry[]) => Promise<void>}}
 */
export function compareSlider(api) {
  const before = element("img", "", { alt: "", draggable: false });
  const after = element("img", "", { alt: "", draggable: false });
  // The range input lies invisible over the pictures: keys, mouse, pen and touch are the browser's own.
  const split = element("input", "kintsugi-split", { type: "range", min: "0", max: "100", step: "any", value: "50" });
  split.setAttribute("aria-label", "Border between before and after, in percent of the width");
  const stage = element("div", "kintsugi-stage", { hidden: true }, [
    element("div", "kintsugi-half kintsugi-after", {}, [after]),
    element("div", "kintsugi-half kintsugi-before", {}, [before]),
    element("div", "kintsugi-border"),
    element("span", "kintsugi-label kintsugi-label-before", { textContent: "Before" }),
    element("span", "kintsugi-label kintsugi-label-after", { textContent: "After" }),
    split,
  ]);
  const words = element("p", "kintsugi-words", { textContent: "Run the graph to compare." });
  const count = element("output", "kintsugi-count");
  const pager = element("div", "kintsugi-pager", { hidden: true }, [
    button("\u2039", "Previous pair", () => turn(-1)),
    count,
    button("\u203a", "Next pair", () => turn(1)),
  ]);
  const frame = element("div", "kintsugi-frame", {}, [words, stage]);

  /** @type {FileEntry[]} */
  let pairs = [];
  let place = 0;

  const move = () => stage.style.setProperty("--split", `${split.value}%`);
  split.addEventListener("input", move);
  // The graph has its own use for keys and for pressed pointers.
  for (const event of ["keydown", "pointerdown"]) split.addEventListener(event, (happening) => happening.stopPropagation());
  move();

  async function showPair() {
    const url = pictureUrl(api, pairs[place]);
    const shown = await decoded(url);
    if (url !== pictureUrl(api, pairs[place])) return;
    count.textContent = `${place + 1} / ${pairs.length}`;
    pager.hidden = pairs.length < 2;
    stage.hidden = !shown;
    words.hidden = Boolean(shown);
    if (!shown) {
      words.textContent = "The picture cannot be loaded. Run the graph again.";
      return;
    }
    stage.style.setProperty("--ratio", String(shown.naturalWidth / 2 / shown.naturalHeight));
    before.src = after.src = url;
  }

  function turn(by) {
    place = (place + by + pairs.length) % pairs.length;
    return showPair();
  }

  return {
    element: element("div", "kintsugi kintsugi-compare", {}, [frame, pager]),
    show(entries) {
      pairs = entries;
      place = Math.min(place, pairs.length - 1);
      return showPair();
    },
  };
}

/** @param {{apiURL: (route: string) => string}} api @param {FileEntry} entry */
export function pictureUrl(api, { filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/** The picture once it can be drawn without a flicker; null when it cannot be had. @returns {Promise<HTMLImageElement | null>} */
async function decoded(url) {
  const picture = new Image();
  picture.src = url;
  try {
    await picture.decode();
    return picture;
  } catch {
    return null;
  }
}
