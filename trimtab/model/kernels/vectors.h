// Vectors of 16 float32 numbers, and bfloat16 in pairs of them: what gcc and clang both know. The few instructions of one processor that
// are worth their lines stand here and in `products.h`, with what does the same elsewhere beside them.

#pragma once

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16, PAIR = 2 * LANES, BLOCK = 2 * PAIR };  // numbers of a vector, of two, and of what is worked on at once

typedef uint16_t bf16;
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t those __attribute__((vector_size(4 * LANES)));

// 32 numbers that stand behind one another: the first, third, fifth … and the others. So bfloat16 is taken apart and put together by
// shifts alone.
typedef struct {
  floats even, odd;
} pair;

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#define TAKEN(first, second, ...) __builtin_shufflevector(first, second, __VA_ARGS__)
#define INTERLEAVED(both) __builtin_shufflevector(both, both, FIRST_AND_SECOND_HALF)
#else
#define UNROLL _Pragma("GCC unroll 16")
#define TAKEN(first, second, ...) __builtin_shuffle(first, second, (ints){__VA_ARGS__})
#define INTERLEAVED(both) __builtin_shuffle(both, (those){FIRST_AND_SECOND_HALF})
#endif
#define FIRST_AND_SECOND_HALF \
  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

INLINE pair load(const bf16 *from) {
  words both;
  memcpy(&both, from, sizeof both);
  return (pair){(floats)(both << 16), (floats)(both & 0xffff0000u)};
}

INLINE words rounded(floats number) {
  words bits = (words)number;
  return (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
}

INLINE floats in_bf16(floats number) { return (floats)rounded(number); }

// Two numbers in each word, the first one low.
INLINE words joined(floats low, floats high) {
#ifdef __AVX512BF16__  // what is below 2^-126 becomes 0
  return (words)INTERLEAVED((those)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
#else
  return rounded(low) >> 16 | rounded(high);
#endif
}

INLINE void store(bf16 *to, floats even, floats odd) {
  words both = joined(even, odd);
  memcpy(to, &both, sizeof both);
}

INLINE float in_float(bf16 number) {
  const uint32_t bits = (uint32_t)number << 16;
  float given;
  memcpy(&given, &bits, sizeof given);
  return given;
}

INLINE halves in_order(floats numbers) {
#ifdef __AVX512BF16__
  return (halves)_mm512_cvtneps_pbh((__m512)numbers);
#else
  return __builtin_convertvector(rounded(numbers) >> 16, halves);
#endif
}

INLINE floats in_floats(const bf16 *from) {
  halves numbers;
  memcpy(&numbers, from, sizeof numbers);
  return (floats)(__builtin_convertvector(numbers, words) << 16);
}

INLINE bf16 one_in_bf16(float number) { return (bf16)(rounded((floats){} + number)[0] >> 16); }

INLINE floats load_floats(const float *from) {
  floats given;
  memcpy(&given, from, sizeof given);
  return given;
}

INLINE void store_floats(float *to, floats number) { memcpy(to, &number, sizeof number); }

INLINE void store_in_order(float *to, floats even, floats odd) {
  store_floats(to, TAKEN(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  store_floats(to + LANES, TAKEN(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
}

INLINE floats chosen(ints where, floats yes, floats no) { return (floats)((where & (ints)yes) | (~where & (ints)no)); }

INLINE floats at_least(floats x, float least) {
#ifdef __AVX512BF16__
  return (floats)_mm512_max_ps(_mm512_set1_ps(least), (__m512)x);  // in this order NaN stays
#else
  return chosen(x < least, (floats){} + least, x);
#endif
}

// number · 2^n
INLINE floats times_power(floats number, floats n) {
#ifdef __AVX512BF16__
  return (floats)_mm512_scalef_ps((__m512)number, (__m512)n);
#else
  return number * (floats)((__builtin_convertvector(n, ints) + 127) << 23);
#endif
}

// 1 / x
INLINE floats inverse(floats x) {
#ifdef __AVX512BF16__  // to 14 bits, and a step of Newton's: within a unit of the last place
  floats near = (floats)_mm512_rcp14_ps((__m512)x);
  return near * (2.0f - x * near);
#else
  return 1.0f / x;
#endif
}

INLINE floats root(floats x) {
#ifdef __AVX512BF16__
  return (floats)_mm512_sqrt_ps((__m512)x);
#else
  UNROLL for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
  return x;
#endif
}

// e^x: 2^n of the nearest n, and a polynomial for the rest (Cephes' `expf`, two units in the last place); 0 below -87.
INLINE floats exponential(floats x) {
  const float nearest = 12582912.0f;  // 1.5 · 2^23: what is added to it loses its fraction
  floats within = at_least(-at_least(-x, -88.0f), -87.0f);
  floats n = (within * 1.44269504f + nearest) - nearest;
  floats r = within - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  floats sum = r * 1.9875691500e-4f + 1.3981999507e-3f;
  sum = sum * r + 8.3334519073e-3f;
  sum = sum * r + 4.1665795894e-2f;
  sum = sum * r + 1.6666665459e-1f;
  sum = sum * r + 5.0000001201e-1f;
  sum = sum * (r * r) + r + 1.0f;
  return chosen(x < -87.0f, (floats){}, times_power(sum, n));
}

// Room for numbers, from a multiple of 64 bytes on, so that no vector lies in two lines of a cache.
INLINE void *room_for(int64_t count, size_t size) { return aligned_alloc(64, (count * size + 63) / 64 * 64); }

INLINE int64_t up_to(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

INLINE float total(floats numbers) {
  float sum = 0.0f;
  UNROLL for (int i = 0; i < LANES; i++) sum += numbers[i];
  return sum;
}

INLINE float largest(floats numbers) {
  float most = numbers[0];
  UNROLL for (int i = 1; i < LANES; i++) most = numbers[i] > most ? numbers[i] : most;
  return most;
}

// Of numbers, a multiple of 16 of them.
INLINE float largest_of(const float *numbers, int64_t count) {
  floats most = (floats){} - INFINITY;
  for (int64_t t = 0; t < count; t += LANES) {
    floats number = load_floats(numbers + t);
    most = chosen(number > most, number, most);
  }
  return largest(most);
}

// Scores become weights, e to the power of each less the largest of them, in place; gives their sum. `count` is a multiple of 16.
INLINE float weights_of(float *scores, int64_t count, float *most) {
  floats sums = {};
  *most = largest_of(scores, count);
  for (int64_t t = 0; t < count; t += LANES) {
    floats weight = exponential(load_floats(scores + t) - *most);
    sums += weight;
    store_floats(scores + t, weight);
  }
  return total(sums);
}

// Swap bit `by` of rows and columns; `low` and `high` say which columns of two rows come into the first and into the second.
#define SWAP(rows, by, low, high)                          \
  UNROLL for (int i = 0; i < LANES; i++)                   \
    if (!(i & by)) {                                       \
      words one = rows[i], other = rows[i | by];           \
      rows[i] = (words)TAKEN(one, other, low);             \
      rows[i | by] = (words)TAKEN(one, other, high);       \
    }
#define LIST(...) __VA_ARGS__

// Rows become columns.
INLINE void transpose(words rows[LANES]) {
  SWAP(rows, 8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
       LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
  SWAP(rows, 4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
       LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  SWAP(rows, 2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
       LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  SWAP(rows, 1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
       LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
}
