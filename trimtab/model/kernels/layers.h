// What kernels of whole layers are made of, and how a weight lies.

#pragma once

#include "vectors.h"

// As [O, I], or as [I, O].
enum { FLAT, UPRIGHT };

void add_and_norm(const bf16 *hidden, const bf16 *added, const bf16 *weight, bf16 *sum, bf16 *out, int64_t rows, int64_t width,
                  float epsilon);
void add_up(const bf16 *one, const bf16 *other, int64_t count, bf16 *out);
void attend_causal(const bf16 *query, int64_t query_head, int64_t query_token, const bf16 *key, int64_t key_head, int64_t key_token,
                   const bf16 *value, int64_t value_head, int64_t value_token, const int64_t *starts, const int64_t *parents,
                   const int64_t *roots, int64_t trees, int64_t shared, int64_t groups, int64_t size, float scale, bf16 *out,
                   float *log_sum, const bf16 *grad, bf16 *grad_query, bf16 *grad_key, bf16 *grad_value);
void gather(const bf16 *left, int64_t stride, const bf16 *right, int64_t tokens, int64_t inputs, int64_t rank, float factor,
            int64_t turned, float *out, bf16 *rounded_out);
void gated(const bf16 *gate, const bf16 *up, bf16 *out, int64_t count);
void gated_backward(const bf16 *gate, const bf16 *up, const bf16 *grad, bf16 *grad_gate, bf16 *grad_up, bf16 *out, int64_t count);
void narrow(const bf16 *input, const bf16 *side, int64_t tokens, int64_t inputs, int64_t rank, bf16 *low, int64_t stride);
void norm_backward(const bf16 *input, const bf16 *weight, const bf16 *grad, bf16 *grad_input, float *grad_weight, int64_t rows,
                   int64_t width, float epsilon);
void product(const bf16 *input, const bf16 *weight, int64_t order, const bf16 *low, int64_t stride, const bf16 *side, int64_t rank,
             const bf16 *bias, int64_t adds, int64_t tokens, int64_t inputs, int64_t outputs, bf16 *out);
void rotate(const bf16 *from, int64_t from_head, int64_t from_token, bf16 *to, int64_t to_head, int64_t to_token, const bf16 *cos,
            const bf16 *sin, int64_t tokens, int64_t heads, int64_t size, float sign);

INLINE bf16 *some(int64_t count) { return room_for(count, sizeof(bf16)); }

// RMS norm of one row, which may be written over.
INLINE void norm_row(const bf16 *row, const bf16 *weight, bf16 *out, int64_t width, float epsilon) {
  floats squares = {};
  for (int64_t i = 0; i < width; i += PAIR) {
    pair value = load(row + i);
    squares += value.even * value.even;
    squares += value.odd * value.odd;
  }
  const float scale = 1.0f / sqrtf(total(squares) / (float)width + epsilon);
  for (int64_t i = 0; i < width; i += PAIR) {
    pair value = load(row + i), by = load(weight + i);
    store(out + i, in_bf16(value.even * scale) * by.even, in_bf16(value.odd * scale) * by.odd);
  }
}
