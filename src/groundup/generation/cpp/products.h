// Products of a matrix with a few vectors.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "tiles.h"
#include "vectors.h"

namespace {

// A matrix [outputs, inputs], row after row. A weight has 4 bytes (float32), 2 (bfloat16) or 1
// (int8). `scale` and `bias` have a number for each output, or are null.
struct Matrix {
  const void* weight;
  const float *scale, *bias;
  int64_t outputs, inputs, bytes;
};

// Calls `function` with a pointer to the weights of their own type.
template <class Function>
inline void typed(const Matrix& matrix, const Function& function) {
  if (matrix.bytes == 4) function(static_cast<const float*>(matrix.weight));
  if (matrix.bytes == 2) function(static_cast<const BFloat16*>(matrix.weight));
  if (matrix.bytes == 1) function(static_cast<const int8_t*>(matrix.weight));
}

// Outputs `first` to `first + n` of r vectors x, each from sums of its own in an order of its own.
template <int n, int r, class Weight>
inline __attribute__((always_inline)) void multiply_some(const Matrix& matrix,
                                                         const Weight* weights, int64_t first,
                                                         const float* x, float* out) {
  const int64_t inputs = matrix.inputs, whole = inputs - inputs % lanes;
  const Weight* weight = weights + first * inputs;
  Floats sums[n][r];
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < r; ++j) sums[i][j] = Floats{};
  for (int64_t k = 0; k < whole; k += lanes) {
    Floats some_weights[n];
    for (int i = 0; i < n; ++i) {
      some_weights[i] = load(weight + i * inputs + k);
      // rows are too short for the processor to see where the next tile begins
      __builtin_prefetch(weight + (i + n) * inputs + k, 0, 2);
    }
    for (int j = 0; j < r; ++j) {
      const Floats some = load(x + j * inputs + k);
      for (int i = 0; i < n; ++i) sums[i][j] = multiply_add(some_weights[i], some, sums[i][j]);
    }
  }
  if (const int64_t rest = inputs - whole)
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < r; ++j)
        sums[i][j] = multiply_add(load_some(weight + i * inputs + whole, rest),
                                  load_some(x + j * inputs + whole, rest), sums[i][j]);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < r; ++j) {
      const float scale = matrix.scale ? matrix.scale[first + i] : 1.0f;
      const float bias = matrix.bias ? matrix.bias[first + i] : 0.0f;
      out[j * matrix.outputs + first + i] = sum(sums[i][j]) * scale + bias;
    }
}

// Outputs `first` to `last` of all vectors, n outputs of r vectors at a time.
template <int n, int r, class Weight>
void multiply_all(const Matrix& matrix, const Weight* weights, int64_t first, int64_t last,
                  const float* x, int64_t vectors, float* out) {
  for (int64_t vector = 0; vector < vectors;) {
    const bool several = vector + r <= vectors;
    const float* from = x + vector * matrix.inputs;
    float* to = out + vector * matrix.outputs;
    const auto some = [&](auto outputs, int64_t i) {
      several ? multiply_some<outputs, r>(matrix, weights, i, from, to)
              : multiply_some<outputs, 1>(matrix, weights, i, from, to);
    };
    int64_t i = first;
    for (; i + n <= last; i += n) some(std::integral_constant<int, n>{}, i);
    for (; i < last; ++i) some(std::integral_constant<int, 1>{}, i);
    vector += several ? r : 1;
  }
}

// Vectors that a matrix is multiplied with: x [count, inputs], and their tiles, or null.
struct Vectors {
  const float* x;
  int64_t count, parts, columns;
  const Pair* tiles;
};

// Makes the tiles of vectors, if the units for tiles are to multiply. The threads that are here
// share the work, and meet after it.
//
// Weights of int8 become bfloat16 first, which takes longer than it saves where vectors are few.
Vectors prepare(const Matrix& matrix, const float* x, int64_t count, TileSpace& space) {
  const bool fast = matrix.bytes == 2 || (matrix.bytes == 1 && space.many);
  if (!has_tiles() || !fast || matrix.inputs % depth) return {x, count, 0, 0, nullptr};
  const int64_t blocks = matrix.inputs / depth, parts = space.many ? 1 : 2;
  const int64_t all = (count + side - 1) / side * blocks, columns = space.columns;
  Pair* pairs = reinterpret_cast<Pair*>(space.tiles.data());
#pragma omp for schedule(static)
  for (int64_t i = 0; i < all; ++i) {
    const int64_t vector = i / blocks * side;
    split(x + vector * matrix.inputs + i % blocks * depth, matrix.inputs,
          std::min(count - vector, side), parts, columns, pairs + i * parts * side * columns);
  }
  return {x, count, parts, columns, pairs};
}

// Outputs `first` to `last` of all vectors: out [vectors, outputs]. Tiles have whole rows only.
void multiply(const Matrix& matrix, int64_t first, int64_t last, const Vectors& vectors,
              float* out) {
  const float* x = vectors.x;
  const int64_t count = vectors.count;
  typed(matrix, [&](const auto* weights) {
    if constexpr (sizeof *weights < 4) {
      const auto by_tiles = [&](auto n) {
        const Finish finish{matrix.scale ? matrix.scale + first : nullptr,
                            matrix.bias ? matrix.bias + first : nullptr};
        multiply_tiles<n>(weights + first * matrix.inputs, matrix.inputs, vectors.tiles,
                          vectors.parts, vectors.columns, count, finish, matrix.outputs,
                          out + first);
        first += n * side;
      };
      if (vectors.tiles && count > side)
        while (first + 2 * side <= last) by_tiles(std::integral_constant<int, 2>{});
      if (vectors.tiles)
        while (first + side <= last) by_tiles(std::integral_constant<int, 1>{});
    }
    if (count < 4)  // as measured
      multiply_all<8, 1>(matrix, weights, first, last, x, count, out);
    else if (lanes == 16 && count >= 8)
      multiply_all<3, 8>(matrix, weights, first, last, x, count, out);
    else
      multiply_all<3, 4>(matrix, weights, first, last, x, count, out);
  });
}

// Calls `function` with the first and last of some outputs: so few that their weights stay in a
// cache while vectors pass. The threads that are here share the calls, and meet after them.
template <class Function>
void share_outputs(const Matrix& matrix, const Vectors& vectors, const Function& function) {
  const int64_t at_once = vectors.tiles ? 2 * side : 24;
#pragma omp for schedule(static)
  for (int64_t first = 0; first < matrix.outputs; first += at_once)
    function(first, std::min(first + at_once, matrix.outputs));
}

}  // namespace
