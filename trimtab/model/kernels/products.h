// Small matrix products of bfloat16 numbers, two at a time, with sums in float32.
//
// A word is two bfloat16 numbers that are multiplied and added up together. The left side gives words one by one, the right side 32
// columns of them. For processors that have an instruction for it.

#pragma once

#include "vectors.h"

typedef uint32_t word __attribute__((may_alias, aligned(2)));

enum { LEFT = 8, HALF = PAIR / 2 };  // rows of the left side at once; how far apart lie the two rows that make a word

INLINE floats dot(floats sum, words left, words right) {
  return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
}

INLINE words load_words(const word *from) {
  words given;
  memcpy(&given, from, sizeof given);
  return given;
}

INLINE void store_words(word *to, words given) { memcpy(to, &given, sizeof given); }

// Add to sums [8, 16 · parts] the products of the words of 8 rows, `row` and `next` apart, with those of the right side, `stride` apart.
// With each word a line of memory is asked for, from `ask` on, `step` bytes apart, where that is given.
INLINE void multiply_and_ask(int parts, floats sums[LEFT][2], const word *left, int64_t row, int64_t next, const word *right,
                             int64_t stride, int64_t count, const char *ask, int64_t step) {
  for (int64_t k = 0; k < count; k++) {
    words columns[2];
    if (ask) __builtin_prefetch(ask + k * step);
    UNROLL for (int part = 0; part < parts; part++) columns[part] = load_words(right + k * stride + part * LANES);
    UNROLL for (int r = 0; r < LEFT; r++) {
      words value = (words){} + left[r * row + k * next];
      UNROLL for (int part = 0; part < parts; part++) sums[r][part] = dot(sums[r][part], value, columns[part]);
    }
  }
}

INLINE void multiply(int parts, floats sums[LEFT][2], const word *left, int64_t row, int64_t next, const word *right, int64_t stride,
                     int64_t count) {
  multiply_and_ask(parts, sums, left, row, next, right, stride, count, NULL, 0);
}

// Two rows [W] as words [W], of 32 columns first the even ones and then the odd, as `store` takes them; the second may be missing.
INLINE void pack_two(const bf16 *one, const bf16 *other, int64_t width, word *to) {
  for (int64_t i = 0; i < width; i += PAIR) {
    words first = load_words((const word *)(one + i)), second = {};
    if (other) second = load_words((const word *)(other + i));
    store_words(to + i, (first & 0xffffu) | second << 16);
    store_words(to + i + LANES, first >> 16 | (second & 0xffff0000u));
  }
}

// Words [16, W] of 32 rows [32, W], `stride` apart: each row with the one 16 behind it. `rows` are there, the others 0.
INLINE void pack_rows(const bf16 *from, int64_t stride, int64_t rows, int64_t width, word *to, int64_t to_stride) {
  for (int64_t row = 0; row < HALF; row++) {
    if (row >= rows) memset(to + row * to_stride, 0, sizeof(word) * width);
    else pack_two(from + row * stride, row + HALF < rows ? from + (row + HALF) * stride : NULL, width, to + row * to_stride);
  }
}

// Words of one row after the other become columns: from [rows, W], `stride` numbers apart, to [W / 2, columns] of 32 bits each, W a
// multiple of 32. Rows up to the next multiple of 32 become 0.
INLINE void pack_columns(const bf16 *from, int64_t stride, int64_t rows, int64_t width, word *to, int64_t columns) {
  for (int64_t row = 0; row < up_to(rows, PAIR); row += LANES)
    for (int64_t i = 0; i < width / 2; i += LANES) {
      words block[LANES] = {};
      for (int64_t r = 0; r < LANES && row + r < rows; r++) block[r] = load_words((const word *)(from + (row + r) * stride) + i);
      transpose(block);
      UNROLL for (int k = 0; k < LANES; k++) store_words(to + (i + k) * columns + row, block[k]);
    }
}
