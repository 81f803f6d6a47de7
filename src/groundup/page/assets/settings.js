// Sliders for how a token is drawn: Write and Sampling each have their own row of them.

import { number, slider } from "./kit.js";

const FIELDS = {
  temperature: { label: "Temperature", min: 0, max: 2, step: 0.05, digits: 2 },
  top_k: { label: "Top-k", min: 0, max: 200, step: 1, digits: 0, zero: "all" },
  top_p: { label: "Top-p", min: 0.01, max: 1, step: 0.01, digits: 2 },
  min_p: { label: "Min-p", min: 0, max: 1, step: 0.01, digits: 2 },
  max_tokens: { label: "Length", min: 1, max: 1024, step: 1, digits: 0 },
};

/** Sliders of these names, with their values as text beside them; onChange(values) on each move. */
export function makeSliders(names, values, onChange) {
  const own = Object.fromEntries(names.map((name) => [name, values[name]]));
  const rows = names.map((name) => fieldSlider(name, own[name], (value) => {
    own[name] = value;
    onChange({ ...own });
  }));
  return {
    elements: rows.map((row) => row.element),
    /** Moves the sliders, without telling. */
    set(fresh) {
      names.forEach((name, index) => {
        own[name] = fresh[name];
        rows[index].set(fresh[name]);
      });
    },
  };
}

function fieldSlider(name, value, onInput) {
  const { digits, zero, ...range } = FIELDS[name];
  const say = (given) => (given === 0 && zero) || number(given, digits);
  return slider({ ...range, name, value, say, onInput });
}
