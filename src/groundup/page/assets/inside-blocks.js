// What each block adds for one token: to the residual stream, and to the loss of the next token.
import { el, number, scrollable, table } from "./kit.js";
import { quoted } from "./inside-shared.js";
import { pointName } from "./inside-lens.js";

/** The points of a lens column with what each added, the stream after it, and the loss's change. */
function contributions(column, stream) {
  return column.points.map((point, index) => {
    const { position } = column;
    const isEmbedding = point.after === "embedding";
    const before = column.points[index - 1];
    return {
      point,
      added: isEmbedding ? stream.embedding[position] : stream[point.after][point.layer][position],
      after: point.after === "mlp" ? stream.after[point.layer][position] : null,
      change: isEmbedding || point.loss === null ? null : point.loss - before.loss,
    };
  });
}

export class BlockTable {
  constructor() {
    this.sentence = el("p", { class: "note" });
    this.sum = el("p", { class: "loss-sum" });
    this.area = scrollable("", "What each part adds");
    this.element = el("div", { class: "blocks" }, this.sentence, this.sum, this.area);
  }

  setColumn(column, stream, tokens) {
    const parts = contributions(column, stream);
    const most = (values) => Math.max(...values.map((value) => Math.abs(value ?? 0)), 1e-9);
    const scale = {
      added: most(parts.map((part) => part.added)),
      after: most(parts.map((part) => part.after)),
      change: most(parts.map((part) => part.change)),
    };
    const heads =
      ["Part", "Adds (length)", "Stream after it (length)", "Change of the loss (nats)"];
    const rows = parts.map(({ point, added, after, change }) => [
      pointName(point),
      norm(added, scale.added, "added-bar"),
      after === null ? "" : norm(after, scale.after, "after-bar"),
      change === null ? "" : signed(change, scale.change),
    ]);
    const caption = "What each part adds to the stream and to the loss";
    this.area.replaceChildren(table(heads, rows, { caption }));
    this.showSum(column, parts, tokens);
  }

  showSum(column, parts, tokens) {
    const next = tokens[column.position + 1];
    this.sum.hidden = !next;
    if (!next) {
      this.sentence.textContent =
        "The text ends at this token, so there is no loss to explain. Choose an earlier token.";
      return;
    }
    const [first, last] = [column.points[0].loss, column.points.at(-1).loss];
    this.sentence.textContent =
      `For the next token, ${quoted(next)}, the embedding's ${number(first, 2)} nats, plus the ` +
      `changes, make the final ${number(last, 2)} nats. A change below zero is better.`;
    const changes = parts.slice(1).map(({ change }) =>
      `${change < 0 ? "−" : "+"} ${number(Math.abs(change), 2)}`);
    this.sum.textContent = `${number(first, 2)} ${changes.join(" ")} = ${number(last, 2)}`;
  }
}

function norm(value, largest, kind) {
  const bar = el("span", { class: `norm-bar ${kind}`, "aria-hidden": "true" });
  bar.style.inlineSize = `${(100 * value) / largest}%`;
  return el("span", { class: "norm" },
    el("span", { class: "norm-track" }, bar), el("span", { class: "figure" }, number(value, 2)));
}

/** A bar to the left of the middle makes the loss smaller, which is better. */
function signed(change, largest) {
  const better = change < 0;
  const kind = better ? "change-bar is-better" : "change-bar is-worse";
  const bar = el("span", { class: kind, "aria-hidden": "true" });
  bar.style.inlineSize = `${(50 * Math.abs(change)) / largest}%`;
  return el("span", { class: "change" },
    el("span", { class: "change-track" }, bar),
    el("span", { class: "figure" }, `${better ? "" : "+"}${number(change, 2)}`));
}
