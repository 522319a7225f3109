// Decoder layers of the known families, for answering: all of them in one call.
//
// Weights are packed in panels (`linear.c`). Every number is rounded where transformers rounds it. Shapes: N tokens, W width of the model, H
// query heads, K key/value heads, D head size, F width of the MLP, T places of a slot.

#ifndef __AMX_BF16__

#include "attention.h"
#include "layers.h"
#include "linear.h"

typedef struct {
  const bf16 *panels, *bias;
} linear;

// As `model/fast/inference_layers.py` has it. Bias and the norms of heads may be missing.
typedef struct {
  const bf16 *norm, *between, *query_norm, *key_norm;
  linear in, out, gate, up, down;
  int64_t width, heads, shared, size, wide;
  float epsilon, between_epsilon, query_epsilon, key_epsilon;
} layer;

static void times(const bf16 *input, linear by, int64_t tokens, int64_t inputs, int64_t outputs, bf16 *out) {
  linear_bf16(input, by.panels, 1, by.bias, tokens, inputs, outputs, out);
}

// Each of some heads of rows, `stride` apart, by its norm.
static void norm_heads(bf16 *rows, int64_t stride, const bf16 *weight, int64_t tokens, int64_t heads, int64_t size, float epsilon) {
#pragma omp parallel for schedule(static)
  for (int64_t token = 0; token < tokens; token++)
    for (int64_t head = 0; head < heads; head++) {
      bf16 *own = rows + token * stride + head * size;
      norm_row(own, weight, own, size, epsilon);
    }
}

static int64_t all_heads(const layer *of) { return of->heads + 2 * of->shared; }

// Of hidden [N, W] the queries, keys and values [N, H + 2K, D], queries and keys at their positions; cos and sin are [N, D].
static void enter_layer(const layer *of, const bf16 *hidden, const bf16 *cos, const bf16 *sin, int64_t tokens, bf16 *out) {
  const int64_t outputs = all_heads(of) * of->size;
  bf16 *normed = some(tokens * of->width);
  add_and_norm(hidden, NULL, of->norm, NULL, normed, tokens, of->width, of->epsilon);
  times(normed, of->in, tokens, of->width, outputs, out);
  if (of->query_norm) norm_heads(out, outputs, of->query_norm, tokens, of->heads, of->size, of->query_epsilon);
  if (of->key_norm) norm_heads(out + of->heads * of->size, outputs, of->key_norm, tokens, of->shared, of->size, of->key_epsilon);
  rotate(out, of->size, outputs, out, of->size, outputs, cos, sin, tokens, of->heads + of->shared, of->size, 1.0f);
  free(normed);
}

// Of hidden [N, W] and attended [N, H, D] what the layer puts out, [N, W], which may be where hidden is.
static void leave_layer(const layer *of, const bf16 *hidden, const bf16 *attended, int64_t tokens, bf16 *out) {
  const int64_t width = of->width, wide = of->wide;
  bf16 *more = some(tokens * width), *sum = some(tokens * width), *normed = some(tokens * width);
  bf16 *gate = some(tokens * wide), *up = some(tokens * wide);
  times(attended, of->out, tokens, of->heads * of->size, width, more);
  add_and_norm(hidden, more, of->between, sum, normed, tokens, width, of->between_epsilon);
  times(normed, of->gate, tokens, width, wide, gate);
  times(normed, of->up, tokens, width, wide, up);
  gated(gate, up, gate, tokens * wide);
  times(gate, of->down, tokens, wide, width, more);
  add_up(sum, more, tokens * width, out);
  free(more);
  free(sum);
  free(normed);
  free(gate);
  free(up);
}

// `count` layers one after the other, each with its cache; `job` describes the tokens (`attention.h`). hidden and out are [N, W].
void decoder_layers(const layer *layers, int64_t count, const bf16 *hidden, const bf16 *cos, const bf16 *sin, int64_t tokens,
                    const attention_job *job, const layer_cache *caches, bf16 *out) {
  const int64_t apart = all_heads(layers) * layers->size, size = layers->size;
  bf16 *all = some(tokens * apart), *attended = some(tokens * layers->heads * size);
  for (int64_t i = 0; i < count; i++) {
    const layer *of = layers + i;
    const bf16 *from = i ? out : hidden, *key = all + of->heads * size, *value = key + of->shared * size;
    enter_layer(of, from, cos, sin, tokens, all);
    attention_job j = *job;
    j.query = all, j.key = key, j.value = value, j.out = attended;
    j.query_head = j.key_head = j.value_head = size;
    j.query_token = j.key_token = j.value_token = apart;
    attend_cached(&j, caches + i);
    leave_layer(of, from, attended, tokens, out);
  }
  free(all);
  free(attended);
}

#endif
