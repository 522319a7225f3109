// Linear layers for inference, in bfloat16 and float32: out [N, O] = input [N, I] · weight [O, I]ᵀ + bias [O].
//
// The sum behind each output has one order, over the inputs from the first to the last, whatever the number of tokens and of threads: a
// token gets the same bits alone and beside others (batch invariance). A weight is read in panels of 32 outputs, `[O / 32, K, 32]` words:
// K words of one input in float32, of two neighbouring inputs in bfloat16; the even outputs of a panel come before the odd ones. Outputs
// of the last panel that do not exist are 0.

#include "linear.h"

typedef uint32_t word __attribute__((may_alias, aligned(2)));

#ifdef __AVX512F__
enum { TOKENS = 8 };  // whose sums are in registers at once
#else
enum { TOKENS = 3 };
#endif
enum { MOST = 1024, CHUNK = 512 };  // longer rows are multiplied chunk by chunk: 64 kB of a panel stay in cache

// sum + left · right: of one number in float32, of two in bfloat16.
INLINE floats multiply_add(int wide, floats sum, word left, words right) {
  if (wide) return sum + (floats)((words){} + left) * (floats)right;
#ifdef __AVX512BF16__
  return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)((words){} + left), (__m512bh)right);
#else
  const words high = (words){} + 0xffff0000u;
  sum += (floats)((words){} + (left << 16)) * (floats)(right << 16);
  return sum + (floats)(((words){} + left) & high) * (floats)(right & high);
#endif
}

INLINE words load_word_vector(const word *from) {
  words given;
  memcpy(&given, from, sizeof given);
  return given;
}

// Words `from` to `from + count` of the panel that begins at output `column`.
// The words `k` on of a row, as many as there are up to 16; the others are 0.
INLINE words load_some_words(const word *row, int64_t k, int64_t count) {
  words given = {};
  if (count - k >= LANES) return load_word_vector(row + k);
  memcpy(&given, row + k, (count - k) * sizeof(word));
  return given;
}

// Words `from` to `from + count` of the panel that begins at output `column`.
static void pack_panel(int wide, const void *weight, int64_t inputs, int64_t outputs, int64_t column, int64_t from, int64_t count,
                       word *panel) {
  const int64_t words_of_row = wide ? inputs : inputs / 2;
  const word *first = (const word *)weight + column * words_of_row + from;
  for (int64_t k = 0; k < count; k += LANES)
    for (int odd = 0; odd < 2; odd++) {
      words rows[LANES];
      UNROLL for (int i = 0; i < LANES; i++) {
        const int64_t row = 2 * i + odd;
        rows[i] = (words){};
        if (column + row < outputs) rows[i] = load_some_words(first + row * words_of_row, k, count);
      }
      transpose(rows);
      UNROLL for (int i = 0; i < LANES; i++)
        if (k + i < count) memcpy(panel + (k + i) * PAIR + odd * LANES, rows + i, sizeof rows[i]);
    }
}

INLINE floats load_bias(int wide, const void *bias, int64_t column, int64_t outputs, int odd) {
  floats given = {};
  for (int i = 0; bias && i < LANES; i++) {
    const int64_t output = column + 2 * i + odd;
    if (output < outputs) given[i] = wide ? ((const float *)bias)[output] : in_float(((const bf16 *)bias)[output]);
  }
  return given;
}

INLINE void store_outputs(int wide, void *out, int64_t at, int64_t there, floats even, floats odd) {
  float row[PAIR];
  if (wide) {
    store_in_order(row, even, odd);
    if (there >= PAIR) memcpy((float *)out + at, row, sizeof row);
    else memcpy((float *)out + at, row, there * sizeof(float));
  } else if (there >= PAIR) {
    store((bf16 *)out + at, even, odd);
  } else {
    bf16 rounded_row[PAIR];
    store(rounded_row, even, odd);
    memcpy((bf16 *)out + at, rounded_row, there * sizeof(bf16));
  }
}

// Add to the sums of some tokens the products of `count` words of their rows, `stride` apart, with a panel's.
INLINE void multiply_panel(int wide, floats sums[TOKENS][2], const word *left, int64_t stride, const word *panel, int64_t count,
                           const char *next, int64_t step) {
  for (int64_t k = 0; k < count; k++) {
    const words even = load_word_vector(panel + k * PAIR), odd = load_word_vector(panel + k * PAIR + LANES);
    if (next) __builtin_prefetch(next + k * step);
    UNROLL for (int r = 0; r < TOKENS; r++) {
      const word value = left[r * stride + k];
      sums[r][0] = multiply_add(wide, sums[r][0], value, even);
      sums[r][1] = multiply_add(wide, sums[r][1], value, odd);
    }
  }
}

typedef struct {
  const void *input, *weight, *bias;
  int64_t is_packed, tokens, inputs, outputs;
  void *out;
  int64_t row, chunk, whole;  // words of a row and of a chunk; tokens in whole blocks
  word *lefts;                // [blocks, chunk]: the last tokens, or all of a chunk
  float *partial;             // [O / 32, blocks, 32]: the sums of earlier chunks
} linear_job;

