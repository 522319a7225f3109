// Matrix products of bfloat16 numbers of a flat row's tokens, with low-rank changes in the same sum.
//
// For processors with a dot product of such numbers and nothing larger: there torch's own are faster. No product has to be prepared for
// a number of tokens, and no sum is written before it is whole. Shapes: N tokens, I inputs and O outputs of a layer, both multiples of
// 32; S a rank.

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)

#include "layers.h"
#include "products.h"

enum { MOST = 1024, CHUNK = 512 };  // words of a row up to which it is multiplied whole, and else at once: 64 kB of a panel

// `count` words, from word `from` on, of 32 columns, the even columns before the odd.
INLINE void pack_panel(const bf16 *weight, int64_t order, int64_t inputs, int64_t outputs, int64_t column, int64_t from,
                      int64_t count, word *panel) {
  if (order == UPRIGHT) {
    const bf16 *rows = weight + 2 * from * outputs + column;
    for (int64_t k = 0; k < count; k++) pack_two(rows + 2 * k * outputs, rows + (2 * k + 1) * outputs, PAIR, panel + k * PAIR);
    return;
  }
  for (int64_t k = 0; k < count; k += LANES)
    for (int odd = 0; odd < 2; odd++) {
      words rows[LANES];
      UNROLL for (int i = 0; i < LANES; i++)
        rows[i] = load_words((const word *)(weight + (column + 2 * i + odd) * inputs) + from + k);
      transpose(rows);
      UNROLL for (int i = 0; i < LANES; i++) store_words(panel + (k + i) * PAIR + odd * LANES, rows[i]);
    }
}

// Where the line with number `line` lies of what becomes a panel: two for each word.
INLINE const char *line_of(const bf16 *weight, int64_t order, int64_t inputs, int64_t outputs, int64_t column, int64_t from,
                           int64_t count, int64_t line) {
  if (order == UPRIGHT) return (const char *)(weight + (2 * from + line) * outputs + column);
  const int64_t row = line * LANES / count;
  return (const char *)(weight + (column + row) * inputs + 2 * from + line * PAIR - row * count * 2);
}

// The sums of a block of tokens before its first word: low-rank changes, what stands there already, a bias.
INLINE void begin_sums(floats sums[LEFT][2], const word *lows, const word *sides, int64_t thin, const bf16 *bias, const bf16 *out,
                       int64_t outputs, int64_t rows) {
  if (thin) multiply(2, sums, lows, thin, 1, sides, PAIR, thin);
  for (int r = 0; r < LEFT; r++) {
    pair more = {};
    if (out && r < rows) more = load(out + r * outputs);
    if (bias) more = (pair){more.even + load(bias).even, more.odd + load(bias).odd};
    sums[r][0] += more.even;
    sums[r][1] += more.odd;
  }
}

