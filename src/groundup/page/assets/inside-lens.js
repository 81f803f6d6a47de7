// The logit lens: what each point of the model would have said next, as a table of the points.
import { el, number, percent, scrollable, table, uniqueName } from "./kit.js";
import { cut, quoted, tokenName } from "./inside-shared.js";

/** A point of the residual stream in words. */
export function pointName(point) {
  if (point.after === "embedding") return "Embedding";
  return `Layer ${point.layer + 1} ${point.after === "mlp" ? "MLP" : "attention"}`;
}

export class Lens {
  constructor() {
    this.all = false;
    this.intro = el("p", { class: "note" });
    this.area = scrollable("", "What each point would have said next");
    const id = uniqueName("lens-all");
    const toggle = el("input", { type: "checkbox", id, onchange: () => {
      this.all = toggle.checked;
      if (this.column) this.showRows();
    } });
    this.element = el("div", { class: "lens" },
      this.intro,
      el("label", { class: "check", for: id }, toggle, " Show more than the most probable token"),
      this.area);
  }

  /** Shows one lens column; `tokens` are those of the text, `vocabularySize` bounds the entropy. */
  setColumn(column, tokens, vocabularySize) {
    this.column = column;
    this.widest = Math.log(vocabularySize);
    const after = quoted(tokens[column.position]);
    const next = tokens[column.position + 1];
    this.intro.textContent =
      `After ${after} the model must say the next token. Here its last norm and its head read ` +
      "the residual stream early, at every point. " +
      (next
        ? `The true next token is ${quoted(next)}; its loss stands at the right.`
        : "The text ends here, so there is no true next token and no loss.");
    this.showRows();
  }

  showRows() {
    const rows = this.column.points.map((point) => [
      pointName(point),
      el("ol", { class: "said" },
        point.top.slice(0, this.all ? undefined : 1).map((token) => this.said(token))),
      this.entropy(point.entropy),
      point.loss === null ? "–" : number(point.loss, 2),
    ]);
    const heads = ["After", "Most probable next token", "Entropy", "Loss (nats)"];
    const caption = "What each point of the model would have said next";
    this.area.replaceChildren(table(heads, rows, { caption }));
  }

  said(token) {
    const isTarget = token.id === this.column.target;
    const label = el("span", { class: "said-share" }, percent(Math.exp(token.logprob)));
    return el("li", { class: isTarget ? "said-token is-target" : "said-token" },
      tokenName(token, 16), label,
      isTarget ? el("span", { class: "said-true" }, "true") : null);
  }

  entropy(nats) {
    const bar = el("span", { class: "entropy-bar", "aria-hidden": "true" });
    bar.style.inlineSize = `${Math.min(100, (100 * nats) / this.widest)}%`;
    return el("span", { class: "entropy" },
      el("span", { class: "entropy-track" }, bar), `${number(nats, 1)} nats`);
  }
}
