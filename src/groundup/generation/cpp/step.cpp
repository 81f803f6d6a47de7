// What a CPU computes to write one token of each of a few texts: a whole step of a GPT-2 or of the
// modern GPT, in one call. gpt2.py and modern.py say what is computed; the tests compare.
//
// Every number is computed by one thread, in an order that depends on nothing but the model and the
// length of its own text. So a text gets the same bits alone, beside others, and with any number of
// threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "products.h"

namespace {

// A norm of vectors: LayerNorm if there is a bias, else RMSNorm; no norm without factors.
struct Norm {
  const float *factors, *bias;
  int64_t size;
  float eps;
};

struct Block {
  Norm before_attention;
  Matrix qkv;  // the outputs of all queries, then of all keys, then of all values
  Norm of_query, of_key;
  Matrix out;
  Norm before_mlp;
  Matrix gate;  // without weights in a GPT-2, whose activation is GELU
  Matrix up, down;
};

struct Model {
  Matrix tokens;           // a row for each token
  const float* positions;  // [block_size, width], or null
  const float *cosine, *sine;  // [block_size, head_size], or null
  const Block* blocks;
  int64_t layers, width, inner, heads, kv_heads, head_size;
  Norm last;
  Matrix head;
};

// Keys and values: [layers, 2, slots, kv_heads, room, head_size].
struct Memory {
  float* numbers;
  int64_t slots, room;
};

void normalise(const Norm& norm, const float* x, float* out) {
  const float size = static_cast<float>(norm.size);
  float mean = 0.0f;
  if (norm.bias) {
    Floats total{};
    for (int64_t i = 0; i < norm.size; i += lanes)
      total += load_up_to(x + i, std::min(lanes, norm.size - i));
    mean = sum(total) / size;
  }
  if (out != x) std::copy_n(x, norm.size, out);
  transform(out, norm.size, [&](int64_t, Floats some, int64_t) { return some - mean; });
  const float factor = 1.0f / std::sqrt(dot(out, out, norm.size) / size + norm.eps);
  transform(out, norm.size, [&](int64_t i, Floats some, int64_t count) {
    some = some * factor * load_up_to(norm.factors + i, count);
    return norm.bias ? some + load_up_to(norm.bias + i, count) : some;
  });
}

// Rotates one head by the angles of a position: dimension i is paired with i + size / 2.
void rotate(const float* cosine, const float* sine, int64_t size, float* vector) {
  for (int64_t i = 0, j = size / 2; j < size; ++i, ++j) {
    const float first = vector[i], second = vector[j];
    vector[i] = first * cosine[i] - second * sine[i];
    vector[j] = second * cosine[j] + first * sine[j];
  }
}

// softmax(q K / sqrt(size)) V for one query, by `length` keys and values of `size` numbers each.
void attend(const float* query, const float* keys, const float* values, int64_t length,
            int64_t size, float* weights, float* out) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  float largest = -INFINITY;
  for (int64_t i = 0; i < length; ++i) {
    weights[i] = dot(query, keys + i * size, size) * scale;
    largest = std::max(largest, weights[i]);
  }
  Floats totals{};
  transform(weights, length, [&](int64_t, Floats some, int64_t count) {
    Floats found = exponential(some - largest);
    for (int64_t i = count; i < lanes; ++i) found[i] = 0.0f;
    totals += found;
    return found;
  });
  const float all = sum(totals);
  transform(out, size, [&](int64_t k, Floats, int64_t count) {
    Floats mixed{};
    for (int64_t i = 0; i < length; ++i)
      mixed = multiply_add(Floats{} + weights[i], load_up_to(values + i * size + k, count), mixed);
    return mixed / all;
  });
}

// Attention of the newest token of each text, in one layer. Its keys and values go to the memory.
// qkv: [texts, heads + 2 kv_heads, head_size]; out: [texts, heads, head_size].
void attention(const Model& model, const Block& block, float* keys, float* values, int64_t room,
               const int64_t* slots, const int64_t* lengths, int64_t texts, float* qkv,
               float* out) {
  const int64_t size = model.head_size, sharing = model.heads / model.kv_heads;
#pragma omp for schedule(dynamic)
  for (int64_t part = 0; part < texts * model.kv_heads; ++part) {
    const int64_t text = part / model.kv_heads, kv_head = part % model.kv_heads;
    const int64_t length = lengths[text], position = length - 1;
    const int64_t place = (slots[text] * model.kv_heads + kv_head) * room * size;
    float* queries = qkv + text * block.qkv.outputs + kv_head * sharing * size;
    float* key = qkv + text * block.qkv.outputs + (model.heads + kv_head) * size;
    const auto prepare = [&](const Norm& norm, float* vector) {
      if (norm.factors) normalise(norm, vector, vector);
      const int64_t angles = position * size;
      if (model.cosine) rotate(model.cosine + angles, model.sine + angles, size, vector);
    };
    prepare(block.of_key, key);
    std::copy_n(key, size, keys + place + position * size);
    std::copy_n(key + model.kv_heads * size, size, values + place + position * size);
    std::vector<float> weights(length);
    for (int64_t head = 0; head < sharing; ++head) {
      float* query = queries + head * size;
      prepare(block.of_query, query);
      attend(query, keys + place, values + place, length, size, weights.data(),
             out + (text * model.heads + kv_head * sharing + head) * size);
    }
  }
}

// The numbers between the layers' products, for all texts.
struct Scratch {
  std::vector<float> hidden, normal, qkv, attended, gate, inner, added;
  TileSpace space;
  Scratch(const Model& model, int64_t texts)
      : hidden(texts * model.width),
        normal(hidden.size()),
        qkv(texts * (model.heads + 2 * model.kv_heads) * model.head_size),
        attended(texts * model.heads * model.head_size),
        gate(texts * model.inner),
        inner(gate.size()),
        added(hidden.size()),
        space(texts, std::max({model.width, model.inner, model.heads * model.head_size}), false) {}
};

