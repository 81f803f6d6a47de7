// The card of the present stage: sentence, formula, shape, numbers and code; or a box to enter.
import { button, el, number } from "./kit.js";
import { drawLine, valueOf } from "./steps-values.js";

/** The card's content for a stage. */
export function stageCard(stage, tokens) {
  return [
    title(stage.title),
    el("p", { class: "card-sentence" }, stage.sentence),
    el("dl", { class: "card-facts" },
      el("div", {}, el("dt", {}, "Formula"), el("dd", { class: "card-formula" }, stage.formula)),
      el("div", {}, el("dt", {}, "Shape"), el("dd", { class: "card-formula" }, stage.shape)),
      stage.learned && el("div", {}, el("dt", {}, "Learned here"),
        el("dd", { class: "card-formula" }, stage.learned))),
    el("h4", { class: "card-heading" }, "The numbers in this model"),
    el("div", { class: "card-values" },
      drawLine(stage.values), stage.values.map((value) => valueOf(value, tokens))),
    stage.code.length ? el("h4", { class: "card-heading" }, "The code that computes it") : "",
    ...codeFigures(stage.code),
  ];
}

/** The pieces of code, one figure for each file. */
function codeFigures(pieces) {
  const files = [...new Set(pieces.map(({ file }) => file))];
  return files.map((file) => codeFigure(file, pieces.filter((piece) => piece.file === file)));
}

function codeFigure(file, pieces) {
  const where = pieces.map(({ first, lines }) =>
    lines.length === 1 ? `line ${first}` : `lines ${first} to ${first + lines.length - 1}`);
  return el("figure", { class: "code" },
    el("figcaption", {}, el("span", { class: "mono" }, file), `, ${where.join(", ")}`),
    el("pre", { tabindex: "0", role: "region", "aria-label": `Code of ${file}` },
      el("code", {}, pieces.map(codePiece))));
}

/** The lines of a piece without the indent that they have in common. */
function codePiece({ first, lines }) {
  const indent = Math.min(...lines.filter((line) => line.trim()).map((line) =>
    line.length - line.trimStart().length));
  return el("span", { class: "code-piece" }, lines.map((line, index) => [
    el("span", { class: "code-number", "aria-hidden": "true" }, String(first + index)),
    `${line.slice(indent)}\n`,
  ]).flat());
}

/** The card of a block: what happens in it, and how much it adds for this token. */
export function blockCard(layer, inspection, position, enter) {
  const { shape, stream } = inspection;
  const facts = [
    ["Attention adds a vector of length", stream.attention[layer][position]],
    ["The MLP adds a vector of length", stream.mlp[layer][position]],
    ["The stream after the block has the length", stream.after[layer][position]],
  ];
  return [
    title(`Block ${layer + 1} of ${shape.n_layer}`),
    el("p", { class: "card-sentence" },
      "In a block the token first gathers what it needs from earlier tokens (attention), and " +
      "then works on that alone (the MLP, a multilayer perceptron). Both results are added to " +
      "the residual stream. The block's parameters are the numbers that it learned in training: " +
      "those of its matrices, and the scales of its norms. The embedding, the last norm and the " +
      "output layer hold the rest of them. The vectors on these cards are computed anew for each " +
      "text."),
    el("dl", { class: "card-facts" }, facts.map(([name, value]) => el("div", {},
      el("dt", {}, name), el("dd", { class: "card-formula" }, number(value, 2))))),
    enterButton(`Look inside block ${layer + 1}`, enter),
  ];
}

/** The card of the heads of a block: one button for each. */
export function headsCard(shape, head, enter) {
  const buttons = Array.from({ length: shape.n_head }, (_, index) =>
    button(`Head ${index + 1}`, () => enter(index), {
      class: "head-button", "aria-current": index === head ? "true" : null,
    }));
  return [
    title(shape.n_head === 1 ? "One head" : `${shape.n_head} heads, side by side`),
    el("p", { class: "card-sentence" },
      "Each head decides for itself which earlier tokens to read, and what to take from them. " +
      "The heads work at the same time, " + (shape.n_kv_head < shape.n_head
        ? `each with its own queries; ${shape.n_head / shape.n_kv_head} of them share one set of `
          + "keys and values."
        : "each with its own learned matrices.")),
    el("div", { class: "head-buttons", role: "group", "aria-label": "Heads" }, buttons),
    enterButton(`Look inside head ${head + 1}`, () => enter(head)),
  ];
}

/** The heading takes the focus when what had it is replaced. */
function title(text) {
  return el("h3", { class: "card-title", tabindex: "-1" }, text);
}

function enterButton(text, enter) {
  const label = [text, el("kbd", { "aria-hidden": "true" }, "Enter")];
  return button(label, enter, { class: "primary card-enter" });
}
