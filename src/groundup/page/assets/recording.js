// Gives a recording the form of the server's answers: in the file everything stands once.

/** The recording with whole tokens, with the lens point by point, and the stages of each head. */
export function expanded(recording) {
  return { ...recording, models: recording.models.map(expandedModel) };
}

function expandedModel(model) {
  const { vocabulary, lens, stages } = model;
  const { inspection, distributions } = withTokens(model, vocabulary);
  return {
    ...model,
    inspection: { ...inspection, lens: lens && lensColumns(lens, inspection.tokens, vocabulary) },
    distributions,
    stages: { position: stages.position, by_layer: byLayer(withTokens(stages, vocabulary)) },
  };
}

function withTokens(value, vocabulary) {
  if (Array.isArray(value)) {
    return typeof value[0] === "object" ? value.map((each) => withTokens(each, vocabulary)) : value;
  }
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).map(([name, each]) => [name, withTokens(each, vocabulary)]);
  const { token, ...rest } = Object.fromEntries(entries);
  return token === undefined ? rest : { ...vocabulary[token], ...rest };
}

/** Each point is entropy, loss, and then pairs of a token and its log-probability. */
function lensColumns({ points, columns }, tokens, vocabulary) {
  return columns.map((column, position) => ({
    position,
    target: tokens[position + 1]?.id ?? null,
    points: column.map(([entropy, loss, ...pairs], at) => ({
      ...points[at], entropy, loss, top: tokenPairs(pairs, vocabulary),
    })),
  }));
}

function tokenPairs(pairs, vocabulary) {
  const count = pairs.length / 2;
  return Array.from({ length: count }, (_, at) => ({
    ...vocabulary[pairs[2 * at]], logprob: pairs[2 * at + 1],
  }));
}

/** Heads have but their numbers of their own; what is said of a stage is the same in all. */
function byLayer({ position, order, model, told, layers }) {
  return Object.entries(layers).map(([layer, { block, heads }]) =>
    Object.entries(heads).map(([head, values]) => {
      const ofHead = Object.values(told).map((stage) => ({ ...stage, values: values[stage.name] }));
      const stages = new Map([...model, ...block, ...ofHead].map((stage) => [stage.name, stage]));
      return {
        position,
        layer: Number(layer),
        head: Number(head),
        stages: order.map((name) => stages.get(name)),
      };
    }));
}