void normalise_all(const Norm& norm, int64_t texts, const float* x, float* out) {
#pragma omp for schedule(static)
  for (int64_t text = 0; text < texts; ++text)
    normalise(norm, x + text * norm.size, out + text * norm.size);
}

// out = matrix times x, for `count` vectors, or GELU of it.
void product(const Matrix& matrix, const float* x, int64_t count, bool activated, TileSpace& space,
             float* out) {
  const Vectors vectors = prepare(matrix, x, count, space);
  share_outputs(matrix, vectors, [&](int64_t first, int64_t last) {
    multiply(matrix, first, last, vectors, out);
    if (!activated) return;
    for (int64_t vector = 0; vector < count; ++vector)
      transform(out + vector * matrix.outputs + first, last - first,
                [](int64_t, Floats some, int64_t) { return gelu(some); });
  });
}

// hidden += matrix times x, for all texts.
void add_product(const Matrix& matrix, const float* x, int64_t texts, Scratch& scratch) {
  const Vectors vectors = prepare(matrix, x, texts, scratch.space);
  share_outputs(matrix, vectors, [&](int64_t first, int64_t last) {
    multiply(matrix, first, last, vectors, scratch.added.data());
    for (int64_t text = 0; text < texts; ++text)
      for (int64_t i = text * matrix.outputs + first; i < text * matrix.outputs + last; ++i)
        scratch.hidden[i] += scratch.added[i];
  });
}

void mlp(const Block& block, int64_t texts, Scratch& scratch) {
  const Vectors vectors = prepare(block.up, scratch.normal.data(), texts, scratch.space);
  share_outputs(block.up, vectors, [&](int64_t first, int64_t last) {
    multiply(block.up, first, last, vectors, scratch.inner.data());
    if (block.gate.weight) multiply(block.gate, first, last, vectors, scratch.gate.data());
    for (int64_t text = 0; text < texts; ++text) {
      const int64_t place = text * block.up.outputs + first;
      const float* gate = scratch.gate.data() + place;
      transform(scratch.inner.data() + place, last - first,
                [&](int64_t i, Floats some, int64_t count) {
                  return block.gate.weight ? some * silu(load_up_to(gate + i, count)) : gelu(some);
                });
    }
  });
  add_product(block.down, scratch.inner.data(), texts, scratch);
}

// The sum of a token's row and its position's.
void embed(const Model& model, int64_t token, int64_t position, float* out) {
  typed(model.tokens, [&](const auto* rows) {
    const float scale = model.tokens.scale ? model.tokens.scale[token] : 1.0f;
    transform(out, model.width, [&](int64_t i, Floats, int64_t count) {
      const auto* row = rows + token * model.width + i;
      Floats some = (count == lanes ? load(row) : load_some(row, count)) * scale;
      if (model.positions) some += load_up_to(model.positions + position * model.width + i, count);
      return some;
    });
  });
}

}  // namespace

extern "C" {

// Whether the units for tiles multiply weights of bfloat16, and those of int8 with many vectors.
int64_t groundup_has_tiles() { return has_tiles(); }

// out [count, outputs] = x [count, inputs] times the matrix, transposed, or GELU of it.
void groundup_linear(const Matrix* matrix, const float* x, int64_t count, int64_t activated,
                     float* out, int64_t threads) {
  // so many vectors that their tiles stay in a cache while weights pass
  constexpr int64_t numbers = 1 << 18;  // as measured
  const int64_t at_once = std::max(numbers / matrix->inputs / (2 * side), int64_t{1}) * 2 * side;
  TileSpace space(std::min(count, at_once), matrix->inputs, count > side);
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    const TileUnits units(space);
    for (int64_t first = 0; first < count; first += at_once) {
      const int64_t some = std::min(at_once, count - first);
      product(*matrix, x + first * matrix->inputs, some, activated, space,
              out + first * matrix->outputs);
    }
  }
}

// Reads the newest token of each text, and writes the logits of the next: [texts, vocab].
//
// Text t has slot slots[t] of the memory, which holds all its lengths[t] tokens but the newest.
void groundup_step(const Model* model, const Memory* memory, const int64_t* tokens,
                   const int64_t* slots, const int64_t* lengths, int64_t texts, float* logits,
                   int64_t threads) {
  Scratch scratch(*model, texts);
  const int64_t half = memory->slots * model->kv_heads * memory->room * model->head_size;
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    const TileUnits units(scratch.space);
#pragma omp for schedule(static)
    for (int64_t text = 0; text < texts; ++text)
      embed(*model, tokens[text], lengths[text] - 1, scratch.hidden.data() + text * model->width);
    for (int64_t layer = 0; layer < model->layers; ++layer) {
      const Block& block = model->blocks[layer];
      float* keys = memory->numbers + 2 * layer * half;
      normalise_all(block.before_attention, texts, scratch.hidden.data(), scratch.normal.data());
      product(block.qkv, scratch.normal.data(), texts, false, scratch.space, scratch.qkv.data());
      attention(*model, block, keys, keys + half, memory->room, slots, lengths, texts,
                scratch.qkv.data(), scratch.attended.data());
      add_product(block.out, scratch.attended.data(), texts, scratch);
      normalise_all(block.before_mlp, texts, scratch.hidden.data(), scratch.normal.data());
      mlp(block, texts, scratch);
    }
    normalise_all(model->last, texts, scratch.hidden.data(), scratch.normal.data());
    product(model->head, scratch.normal.data(), texts, false, scratch.space, logits);
  }
}

}  // extern "C"