// The outputs of one panel from the words `from` to `from + count`.
INLINE void multiply_column(int wide, const linear_job *j, int64_t column, int64_t from, int64_t count, word *buffer) {
  const int64_t blocks = up_to(j->tokens, TOKENS), panels = (j->outputs + PAIR - 1) / PAIR;
  const word *panel = (const word *)j->weight + (column / PAIR * j->row + from) * PAIR;
  const char *next = NULL;
  int64_t lines = 0;
  if (j->is_packed) {
    // Each block of tokens asks memory for its share of the next panel; a single block reads on anyway.
    const int64_t after = column / PAIR + 1 < panels ? j->row * PAIR : 0;
    lines = blocks > TOKENS && after ? (2 * count * TOKENS + blocks - 1) / blocks : 0;
    next = lines ? (const char *)(panel + after) : NULL;
  } else {
    pack_panel(wide, j->weight, j->inputs, j->outputs, column, from, count, buffer);
    panel = buffer;
  }
  const floats bias_even = load_bias(wide, j->bias, column, j->outputs, 0), bias_odd = load_bias(wide, j->bias, column, j->outputs, 1);
  for (int64_t token = 0; token < j->tokens; token += TOKENS) {
    floats sums[TOKENS][2];
    float *kept = j->partial + column * blocks + token * PAIR;
    UNROLL for (int r = 0; r < TOKENS; r++) {
      sums[r][0] = from ? load_floats(kept + r * PAIR) : bias_even;
      sums[r][1] = from ? load_floats(kept + r * PAIR + LANES) : bias_odd;
    }
    const word *left = j->lefts + (j->partial ? token : 0) * j->chunk;
    if (!j->partial && token < j->whole) left = (const word *)j->input + token * j->row;
    const int64_t stride = j->partial || token >= j->whole ? j->chunk : j->row;
    const char *ask = next ? next + token / TOKENS * lines * 64 : NULL;
    if (ask) multiply_panel(wide, sums, left, stride, panel, count, ask, 64 * lines / count + 1);
    else multiply_panel(wide, sums, left, stride, panel, count, NULL, 0);
    if (from + count < j->row) {
      UNROLL for (int r = 0; r < TOKENS; r++) {
        store_floats(kept + r * PAIR, sums[r][0]);
        store_floats(kept + r * PAIR + LANES, sums[r][1]);
      }
    } else {
      UNROLL for (int r = 0; r < TOKENS; r++)
        if (token + r < j->tokens)
          store_outputs(wide, j->out, (token + r) * j->outputs + column, j->outputs - column, sums[r][0], sums[r][1]);
    }
  }
}

static void multiply(int wide, const void *input, const void *weight, int64_t is_packed, const void *bias, int64_t tokens,
                     int64_t inputs, int64_t outputs, void *out) {
  const int64_t row = wide ? inputs : inputs / 2, chunk = row > MOST ? CHUNK : row, blocks = up_to(tokens, TOKENS);
  linear_job j = {input, weight, bias, is_packed, tokens, inputs, outputs, out, row, chunk, tokens / TOKENS * TOKENS};
  j.partial = chunk < row ? room_for(blocks * up_to(outputs, PAIR), sizeof(float)) : NULL;
  j.lefts = calloc((j.partial ? blocks : TOKENS) * chunk, sizeof(word));
  if (!j.partial) memcpy(j.lefts, (const word *)input + j.whole * row, sizeof(word) * (tokens - j.whole) * row);
#pragma omp parallel
  {
    word *buffer = is_packed ? NULL : room_for(chunk * PAIR, sizeof(word));
    for (int64_t from = 0; from < row; from += chunk) {
      const int64_t count = row - from < chunk ? row - from : chunk;
      if (j.partial) {
#pragma omp for schedule(static)
        for (int64_t token = 0; token < tokens; token++)
          memcpy(j.lefts + token * chunk, (const word *)input + token * row + from, sizeof(word) * count);
      }
#pragma omp for schedule(static)
      for (int64_t column = 0; column < outputs; column += PAIR) {
        if (wide) multiply_column(1, &j, column, from, count, buffer);
        else multiply_column(0, &j, column, from, count, buffer);
      }
    }
    free(buffer);
  }
  free(j.partial);
  free(j.lefts);
}

#ifndef __AMX_BF16__  // there oneDNN's products are several times as fast
void linear_bf16(const bf16 *input, const bf16 *weight, int64_t is_packed, const bf16 *bias, int64_t tokens, int64_t inputs,
                 int64_t outputs, bf16 *out) {
  multiply(0, input, weight, is_packed, bias, tokens, inputs, outputs, out);
}
#endif

void linear_fp32(const float *input, const float *weight, int64_t is_packed, const float *bias, int64_t tokens, int64_t inputs,
                 int64_t outputs, float *out) {
  multiply(1, input, weight, is_packed, bias, tokens, inputs, outputs, out);
}

static void pack(int wide, const void *weight, int64_t inputs, int64_t outputs, word *panels) {
  const int64_t row = wide ? inputs : inputs / 2;
#pragma omp parallel for schedule(static)
  for (int64_t column = 0; column < outputs; column += PAIR)
    pack_panel(wide, weight, inputs, outputs, column, 0, row, panels + column * row);
}

// A weight [O, I] in panels.
void pack_bf16(const bf16 *weight, int64_t inputs, int64_t outputs, word *panels) { pack(0, weight, inputs, outputs, panels); }

void pack_fp32(const float *weight, int64_t inputs, int64_t outputs, word *panels) { pack(1, weight, inputs, outputs, panels); }
