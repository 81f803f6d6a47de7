// Vectors of float32 as wide as the processor's, and the functions of them that a step needs.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int64_t lanes = 16;
#else
constexpr int64_t lanes = 8;
#endif
using Floats = float __attribute__((vector_size(lanes * 4)));
using Four = float __attribute__((vector_size(16)));
using Eight = float __attribute__((vector_size(32)));
using Words = uint32_t __attribute__((vector_size(lanes * 4)));
using Integers = int32_t __attribute__((vector_size(lanes * 4)));
using Halves = uint16_t __attribute__((vector_size(lanes * 2)));
using Bytes = int8_t __attribute__((vector_size(lanes)));

struct BFloat16 {
  uint16_t bits;
};

template <class To>
To read(const void* from) {
  To to;
  std::memcpy(&to, from, sizeof to);
  return to;
}

template <class To, class From>
To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return read<To>(&from);
}

// `lanes` numbers as float32. GCC 12 converts vectors of small integers slowly, hence intrinsics.
inline Floats load(const float* from) { return read<Floats>(from); }

inline Floats load(const BFloat16* from) {
#if defined(__AVX512F__)
  return same_bits<Floats>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read<__m256i>(from)), 16));
#elif defined(__AVX2__)
  return same_bits<Floats>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(read<__m128i>(from)), 16));
#else
  return same_bits<Floats>(__builtin_convertvector(read<Halves>(from), Words) << 16);
#endif
}

inline Floats load(const int8_t* from) {
#if defined(__AVX512F__)
  return same_bits<Floats>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(read<__m128i>(from))));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_cvtsi64_si128(read<int64_t>(from));
  return same_bits<Floats>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
#else
  return __builtin_convertvector(__builtin_convertvector(read<Bytes>(from), Integers), Floats);
#endif
}

// The first `count` numbers, and zeros.
template <class Number>
Floats load_some(const Number* from, int64_t count) {
  Number some[lanes] = {};
  std::memcpy(some, from, count * sizeof(Number));
  return load(some);
}

// a b + c, which the compiler must not fuse in one place and not in another (-ffp-contract=off).
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// The numbers of the first half of a vector, each plus one of the second.
template <class Half, class Whole>
inline Half add_halves(const Whole& whole) {
  Half halves[2];
  static_assert(sizeof halves == sizeof whole);
  std::memcpy(halves, &whole, sizeof whole);
  return halves[0] + halves[1];
}

inline float sum(const Four& vector) {
  return vector[0] + vector[2] + (vector[1] + vector[3]);
}

inline float sum(const Eight& vector) { return sum(add_halves<Four>(vector)); }

#if defined(__AVX512F__)
inline float sum(const Floats& vector) { return sum(add_halves<Eight>(vector)); }
#endif

inline float dot(const float* a, const float* b, int64_t size) {
  const int64_t whole = size - size % lanes;
  Floats products{};
  for (int64_t k = 0; k < whole; k += lanes)
    products = multiply_add(load(a + k), load(b + k), products);
  if (const int64_t rest = size - whole)
    products = multiply_add(load_some(a + whole, rest), load_some(b + whole, rest), products);
  return sum(products);
}

// e^x to about an ulp: 2^n times a polynomial of what remains (Cephes' expf).
inline Floats exponential(Floats x) {
  const Floats one = Floats{} + 1.0f, low = Floats{} - 87.0f, high = Floats{} + 88.0f;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Floats magic = Floats{} + 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number
  const Floats n = multiply_add(x, Floats{} + 1.44269504088896341f, magic) - magic;
  Floats rest = multiply_add(n, Floats{} - 0.693359375f, x);
  rest = multiply_add(n, Floats{} + 2.12194440e-4f, rest);
  Floats sum = Floats{} + 1.9875691500e-4f;
  for (const float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                           5.0000001201e-1f})
    sum = multiply_add(sum, rest, Floats{} + next);
  sum = multiply_add(sum, rest * rest, rest) + one;
  const Integers shift = (__builtin_convertvector(n, Integers) + 127) << 23;
  return sum * same_bits<Floats>(shift);
}

// GELU by its tanh formula (Hendrycks & Gimpel 2016): x / (1 + e^-2y), where tanh(y) is in GELU.
inline Floats gelu(Floats x) {
  const Floats y = 0.79788456080286536f * (x + 0.044715f * x * x * x);
  return x / (1.0f + exponential(-2.0f * y));
}

inline Floats silu(Floats x) { return x / (1.0f + exponential(-x)); }

// numbers[i] = function(i, numbers[i]) for all i, a vector at a time.
template <class Function>
inline void transform(float* numbers, int64_t count, const Function& function) {
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Floats found = function(i, load(numbers + i), lanes);
    std::memcpy(numbers + i, &found, sizeof found);
  }
  if (i == count) return;
  const Floats found = function(i, load_some(numbers + i, count - i), count - i);
  std::memcpy(numbers + i, &found, (count - i) * sizeof(float));
}

// `count` numbers, at most `lanes`.
inline Floats load_up_to(const float* from, int64_t count) {
  return count == lanes ? load(from) : load_some(from, count);
}

}  // namespace
