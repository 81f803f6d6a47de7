// The view The run: how this model was trained, its curve, its samples over time, its recipe.

import {
  choice, count, el, legend, number, panel, prose, scrollable, slider, table,
} from "./kit.js";
import { lineChart } from "./chart.js";

const AXES = { tokens: "tokens read", seconds: "seconds of training", step: "steps" };
const KEY = [
  ["line-validation", "validation"], ["line-training", "training"], ["line-each-step", "each step"],
];
const COLUMNS = [ // name in the run, heading, digits
  ["step", "step", 0], ["tokens", "tokens", 0], ["seconds", "seconds", 1],
  ["train_loss", "training loss", 4], ["validation_loss", "validation loss", 4],
  ["bits_per_byte", "bits per byte", 4],
];

export function makeRun({ source }) {
  const element = el("div", { class: "run" });
  let shown = null;
  return {
    element,
    async show() {
      if (shown === source.model) return;
      element.replaceChildren(el("p", { class: "note", role: "status" }, "The run is loading …"));
      try {
        const run = await source.run();
        element.replaceChildren(...(run ? sections(run) : [none()]));
        shown = source.model;
      } catch (error) {
        element.replaceChildren(el("p", { class: "panel bad" }, prose(error.message)));
      }
    },
    hide() {},
  };
}

function none() {
  return el("p", { class: "panel" }, prose(
    "This model has no run here: it comes from a folder or from the hub. A model that "
    + "`groundup train` made shows its curve, its recipe and its samples in this place."));
}

function sections(run) {
  const { name, facts = {}, evaluations = [], steps = [], samples, tasks, recipe, card } = run;
  return [
    panel(name, factList(facts)),
    axesOf(evaluations, steps).length ? curve(evaluations, steps) : null,
    samples?.length ? sampleReader(samples) : null,
    tasks?.length ? taskTable(tasks) : null,
    recipe ? folded("Recipe", recipe) : null,
    card ? folded("Model card", card) : null,
  ].filter(Boolean);
}

// ---- facts ----

function factList(facts) {
  const entries = Object.entries(facts).filter(([, value]) => value !== null && value !== "");
  return el("dl", { class: "facts" }, entries.map(([term, value]) => el("div", {},
    el("dt", {}, term.replaceAll("_", " ")),
    el("dd", {}, typeof value === "number" ? count(value) : readable(value)))));
}

/** A time as a reader writes it; all else as it is. */
function readable(value) {
  return String(value).replace(/^(\d+-\d+-\d+)T(\d+:\d+).*\+00:00$/, "$1 $2 UTC");
}

function short(value) {
  const [size, unit] = [[1e9, " B"], [1e6, " M"], [1e3, " k"]].find(([least]) => value >= least)
    ?? [1, ""];
  return `${Number((value / size).toPrecision(3))}${unit}`;
}

// ---- the curve ----

function curve(evaluations, steps) {
  const reading = el("p", { class: "reading", role: "status" });
  const place = el("div", { class: "chart-place" });
  const last = Math.max(0, evaluations.length - 1);
  const axes = axesOf(evaluations, steps);
  let [axis] = axes;
  let chart = null;
  let read = last;
  const show = (index) => {
    read = index;
    if (!evaluations[index]) return;
    reading.textContent = readingOf(evaluations[index]);
    chart?.mark(evaluations[index][axis]);
  };
  const walk = slider({
    label: "Evaluation", name: "evaluation", min: 0, max: last, value: last, onInput: show,
    say: (index) => `${index + 1} of ${last + 1}`,
  });
  const point = (x) => {
    show(nearest(evaluations, axis, x));
    walk.set(read);
  };
  const draw = () => {
    if (!place.clientWidth) return; // the view is closed
    chart = chartOf(evaluations, steps, axis, place.clientWidth, point);
    place.replaceChildren(chart.element);
    show(read);
  };
  new ResizeObserver(draw).observe(place); // also draws the first time
  const axisChoice = choice("Over", axes.map((name) => [name, AXES[name]]), axis, (name) => {
    axis = name;
    draw();
  });
  return el("section", { class: "panel" },
    el("div", { class: "text-head" }, el("h2", {}, "Loss"), axisChoice),
    legend(KEY), place, reading, walk.element, figures(evaluations));
}

/** What the curve can be drawn over. */
function axesOf(evaluations, steps) {
  const all = [...evaluations, ...steps];
  return Object.keys(AXES).filter((name) => all.some((each) => Number.isFinite(each[name])));
}

function readingOf(evaluation) {
  const known = COLUMNS.filter(([name]) => Number.isFinite(evaluation[name]));
  const parts = known.map(([name, heading, digits]) =>
    `${heading} ${number(evaluation[name], Math.min(3, digits))}`);
  return `At ${parts.join(", ")}.`;
}

function nearest(evaluations, axis, x) {
  const distances = evaluations.map((each) => Math.abs(each[axis] - x));
  return distances.indexOf(Math.min(...distances));
}

function chartOf(evaluations, steps, axis, width, onPoint) {
  const line = (rows, name) => rows
    .filter((row) => Number.isFinite(row[axis]) && Number.isFinite(row[name]))
    .map((row) => [row[axis], row[name]]);
  const series = [
    { name: "each-step", points: line(steps, "loss") },
    { name: "training", points: line(evaluations, "train_loss"), dots: true },
    { name: "validation", points: line(evaluations, "validation_loss"), dots: true },
  ];
  return lineChart({
    series,
    width,
    label: `Training and validation loss over ${AXES[axis]}. The table below has the figures.`,
    xLabel: AXES[axis],
    yLabel: "loss in nats",
    write: short,
    writeY: (value) => number(value, 1),
    onPoint,
  });
}

function figures(evaluations) {
  const rows = evaluations.map((each) => COLUMNS.map(([name, , digits]) =>
    (Number.isFinite(each[name]) ? number(each[name], digits) : "–")));
  const all = table(COLUMNS.map(([, heading]) => heading), rows, { caption: "Evaluations" });
  return el("details", {}, el("summary", {}, "All figures"), scrollable(all, "Evaluations"));
}

// ---- samples, tasks, long texts ----

function sampleReader(samples) {
  const last = samples.length - 1;
  const text = longText("What the model wrote then", "sample");
  const show = (index) => {
    text.textContent = samples[index].text;
  };
  const say = (index) => {
    const { step, loss } = samples[index];
    return `step ${count(step)}${Number.isFinite(loss) ? `, loss ${number(loss)}` : ""}`;
  };
  const walk = slider({
    label: "Sample", name: "sample", min: 0, max: last, value: last, say, onInput: show,
  });
  show(last);
  return panel("What it wrote on the way", walk.element, text);
}

function taskTable(tasks) {
  const rows = tasks.map(({ task, step, accuracy, interval }) => [
    task, count(step), number(accuracy, 4),
    interval ? interval.map((bound) => number(bound, 4)).join(" to ") : "–",
  ]);
  const all = table(["task", "step", "accuracy", "95 % interval"], rows, { caption: "Tasks" });
  return panel("Tasks", scrollable(all, "Tasks"));
}

function longText(label, name, text = "") {
  return el("pre", { class: name, tabindex: "0", role: "region", "aria-label": label }, text);
}

function folded(title, text) {
  return el("details", { class: "panel" }, el("summary", {}, title), longText(title, null, text));
}
