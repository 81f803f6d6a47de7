// A line chart with labelled axes, drawn as SVG: the curves of a run.

import { svg } from "./kit.js";

const HEIGHT = 320;
const LEFT = 56;
const RIGHT = 16;
const TOP = 12;
const BOTTOM = 48;

/**
 * A chart of series [{name, points: [[x, y], ...], dots}], in their order, so many pixels wide.
 * `write(x)` and `writeY(y)` are the texts of ticks. Gives the element, and mark(x) for a line.
 */
export function lineChart({ series, width, label, xLabel, yLabel, write, writeY, onPoint }) {
  const points = series.flatMap((one) => one.points);
  const across = scale(points.map(([x]) => x), LEFT, width - RIGHT, width / 120);
  const up = scale(points.map(([, y]) => y), HEIGHT - BOTTOM, TOP, 5);
  const marker = svg("line", { class: "chart-mark", y1: TOP, y2: HEIGHT - BOTTOM });
  const element = svg(
    "svg",
    { width, height: HEIGHT, class: "chart", role: "img", "aria-label": label },
    grid(across, up, write, writeY, width),
    axisNames(xLabel, yLabel, width),
    series.map((one) => curve(one, across, up)),
    marker,
  );
  element.addEventListener("pointermove", ({ clientX }) => {
    onPoint(across.inverse(clientX - element.getBoundingClientRect().left));
  });
  const mark = (x) => {
    marker.setAttribute("x1", across.at(x));
    marker.setAttribute("x2", across.at(x));
  };
  return { element, mark };
}

/** A line, with a dot at each point where they are measurements far apart. */
function curve({ name, points, dots }, across, up) {
  const places = points.map(([x, y]) => [across.at(x).toFixed(1), up.at(y).toFixed(1)]);
  return svg("g", { class: `chart-line ${name}` },
    svg("polyline", { points: places.join(" ") }),
    dots ? places.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5 })) : null);
}

/** A linear scale with round ticks; `from` and `to` are pixels. */
function scale(values, from, to, wanted) {
  const ticks = ticksBetween(Math.min(...values), Math.max(...values), wanted);
  const first = Math.min(ticks[0], ...values);
  const last = Math.max(ticks.at(-1), ...values);
  const length = last - first || 1;
  return {
    ticks,
    at: (value) => from + ((value - first) / length) * (to - from),
    inverse: (pixel) => first + ((pixel - from) / (to - from)) * length,
  };
}

/** Multiples of 1, 2 or 5 times a power of ten. */
function ticksBetween(least, most, wanted) {
  const rough = (most - least) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let at = Math.ceil(least / step - 1e-9); at * step <= most + 1e-9 * step; at += 1) {
    ticks.push(at * step);
  }
  return ticks.length ? ticks : [least];
}

function grid(across, up, write, writeY, width) {
  const base = HEIGHT - BOTTOM;
  return [
    ...up.ticks.flatMap((y) => [
      svg("line", { class: "chart-grid", x1: LEFT, x2: width - RIGHT, y1: up.at(y), y2: up.at(y) }),
      svg("text", { class: "chart-tick end", x: LEFT - 8, y: up.at(y) + 4 }, writeY(y)),
    ]),
    ...across.ticks.map((x) =>
      svg("text", { class: "chart-tick middle", x: across.at(x), y: base + 20 }, write(x))),
  ];
}

function axisNames(xLabel, yLabel, width) {
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  return [
    svg("text", { class: "chart-name middle", x: (LEFT + width) / 2, y: HEIGHT - 6 }, xLabel),
    svg("text", { class: "chart-name middle", x: 14, y: middle,
                  transform: `rotate(-90 14 ${middle})` }, yLabel),
  ];
}
