// What a decoder layer of the known families does before its attention and behind it, in one call each, for answering (decision 58).
//
// Weights lie in panels (`products.c`). Every number is rounded where transformers rounds it. Shapes: N tokens, W width of the model, H
// query heads, K key/value heads, D head size, F width of the MLP.

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)

#include "layers.h"

static void times(const bf16 *input, const bf16 *panels, const bf16 *bias, int64_t tokens, int64_t inputs, int64_t outputs, bf16 *out) {
  product(input, panels, LAID, NULL, 0, NULL, 0, bias, 0, tokens, inputs, outputs, out);
}

static bf16 *some(int64_t count) { return room_for(count, sizeof(bf16)); }

// Each of some heads of rows, `stride` apart, by its norm.
static void norm_heads(bf16 *rows, int64_t stride, const bf16 *weight, int64_t tokens, int64_t heads, int64_t size, float epsilon) {
#pragma omp parallel for schedule(static)
  for (int64_t token = 0; token < tokens; token++)
    for (int64_t head = 0; head < heads; head++) {
      bf16 *own = rows + token * stride + head * size;
      norm_row(own, weight, own, size, epsilon);
    }
}

// Of hidden [N, W] the queries, keys and values [N, H + 2K, D], queries and keys at their positions; cos and sin are [N, D]. Bias and the
// norms of heads may be missing.
void enter_layer(const bf16 *hidden, const bf16 *norm, float epsilon, const bf16 *panels, const bf16 *bias, const bf16 *query_norm,
                 const bf16 *key_norm, float head_epsilon, const bf16 *cos, const bf16 *sin, int64_t tokens, int64_t width,
                 int64_t heads, int64_t shared, int64_t size, bf16 *out) {
  const int64_t outputs = (heads + 2 * shared) * size;
  bf16 *normed = some(tokens * width);
  add_and_norm(hidden, NULL, norm, NULL, normed, tokens, width, epsilon);
  times(normed, panels, bias, tokens, width, outputs, out);
  if (query_norm) norm_heads(out, outputs, query_norm, tokens, heads, size, head_epsilon);
  if (key_norm) norm_heads(out + heads * size, outputs, key_norm, tokens, shared, size, head_epsilon);
  rotate(out, size, outputs, out, size, outputs, cos, sin, tokens, heads + shared, size, 1.0f);
  free(normed);
}

// Of hidden [N, W] and attended [N, A] what the layer puts out, [N, W]. Biases may be missing.
void leave_layer(const bf16 *hidden, const bf16 *attended, const bf16 *out_panels, const bf16 *out_bias, const bf16 *norm,
                 float epsilon, const bf16 *gate_panels, const bf16 *gate_bias, const bf16 *up_panels, const bf16 *up_bias,
                 const bf16 *down_panels, const bf16 *down_bias, int64_t tokens, int64_t width, int64_t attends, int64_t wide,
                 bf16 *out) {
  bf16 *more = some(tokens * width), *sum = some(tokens * width), *normed = some(tokens * width);
  bf16 *gate = some(tokens * wide), *up = some(tokens * wide);
  times(attended, out_panels, out_bias, tokens, attends, width, more);
  add_and_norm(hidden, more, norm, sum, normed, tokens, width, epsilon);
  times(normed, gate_panels, gate_bias, tokens, width, wide, gate);
  times(normed, up_panels, up_bias, tokens, width, wide, up);
  gated(gate, up, gate, tokens * wide);
  times(gate, down_panels, down_bias, tokens, wide, width, more);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < tokens * width; i += PAIR) {
    pair first = load(sum + i), second = load(more + i);
    store(out + i, first.even + second.even, first.odd + second.odd);
  }
  free(more);
  free(sum);
  free(normed);
  free(gate);
  free(up);
}

#endif
