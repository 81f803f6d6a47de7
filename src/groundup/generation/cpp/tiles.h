// Products by the units that some processors have for tiles of bfloat16 numbers (Intel's AMX).
//
// A vector becomes one bfloat16 vector, or the sum of two, which is right up to 2^-17 of each
// number: its rounded numbers, and what rounding left. Products with bfloat16 weights are exact,
// and are added in float32.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"
#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define GROUNDUP_HAS_TILES
#endif

namespace {

constexpr int64_t side = 16, depth = 32;  // a tile has 16 rows of 64 bytes

struct alignas(64) Tile {
  uint16_t numbers[side * depth];
};

// Where the tiles of vectors are: `count` vectors at a time, in tiles of `columns` vectors. Few
// vectors keep the precision of float32, many are rounded to bfloat16.
struct TileSpace {
  int64_t columns;
  bool many;
  std::vector<Tile> tiles;
  TileSpace(int64_t count, int64_t inputs, bool many)
      : columns(std::min(count, side)),
        many(many),
        tiles((many ? 1 : 2) * ((count + side - 1) / side) * (inputs / depth)) {}
};

using Pair = int32_t;  // two bfloat16 numbers of one vector

// What follows the sums: a factor and a summand for each output, or null.
struct Finish {
  const float *scale, *bias;
};

#if defined(GROUNDUP_HAS_TILES)

// Whether the system lets the process use the units.
inline bool has_tiles() {
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool allowed = syscall(SYS_arch_prctl, request, tile_data) == 0;
  return allowed;
}

// The units of this thread while it lives. Tiles have 16 rows: those of weights, 4 and 5, of 64
// bytes, and all others of 4 bytes for each of the columns.
struct TileUnits {
  explicit TileUnits(const TileSpace& space) {
    alignas(64) uint8_t setting[64] = {1};
    for (int i = 0; i < 8; ++i) {
      setting[16 + 2 * i] = static_cast<uint8_t>(i == 4 || i == 5 ? 64 : 4 * space.columns);
      setting[48 + i] = side;
    }
    if (has_tiles()) _tile_loadconfig(setting);
  }
  ~TileUnits() {
    if (has_tiles()) _tile_release();
  }
};

inline __m512i rounded(const Floats& first, const Floats& second) {
  return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}

// Makes tiles of `depth` numbers of `count` vectors x, which have `inputs` numbers each: one of the
// rounded numbers, and perhaps one of the rest. Row i has numbers 2i and 2i + 1 of each vector.
inline void split(const float* x, int64_t inputs, int64_t count, int64_t parts, int64_t columns,
                  Pair* out) {
  const __m512i rows = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i places = _mm512_mullo_epi32(rows, _mm512_set1_epi32(static_cast<int>(columns)));
  if (count < columns) std::fill_n(out, parts * side * columns, Pair{});
  for (int64_t j = 0; j < count; ++j) {
    Floats first = load(x + j * inputs), second = load(x + j * inputs + lanes);
    for (int64_t part = 0; part < parts; ++part) {
      const __m512i nearest = rounded(first, second);
      BFloat16 numbers[depth];
      std::memcpy(numbers, &nearest, sizeof numbers);
      first -= load(numbers), second -= load(numbers + lanes);
      _mm512_i32scatter_epi32(out + part * side * columns + j, places, nearest, 4);
    }
  }
}

// Weights whose tiles begin `across` bytes apart; the rows of a tile begin `down` bytes apart.
struct TiledWeights {
  const char* first;
  int64_t down, across;
};

inline TiledWeights tiled(const BFloat16* weights, int64_t inputs, int64_t, std::vector<Tile>&) {
  return {reinterpret_cast<const char*>(weights), inputs * 2, depth * 2};
}

inline TiledWeights tiled(const int8_t* weights, int64_t inputs, int64_t rows,
                          std::vector<Tile>& space) {
  const int64_t across = rows / side;  // tiles of more rows lie beside those of the first ones
  space.resize(inputs / depth * across);
  Tile* tile = space.data();
  for (int64_t k = 0; k < inputs; k += depth)
    for (int64_t first = 0; first < rows; first += side, ++tile) {
      const int8_t* from = weights + first * inputs + k;
      uint16_t* to = tile->numbers;
      for (int64_t row = 0; row < side; ++row, from += inputs, to += depth) {
        const __m512i numbers = rounded(load(from), load(from + lanes));
        std::memcpy(to, &numbers, sizeof numbers);
      }
    }
  return {reinterpret_cast<const char*>(space.data()), depth * 2,
          across * static_cast<int64_t>(sizeof(Tile))};
}

// The sums of `blocks` products of tiles: those of n tiles of 16 outputs by r of 16 vectors.
template <int n, int r>
void sum_tiles(const TiledWeights& weights, const Pair* x, int64_t parts, int64_t columns,
               int64_t blocks, bool fetch, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t block = 0; block < blocks; ++block) {
    const char* weight = weights.first + block * weights.across;
    if (fetch)  // rows are too far apart for the processor to see what is next
      for (int64_t row = 0; row < n * side; ++row)
        __builtin_prefetch(weight + row * weights.down + 4 * weights.across, 0, 3);
    _tile_loadd(4, weight, weights.down);
    if (n > 1) _tile_loadd(5, weight + side * weights.down, weights.down);
    for (int64_t part = block * parts; part < (block + 1) * parts; ++part) {
      const Pair* some = x + part * side * columns;
      _tile_loadd(6, some, columns * 4);
      if (r > 1) _tile_loadd(7, some + blocks * parts * side * columns, columns * 4);
      _tile_dpbf16ps(0, 4, 6);
      if (n > 1) _tile_dpbf16ps(1, 5, 6);
      if (r > 1) _tile_dpbf16ps(2, 4, 7);
      if (n > 1 && r > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  constexpr int64_t size = side * side;
  _tile_stored(0, sums, side * 4);
  if (n > 1) _tile_stored(1, sums + size, side * 4);
  if (r > 1) _tile_stored(2, sums + 2 * size, side * 4);
  if (n > 1 && r > 1) _tile_stored(3, sums + 3 * size, side * 4);
}

// The outputs of `count` vectors by `rows` weights each: out [count, outputs] of 16 n outputs.
template <int n, class Weight>
void multiply_tiles(const Weight* weights, int64_t inputs, const Pair* x, int64_t parts,
                    int64_t columns, int64_t vectors, const Finish& finish, int64_t outputs,
                    float* out) {
  thread_local std::vector<Tile> space;
  const TiledWeights from = tiled(weights, inputs, n * side, space);
  const int64_t blocks = inputs / depth;
  const __m512i places = _mm512_slli_epi32(
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 4);
  alignas(64) float sums[4 * side * side];
  for (int64_t vector = 0; vector < vectors; vector += 2 * side) {
    const Pair* some = x + vector / side * blocks * parts * side * columns;
    const int64_t count = std::min(vectors - vector, 2 * side);
    count > side ? sum_tiles<n, 2>(from, some, parts, columns, blocks, vector == 0, sums)
                 : sum_tiles<n, 1>(from, some, parts, columns, blocks, vector == 0, sums);
    for (int64_t j = 0; j < count; ++j)
      for (int64_t i = 0; i < n; ++i) {
        const float* tile = sums + (j / side * 2 + i) * side * side + j % side;
        Floats found = (Floats)_mm512_i32gather_ps(places, tile, 4);
        if (finish.scale) found *= load(finish.scale + i * side);
        if (finish.bias) found += load(finish.bias + i * side);
        std::memcpy(out + (vector + j) * outputs + i * side, &found, sizeof found);
      }
  }
}

#else  // nothing of this is called

inline bool has_tiles() { return false; }

struct TileUnits {
  explicit TileUnits(const TileSpace&) {}
  ~TileUnits() {}
};

inline void split(const float*, int64_t, int64_t, int64_t, int64_t, Pair*) {}

template <int n, class Weight>
void multiply_tiles(const Weight*, int64_t, const Pair*, int64_t, int64_t, int64_t, const Finish&,
                    int64_t, float*) {}

#endif

}  // namespace