// out [N, O] = input [N, I] · weight + low [N, S] · side [S, O] + bias [O], and, if `adds`, what stands in out already.
//
// Rows of low are `stride` apart; low and bias may be missing. Rows of many inputs are worked on a chunk after another, which is laid
// together first: rows that lie a power of two apart, or nearly, would have few lines of the caches to themselves.
void product(const bf16 *input, const bf16 *weight, int64_t order, const bf16 *low, int64_t stride, const bf16 *side, int64_t rank,
             const bf16 *bias, int64_t adds, int64_t tokens, int64_t inputs, int64_t outputs, bf16 *out) {
  const int64_t each = inputs / 2, thin = low ? (rank + 1) / 2 : 0, blocks = up_to(tokens, LEFT), whole = tokens / LEFT * LEFT;
  const int64_t chunk = each > MOST ? CHUNK : each;
  word *lows = calloc(blocks * thin + 1, sizeof(word)), *lefts = calloc((chunk < each ? blocks : LEFT) * chunk, sizeof(word));
  float *parts = chunk < each ? room_for(blocks * outputs, sizeof(float)) : NULL;  // [O / 32, N, 32]
  for (int64_t token = 0; thin && token < tokens; token++) memcpy(lows + token * thin, low + token * stride, sizeof(bf16) * rank);
  if (!parts) memcpy(lefts, input + whole * inputs, sizeof(bf16) * (tokens - whole) * inputs);  // the last block alone
#pragma omp parallel
  {
    word *panel = room_for(chunk * PAIR, sizeof(word)), *sides = room_for(thin * PAIR, sizeof(word));
    for (int64_t from = 0; from < each; from += chunk) {
      const int64_t count = each - from < chunk ? each - from : chunk;
      if (parts) {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < tokens; token++)
          memcpy(lefts + token * chunk, (const word *)input + token * each + from, sizeof(word) * count);
      }
#pragma omp for schedule(static)
      for (int64_t column = 0; column < outputs; column += PAIR) {
        for (int64_t s = 0; s < thin && !from; s++) {
          const bf16 *one = side + 2 * s * outputs + column;
          pack_two(one, 2 * s + 1 < rank ? one + outputs : NULL, PAIR, sides + s * PAIR);
        }
        pack_panel(weight, order, inputs, outputs, column, from, count, panel);
        // Each block asks for its part of the next panel: a line with each of its first words.
        const int64_t asks = blocks > LEFT ? (2 * count * LEFT + blocks - 1) / blocks : 0;
        const int64_t step = order == UPRIGHT ? outputs * sizeof(bf16) : asks ? 2 * PAIR : 0;
        for (int64_t token = 0; token < tokens; token += LEFT) {
          floats sums[LEFT][2] = {};
          float *own = parts + column * blocks + token * PAIR;
          if (from) {
            UNROLL for (int r = 0; r < LEFT; r++)
              UNROLL for (int part = 0; part < 2; part++) sums[r][part] = load_floats(own + r * PAIR + part * LANES);
          } else {
            const bf16 *there = adds ? out + token * outputs + column : NULL;
            begin_sums(sums, lows + token * thin, sides, thin, bias ? bias + column : NULL, there, outputs, tokens - token);
          }
          const word *left = parts ? lefts + token * chunk : token < whole ? (const word *)input + token * each : lefts;
          const char *ask = line_of(weight, order, inputs, outputs, column + PAIR, from, count, token / LEFT * asks);
          multiply_and_ask(2, sums, left, chunk, 1, panel, PAIR, asks, asks ? ask : NULL, step);
          multiply(2, sums, left + asks, chunk, 1, panel + asks * PAIR, PAIR, count - asks);
          if (from + count < each) {
            UNROLL for (int r = 0; r < LEFT; r++)
              UNROLL for (int part = 0; part < 2; part++) store_floats(own + r * PAIR + part * LANES, sums[r][part]);
          } else {
            UNROLL for (int r = 0; r < LEFT; r++)
              if (token + r < tokens) store(out + (token + r) * outputs + column, sums[r][0], sums[r][1]);
          }
        }
      }
    }
    free(panel);
    free(sides);
  }
  free(parts);
  free(lows);
  free(lefts);
}

// low [N, S] = input [N, I] times side [S, I], turned; rows of low are `stride` apart.
void narrow(const bf16 *input, const bf16 *side, int64_t tokens, int64_t inputs, int64_t rank, bf16 *low, int64_t stride) {
  const int64_t columns = up_to(rank, LANES), each = inputs / 2, whole = tokens / LEFT * LEFT;
  word *right = room_for(each * columns, sizeof(word)), *last = calloc(LEFT * each, sizeof(word));
  for (int64_t k = 0; k < each; k += LANES)
    for (int64_t s = 0; s < columns; s += LANES) {
      words rows[LANES] = {};
      for (int64_t i = 0; i < LANES && s + i < rank; i++) rows[i] = load_words((const word *)(side + (s + i) * inputs) + k);
      transpose(rows);
      UNROLL for (int i = 0; i < LANES; i++) store_words(right + (k + i) * columns + s, rows[i]);
    }
  memcpy(last, input + whole * inputs, sizeof(bf16) * (tokens - whole) * inputs);
#pragma omp parallel for schedule(static)
  for (int64_t token = 0; token < tokens; token += LEFT) {
    const word *left = token < whole ? (const word *)input + token * each : last;
    for (int64_t s = 0; s < columns; s += PAIR) {
      floats sums[LEFT][2] = {};
      const int parts = columns - s < PAIR ? 1 : 2;
      if (parts == 1) multiply(1, sums, left, each, 1, right + s, columns, each);
      else multiply(2, sums, left, each, 1, right + s, columns, each);
      for (int64_t r = 0; r < LEFT && token + r < tokens; r++)
        for (int part = 0; part < parts; part++) {
          const int64_t at = s + part * LANES, there = rank - at < LANES ? rank - at : LANES;
          halves numbers = in_order(sums[r][part]);
          memcpy(low + (token + r) * stride + at, &numbers, sizeof(bf16) * there);
        }
    }
  }
  free(right);
  free(last);
}

INLINE halves load_halves(const bf16 *from, int64_t there) {
  halves given = {};
  if (there == LANES) memcpy(&given, from, sizeof given);  // of a size that is known, and so no call
  else memcpy(&given, from, sizeof(bf16) * there);
  return given;
}

