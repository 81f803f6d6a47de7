// The three zoom levels of Step by step: which stages and boxes each has, and how they are wired.

export const LEVELS = ["model", "block", "head"];

/**
 * The items of each level in the order of computation. An item is a stage of the model, or a box
 * that can be entered: `{name, title, stage}` or `{name, title, enters, index}`.
 */
export function levelsOf(stages, shape) {
  const first = stages.findIndex((stage) => stage.scope !== "model");
  const inner = stages.filter((stage) => stage.scope !== "model");
  const firstHead = inner.findIndex((stage) => stage.scope === "head");
  const heads = inner.filter((stage) => stage.scope === "head");
  const outside = stages.filter((stage) => stage.scope === "model").map(stageItem);
  if (first < 0) return { model: outside, block: [], head: [] };
  const block = inner.filter((stage) => stage.scope === "block").map(stageItem);
  const blocks = Array.from({ length: shape.n_layer }, (_, index) => ({
    name: `block-${index}`, title: `Block ${index + 1}`, enters: "block", index,
  }));
  const title = shape.n_head === 1 ? "1 head" : `${shape.n_head} heads`;
  const box = { name: "heads", title, enters: "head" };
  return {
    model: [...outside.slice(0, first), ...blocks, ...outside.slice(first)],
    block: [...block.slice(0, firstHead), box, ...block.slice(firstHead)],
    head: heads.map(stageItem),
  };
}

function stageItem(stage) {
  return { name: stage.name, title: stage.title, stage };
}

// The lane of each stage and the stages that it reads; lane 0 is the residual stream in a block
// and in the model. What isn't here stays in the lane of the item before it, and reads that.
const WIRES = {
  position: { lane: 1, from: [] },
  stream: { lane: 0, from: ["embedding", "position"], adds: true },
  attention_norm: { lane: 1, from: ["residual_in"] },
  residual_mid: { lane: 0, from: ["residual_in", "projection"], adds: true },
  mlp_norm: { lane: 1, from: ["residual_mid"] },
  gate: { lane: 1, from: ["mlp_norm"] },
  up: { lane: 2, from: ["mlp_norm"] },
  swiglu: { lane: 1, from: ["gate", "up"] },
  residual_out: { lane: 0, from: ["residual_mid", "contract", "down"], adds: true },
  query: { lane: 0, from: ["above"] },
  key: { lane: 1, from: ["above"] },
  value: { lane: 2, from: ["above"] },
  query_norm: { lane: 0, from: ["query"] },
  key_norm: { lane: 1, from: ["key"] },
  rotary: { lane: 0, from: ["query_norm", "query", "key_norm", "key"] },
  scores: { lane: 0, from: ["rotary", "query", "key"] },
  weighted_sum: { lane: 0, from: ["softmax", "value"] },
};

/** Each item with its lane, whether it adds to the stream, and the rows that it reads. */
export function wiring(items) {
  const rows = new Map(items.map((item, row) => [item.name, row]));
  const wired = [];
  items.forEach((item, row) => {
    const wire = WIRES[item.name];
    const lane = wire?.lane ?? wired[row - 1]?.lane ?? 0;
    const before = row > 0 ? [row - 1] : [];
    const from = wire ? sources(wire.from, rows, row) : before;
    wired.push({ lane, from, adds: Boolean(wire?.adds) && from.length > 1 });
  });
  return wired;
}

/** The rows of the named sources; of those that lie in one lane after each other, the last. */
function sources(names, rows, row) {
  const present = names.filter((name) => rows.has(name) && rows.get(name) < row);
  const hidden = new Set();
  if (present.includes("rotary")) ["query", "key"].forEach((name) => hidden.add(name));
  if (present.includes("query_norm")) hidden.add("query");
  if (present.includes("key_norm")) hidden.add("key");
  const kept = present.filter((name) => !hidden.has(name)).map((name) => rows.get(name));
  return names.includes("above") ? [-1, ...kept] : kept;
}
