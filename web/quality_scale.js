/** The numbers behind the chart: which bars there are and how long each is. */

/**
 * A picture's numbers as the nodes send them; a value that JSON has no number for is its word (`inf`).
 * @typedef {{metric: string, value: number | string, unit: string, higher_is_better: boolean | null}} Score
 * @typedef {{scores: Score[], kept?: boolean}} Picture
 * @typedef {{picture: number, text: string, length: number, best: boolean, kept: boolean}} Bar length: 0 to 1 of the scale, 0 below zero
 * @typedef {{metric: string, unit: string, direction: string, end: number, bars: Bar[]}} Measure
 */

/** The smallest 1, 2 or 5 times a power of ten that is not below. @param {number} value */
export function roundEnd(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value) + 1e-12);
  const step = [1, 2, 5, 10].find((factor) => factor * power >= value * (1 - 1e-9));
  return step * power;
}

/** @param {boolean | null} higherIsBetter */
export function directionWords(higherIsBetter) {
  if (higherIsBetter === null) return "neither more nor less is better";
  return higherIsBetter ? "higher is better" : "lower is better";
}

/** Four digits that count, and no more than four behind the point. @param {number | string} value */
export function valueText(value) {
  if (typeof value !== "number") return value === "inf" ? "\u221e" : String(value);
  const digits = value === 0 ? 1 : Math.floor(Math.log10(Math.abs(value))) + 1;
  return value.toFixed(Math.min(Math.max(4 - digits, 0), 4));
}

/**
 * Bars by measure, in the order in which the measures first appear.
 * @param {Picture[]} pictures
 * @returns {Measure[]}
 */
export function measuresOf(pictures) {
  const names = [...new Set(pictures.flatMap(({ scores }) => scores.map(({ metric }) => metric)))];
  return names.map((metric) => {
    const rows = pictures.flatMap(({ scores, kept = true }, place) =>
      scores.filter((score) => score.metric === metric).map((score) => ({ ...score, kept, picture: place + 1 })),
    );
    const { unit, higher_is_better: higherIsBetter } = rows[0];
    const finite = rows.map(({ value }) => value).filter((value) => typeof value === "number");
    const end = roundEnd(Math.max(...finite, 0));
    const best = bestOf(rows, higherIsBetter);
    const bars = rows.map(({ picture, value, kept }) => ({
      picture,
      text: valueText(value),
      length: typeof value === "number" ? Math.max(value, 0) / end : Number(value === "inf"),
      best: rows.length > 1 && value === best,
      kept,
    }));
    return { metric, unit, direction: directionWords(higherIsBetter), end, bars };
  });
}

/** The value that no other beats; undefined where none is better than another. */
function bestOf(rows, higherIsBetter) {
  if (higherIsBetter === null) return undefined;
  const order = ({ value }) => (value === "inf" ? Infinity : Number(value)) * (higherIsBetter ? 1 : -1);
  const comparable = rows.filter((row) => !Number.isNaN(order(row)));
  return comparable.reduce((best, row) => (order(row) > order(best) ? row : best), comparable[0])?.value;
}