// The words of two rows [S] in their order, 8 of them to each of the groups, which are `apart`; the second row may be missing.
INLINE void pack_groups(const bf16 *one, const bf16 *other, int64_t rank, word *to, int64_t apart) {
  for (int64_t s = 0; s < rank; s += LANES) {
    const int64_t there = rank - s < LANES ? rank - s : LANES;
    halves first = load_halves(one + s, there), second = {};
    if (other) second = load_halves(other + s, there);
    words both = __builtin_convertvector(first, words) | __builtin_convertvector(second, words) << 16;
    memcpy(to + s / LEFT * apart, &both, sizeof both / 2);
    if (there > LEFT) memcpy(to + (s / LEFT + 1) * apart, (word *)&both + LEFT, sizeof both / 2);
  }
}

// Sums [8, 32] times `factor`, turned: to [32, 8], whose rows are `stride` apart.
INLINE void store_turned(floats sums[LEFT][2], float factor, bf16 *out, int64_t stride) {
  words both[LANES];  // the even columns, then the odd
  UNROLL for (int r = 0; r < LEFT; r++)
    UNROLL for (int part = 0; part < 2; part++) both[part * LEFT + r] = (words)(sums[r][part] * factor);
  transpose(both);
  UNROLL for (int i = 0; i < LANES; i++) {
    halves numbers = in_order((floats)both[i]);
    UNROLL for (int part = 0; part < 2; part++)
      memcpy(out + (2 * i + part) * stride, (char *)&numbers + part * sizeof numbers / 2, sizeof numbers / 2);
  }
}

// left [N, S], turned, its rows `stride` apart, times right [N, I], times `factor`: [S, I], or [I, S] if `turned`, to one of the two; to
// rounded_out turned where S is a multiple of 8.
void gather(const bf16 *left, int64_t stride, const bf16 *right, int64_t tokens, int64_t inputs, int64_t rank, float factor,
            int64_t turned, float *out, bf16 *rounded_out) {
  const int64_t count = up_to(tokens, PAIR) / 2, groups = up_to(rank, LEFT) / LEFT, apart = count * LEFT;
  const int64_t asks = groups > 1 ? (tokens + groups - 1) / groups : 0;  // lines of the next strip, of each group
  word *lefts = room_for(groups * apart, sizeof(word));  // [groups, N / 2, 8]
  memset(lefts, 0, sizeof(word) * groups * apart);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < count; k++) {
    const int64_t token = k / HALF * PAIR + k % HALF;
    const bf16 *one = left + token * stride;
    if (token < tokens) pack_groups(one, token + HALF < tokens ? one + HALF * stride : NULL, rank, lefts + k * LEFT, apart);
  }
#pragma omp parallel
  {
    word *strip = room_for(count * PAIR, sizeof(word));
#pragma omp for schedule(static)
    for (int64_t column = 0; column < inputs; column += PAIR) {
      for (int64_t token = 0; token < tokens; token += PAIR)
        pack_rows(right + token * inputs + column, inputs, tokens - token, PAIR, strip + token / 2 * PAIR, PAIR);
      for (int64_t s = 0; s < rank; s += LEFT) {
        floats sums[LEFT][2] = {};
        const word *own = lefts + s * count;
        const char *next = (const char *)(right + s / LEFT * asks * inputs + column + PAIR);
        multiply_and_ask(2, sums, own, 1, LEFT, strip, PAIR, asks, next, inputs * sizeof(bf16));
        multiply(2, sums, own + asks * LEFT, 1, LEFT, strip + asks * PAIR, PAIR, count - asks);
        if (rounded_out && turned) store_turned(sums, factor, rounded_out + column * rank + s, rank);
        for (int64_t r = 0; rounded_out && !turned && r < LEFT && s + r < rank; r++)
          store(rounded_out + (s + r) * inputs + column, sums[r][0] * factor, sums[r][1] * factor);
        if (rounded_out) continue;
        float numbers[LEFT][PAIR];
        UNROLL for (int r = 0; r < LEFT; r++) store_in_order(numbers[r], sums[r][0] * factor, sums[r][1] * factor);
        for (int64_t r = 0; r < LEFT && s + r < rank; r++) {
          if (turned) for (int64_t n = 0; n < PAIR; n++) out[(column + n) * rank + s + r] = numbers[r][n];
          else memcpy(out + (s + r) * inputs + column, numbers[r], sizeof numbers[r]);
        }
      }
    }
    free(strip);
  }
  free(lefts);
}

#endif
