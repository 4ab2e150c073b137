/** Making elements, with text as text alone. */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {object} [properties] set on the element
 * @param {Node[]} [children]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, className = "", properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** @param {string} sign what is seen @param {string} name what is read out @param {() => void} press */
export function button(sign, name, press) {
  const made = element("button", "kintsugi-button", { type: "button", textContent: sign, title: name });
  made.setAttribute("aria-label", name);
  made.addEventListener("click", press);
  made.addEventListener("pointerdown", (event) => event.stopPropagation());
  made.addEventListener("keydown", (event) => event.stopPropagation());
  return made;
}
