// The text of the view Write, without its looks: requests to the model, branches, and the window.

import { windowStart } from "./inside-shared.js";

/**
 * Writes with the model of `source`, and keeps every branch. `tell` hears of it:
 * opened() when another text is shown, grown(tokens), updated(first, tokens) when more is known
 * of tokens, progress(written, wanted), said(sentence, isBad), and changed() for all the rest.
 */
export class Writing {
  constructor(source, store, tell) {
    Object.assign(this, { source, store, tell, branches: [], branch: null, request: null });
  }

  get tokens() {
    return this.branch?.tokens ?? [];
  }

  /** False while a prompt is only text, and after one that the model couldn't read. */
  get isRead() {
    return this.tokens[0]?.id !== undefined;
  }

  /** Begins anew from a prompt. */
  begin(text) {
    return this.attempt(async (signal) => {
      await this.read(text, signal);
      await this.write(signal);
    });
  }

  /** Reads a prompt for the other views, and writes nothing. */
  adopt(text) {
    return this.attempt((signal) => this.read(text, signal));
  }

  goOn() {
    return this.attempt((signal) => this.write(signal));
  }

  /** Writes the last piece once more, in a branch of its own. */
  again() {
    const { tokens, base } = this.branch;
    const pieces = this.piecesBefore(base);
    this.open({ tokens: tokens.slice(0, base), base, departs: base, pieces });
    return this.goOn();
  }

  /** Goes on from another token at a place, in a branch of its own. */
  branchAt(index, token) {
    const { top } = this.tokens[index];
    const tokens = [...this.tokens.slice(0, index), { ...token, top }];
    const pieces = this.piecesBefore(index);
    this.open({ tokens, base: tokens.length, departs: index, pieces });
    return this.goOn();
  }

  /** Shows a branch that was written before. */
  turnTo(branch) {
    this.tell.said("");
    return this.attempt(async () => this.open(branch));
  }

  stop() {
    this.request?.abort();
  }

  // -- steps of these --

  open(branch) {
    this.branch = branch;
    if (!this.branches.includes(branch)) this.branches.push(branch);
    this.tell.opened();
  }

  /** Which requests drew the tokens before a place: for each where, and with what settings. */
  piecesBefore(place) {
    const cut = this.branch.pieces.map((piece) => ({ ...piece, to: Math.min(piece.to, place) }));
    return cut.filter(({ from, to }) => from < to);
  }

  /** Reads a prompt. One that can't be read leaves the branches that there were. */
  async read(text, signal) {
    const before = this.branch;
    this.branch = { tokens: [{ text, top: [] }], base: 1, departs: 0, pieces: [] };
    this.tell.opened(); // it is seen before it is read
    this.tell.said("The model reads the prompt.");
    try {
      const tokens = await this.readTokens(text);
      signal.throwIfAborted();
      this.open({ tokens, base: tokens.length, departs: 0, pieces: [] });
    } catch (error) {
      if (before) this.open(before);
      throw error;
    }
    this.tell.said("");
  }

  /** The tokens of a text; of one that is longer than the context the last ones are inspected. */
  async readTokens(text) {
    const all = await this.source.encode(text);
    const start = windowStart(all.length, this.source.model.context);
    const { tokens } = await this.source.inspect(all.slice(start).map(({ id }) => id));
    return [...all.slice(0, start), ...tokens];
  }

  async write(signal) {
    const { branch, source, tell } = this;
    const { settings } = this.store.get();
    const ids = branch.tokens.map((token) => token.id);
    branch.base = ids.length;
    const piece = { from: ids.length, to: ids.length, settings: { ...settings } };
    branch.pieces.push(piece);
    const onTokens = (fresh) => {
      signal.throwIfAborted();
      branch.tokens.push(...fresh);
      piece.to = branch.tokens.length;
      tell.grown(fresh);
      tell.progress(branch.tokens.length - branch.base, settings.max_tokens);
    };
    const window = ids.slice(windowStart(ids.length, source.model.context));
    const finish = await source.stream(window, settings, { onTokens, signal });
    const written = branch.tokens.length - branch.base;
    if (finish === "stop") tell.said(`The model ended the text after ${written} tokens.`);
    else tell.said(`Written: ${written} tokens.`);
  }

  /** One request at a time: a new one ends the one before. */
  async attempt(act) {
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    this.tell.changed();
    try {
      await act(request.signal);
    } catch (error) {
      if (this.request !== request) return;
      if (error.name === "AbortError") this.tell.said(this.stopped());
      else this.tell.said(error.message, true);
    }
    if (this.request !== request) return;
    this.request = null;
    this.tell.changed();
    if (this.isRead) await this.inspect();
  }

  /** Learns the ids of the alternatives at a place outside of what was inspected. */
  async learn(index) {
    const { branch, source } = this;
    const token = branch?.tokens[index];
    if (this.request || !token || hasIds(token)) return;
    const start = windowStart(index, source.model.context);
    const before = branch.tokens.slice(start, index).map(({ id }) => id);
    const inspection = await this.inspected(before);
    if (!inspection || branch !== this.branch || this.request) return;
    branch.tokens[index] = { ...token, top: inspection.next.top };
    this.tell.updated(index, [branch.tokens[index]]);
  }

  /** The inspection of these tokens, or null after a sentence that says what went wrong. */
  async inspected(tokens) {
    try {
      return await this.source.inspect(tokens);
    } catch (error) {
      this.tell.said(error.message, true);
      return null;
    }
  }

  stopped() {
    return `Stopped after ${this.tokens.length - this.branch.base} tokens.`;
  }

  /** Learns all about the tokens in the model's window, and shows them to the other views. */
  async inspect() {
    const { branch, source } = this;
    const { context } = source.model;
    const ids = branch.tokens.map((token) => token.id);
    const start = windowStart(ids.length, context);
    const inspection = await this.inspected(ids.slice(start));
    if (!inspection || this.branch !== branch || this.request) return;
    const known = inspection.tokens.map((token, at) => {
      const before = branch.tokens[start + at];
      const sameWindow = windowStart(start + at, context) === start;
      return sameWindow ? token : seenBefore(token, before);
    });
    branch.tokens.splice(start, known.length, ...known);
    const position = Math.max(0, ids.length - 2); // the last one whose next token is known
    this.store.set({ tokens: ids, inspection, pieces: branch.pieces, position });
    this.tell.updated(start, known);
  }
}

/** True if the model can go on from each alternative: completions name them without their ids. */
function hasIds({ top }) {
  return (top ?? []).every(({ id }) => id !== undefined);
}

/** A token that was drawn when the model saw more before it: what it held then stays true. */
function seenBefore(token, { logprob, top }) {
  if (logprob === undefined || logprob === null) return token;
  return { ...token, logprob, top };
}
