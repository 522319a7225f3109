// The thin products of low-rank changes (decision 57): all that stands between a layer of W numbers and a rank S.
//
// A side of a change is given as rows [S, W]; N tokens; W is a multiple of 32. Sums are float32.

#include "products.h"

INLINE int64_t up_to(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// low [N, S] = input [N, W] times the rows, turned.
void narrow(const bf16 *input, const bf16 *rows, int64_t tokens, int64_t width, int64_t rank, bf16 *low) {
  const int64_t columns = up_to(rank, LANES), each = width / 2;
  word *right = aligned_alloc(64, sizeof(word) * each * columns);
  for (int64_t i = 0; i < each; i++)
    for (int64_t s = 0; s < columns; s++) {
      right[i * columns + s] = 0;
      if (s < rank) memcpy(right + i * columns + s, rows + s * width + 2 * i, sizeof(word));
    }
#pragma omp parallel
  {
    word *last = calloc(LEFT * each, sizeof(word));  // rows of a block that is not whole
#pragma omp for schedule(static)
    for (int64_t token = 0; token < tokens; token += LEFT) {
      const int64_t here = tokens - token < LEFT ? tokens - token : LEFT;
      const word *left = (const word *)(input + token * width);
      if (here < LEFT) left = memcpy(last, left, sizeof(word) * here * each);
      for (int64_t s = 0; s < columns; s += PAIR) {
        floats sums[LEFT][2] = {};
        const int parts = columns - s < PAIR ? 1 : 2;
        if (parts == 1) multiply(1, sums, left, each, 1, right + s, columns, each);
        else multiply(2, sums, left, each, 1, right + s, columns, each);
        for (int64_t r = 0; r < here; r++)
          for (int part = 0; part < parts; part++) {
            const int64_t at = s + part * LANES, there = rank - at < LANES ? rank - at : LANES;
            halves numbers = in_order(sums[r][part]);
            memcpy(low + (token + r) * rank + at, &numbers, sizeof(bf16) * there);
          }
      }
    }
    free(last);
  }
  free(right);
}

// out [N, W] = low [N, S], its rows `stride` apart, times the rows.
void widen(const bf16 *low, int64_t stride, const bf16 *rows, int64_t tokens, int64_t width, int64_t rank, bf16 *out) {
  const int64_t each = (rank + 1) / 2;
  word *left = calloc(up_to(tokens, LEFT) * each, sizeof(word));
  for (int64_t token = 0; token < tokens; token++) memcpy(left + token * each, low + token * stride, sizeof(bf16) * rank);
#pragma omp parallel
  {
    word *right = aligned_alloc(64, sizeof(word) * each * PAIR);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < width; i += PAIR) {
      for (int64_t s = 0; s < rank; s += 2) {
        const bf16 *one = rows + s * width + i;
        lay_two(one, s + 1 < rank ? one + width : NULL, PAIR, right + s / 2 * PAIR);
      }
      for (int64_t token = 0; token < tokens; token += LEFT) {
        floats sums[LEFT][2] = {};
        multiply(2, sums, left + token * each, each, 1, right, PAIR, each);
        UNROLL for (int r = 0; r < LEFT; r++)
          if (token + r < tokens) store(out + (token + r) * width + i, sums[r][0], sums[r][1]);
      }
    }
    free(right);
  }
  free(left);
}

// sums = low [N, S], turned, its rows `stride` apart, times input [N, W], times `factor`: float32 [S, W], or [W, S] if `turned`.
void gather(const bf16 *low, int64_t stride, const bf16 *input, int64_t tokens, int64_t width, int64_t rank, float factor,
            int64_t turned, float *out) {
  const int64_t count = up_to(tokens, PAIR), columns = up_to(rank, LEFT);
  word *left = calloc(count / 2 * columns, sizeof(word));
  for (int64_t token = 0; token < tokens; token++)
    for (int64_t s = 0; s < rank; s++) {
      const int64_t place = token / PAIR * HALF + token % HALF;
      left[place * columns + s] |= (word)low[token * stride + s] << (token % PAIR < HALF ? 0 : 16);
    }
#pragma omp parallel
  {
    word *right = aligned_alloc(64, sizeof(word) * count / 2 * PAIR);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < width; i += PAIR) {
      for (int64_t token = 0; token < tokens; token += PAIR)
        lay_rows(input + token * width + i, width, tokens - token, PAIR, right + token / 2 * PAIR, PAIR);
      for (int64_t s = 0; s < rank; s += LEFT) {
        floats sums[LEFT][2] = {};
        float numbers[LEFT][PAIR];
        multiply(2, sums, left + s, 1, columns, right, PAIR, count / 2);
        const int64_t here = rank - s < LEFT ? rank - s : LEFT;
        UNROLL for (int r = 0; r < LEFT; r++) store_in_order(numbers[r], sums[r][0] * factor, sums[r][1] * factor);
        for (int64_t r = 0; r < here; r++) {
          if (turned) for (int64_t n = 0; n < PAIR; n++) out[(i + n) * rank + s + r] = numbers[r][n];
          else memcpy(out + (s + r) * width + i, numbers[r], sizeof numbers[r]);
        }
      }
    }
    free(right);
  }
  free(left);
}
