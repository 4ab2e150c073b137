/** A strip of the previews that a sampler sends: the newest, or the one pointed at or chosen, is seen large. */

import { element } from "./elements.js";

/** When there are as many, every second goes: the strip still tells of the whole run. */
export const MOST_PREVIEWS = 128;

/** @typedef {{url: string, number: number, thumbnail: HTMLButtonElement}} Preview */

/** @returns {{element: HTMLElement, add: (picture: Blob, run: string) => void}} */
export function previewStrip() {
  const large = element("img", "", { alt: "", draggable: false });
  const caption = element("output", "kintsugi-label kintsugi-label-before");
  const film = element("div", "kintsugi-film kintsugi-scrolls");
  film.setAttribute("role", "group");
  film.setAttribute("aria-label", "Previews in the order of time");

  /** @type {Preview[]} */
  let previews = [];
  let received = 0;
  let currentRun = "";
  /** @type {Preview | null} */
  let chosen = null;
  /** @type {Preview | null} */
  let pointedAt = null;

  function draw() {
    const seen = pointedAt ?? chosen ?? previews.at(-1);
    if (!seen) return;
    if (large.src !== seen.url) large.src = seen.url;
    large.alt = caption.textContent = `Preview ${seen.number} of ${received}`;
    for (const preview of previews) {
      preview.thumbnail.setAttribute("aria-pressed", String(preview === chosen));
      preview.thumbnail.tabIndex = preview === (chosen ?? previews.at(-1)) ? 0 : -1;
    }
  }

  function choose(preview) {
    chosen = preview;
    pointedAt = null;
    draw();
  }

  function step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    event.stopPropagation();
    if (!by) return;
    event.preventDefault();
    const from = previews.indexOf(chosen ?? previews.at(-1));
    choose(previews[Math.min(Math.max(from + by, 0), previews.length - 1)]);
    chosen.thumbnail.focus();
  }
  film.addEventListener("keydown", step);
  film.addEventListener("pointerdown", (event) => event.stopPropagation());

  function thumbnail(url, number) {
    const made = element("button", "kintsugi-thumbnail", { type: "button", title: `Preview ${number}` }, [
      element("img", "", { src: url, alt: "", draggable: false }),
    ]);
    made.setAttribute("aria-label", `Preview ${number}`);
    const preview = { url, number, thumbnail: made };
    made.addEventListener("click", () => choose(chosen === preview ? null : preview));
    made.addEventListener("pointerenter", () => ((pointedAt = preview), draw()));
    made.addEventListener("pointerleave", () => ((pointedAt = null), draw()));
    return preview;
  }

  function remove(gone) {
    for (const preview of gone) {
      URL.revokeObjectURL(preview.url);
      preview.thumbnail.remove();
      if (chosen === preview) chosen = null;
      if (pointedAt === preview) pointedAt = null;
    }
    previews = previews.filter((preview) => !gone.includes(preview));
  }

  return {
    element: element("div", "kintsugi kintsugi-previews", {}, [element("div", "kintsugi-large", {}, [large, caption]), film]),
    add(picture, run) {
      if (run !== currentRun) {
        remove(previews);
        [currentRun, received] = [run, 0];
      }
      if (previews.length >= MOST_PREVIEWS) remove(previews.filter((_, place) => place % 2));
      const preview = thumbnail(URL.createObjectURL(picture), ++received);
      previews.push(preview);
      film.append(preview.thumbnail);
      if (!chosen) film.scrollLeft = film.scrollWidth;
      draw();
    },
  };
}
