// The line drawing beside the list of stages: the residual stream as a line, branches beside it.
import { svg } from "./kit.js";
import { wiring } from "./steps-levels.js";

const ROW_HEIGHT = 40; // as in steps.css: a node stands in the middle of its row
const LANE_WIDTH = 22;
const EDGE = 16;

/** An SVG as high as the list, with a node for each item and a wire for all that it reads. */
export function drawing(items, current) {
  const wired = wiring(items);
  const lanes = Math.max(...wired.map(({ lane }) => lane)) + 1;
  const width = 2 * EDGE + (lanes - 1) * LANE_WIDTH;
  const height = items.length * ROW_HEIGHT;
  const picture = svg("svg", {
    class: "steps-drawing", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true",
  });
  wired.forEach((to, row) => {
    for (const source of to.from) {
      const passed = row <= current;
      const path = wire(wired[source]?.lane ?? to.lane, source, to.lane, row);
      picture.append(svg("path", { class: passed ? "wire is-passed" : "wire", d: path }));
    }
  });
  items.forEach((item, row) => picture.append(...node(item, wired[row], row, current)));
  return picture;
}

function place(lane, row) {
  return [EDGE + lane * LANE_WIDTH, (row + 0.5) * ROW_HEIGHT];
}

/** Straight in its own lane; to another one it bends at the end that lies on the branch. */
function wire(laneFrom, rowFrom, laneTo, rowTo) {
  const [x, y] = rowFrom < 0 ? [place(laneTo, 0)[0], 0] : place(laneFrom, rowFrom);
  const [toX, toY] = place(laneTo, rowTo);
  if (x === toX) return `M${x} ${y}V${toY}`;
  const bend = ROW_HEIGHT * 0.8;
  return toX > x
    ? `M${x} ${y}C${x} ${y + bend} ${toX} ${y} ${toX} ${Math.min(y + bend, toY)}V${toY}`
    : `M${x} ${y}V${toY - bend}C${x} ${toY} ${toX} ${toY - bend} ${toX} ${toY}`;
}

function node(item, { lane, adds }, row, current) {
  const [x, y] = place(lane, row);
  const state = row === current ? "is-current" : row < current ? "is-passed" : "";
  if (item.enters) {
    return [svg("rect", {
      class: `node node-box ${state}`, x: x - 9, y: y - 9, width: 18, height: 18, rx: 3,
    })];
  }
  const circle = svg("circle", { class: `node ${state}`, cx: x, cy: y, r: adds ? 8 : 5 });
  if (!adds) return [circle];
  const plus = svg("path", { class: `node-plus ${state}`, d: `M${x - 4} ${y}h8M${x} ${y - 4}v8` });
  return [circle, plus];
}
