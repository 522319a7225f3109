// What a bfloat16 model does beside its products, each in one pass over memory, with gradients.
//
// Numbers are added up in float32 and rounded where torch rounds, to the nearest and to even. Shapes: N tokens, H heads, D head size, W
// width, T places. W is a multiple of 32, D of 64.

#include "layers.h"

// out = norm(hidden + added) · weight, and the sum itself; `added` may be missing. All are [N, W].
void add_and_norm(const bf16 *hidden, const bf16 *added, const bf16 *weight, bf16 *sum, bf16 *out, int64_t rows, int64_t width,
                  float epsilon) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const int64_t at = row * width;
    if (added)
      for (int64_t i = 0; i < width; i += PAIR) {
        pair value = load(hidden + at + i), more = load(added + at + i);
        store(sum + at + i, value.even + more.even, value.odd + more.odd);
      }
    norm_row((added ? sum : hidden) + at, weight, out + at, width, epsilon);
  }
}

// out = one + other, number by number; `count` is a multiple of 32.
void add_up(const bf16 *one, const bf16 *other, int64_t count, bf16 *out) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += PAIR) {
    pair first = load(one + i), second = load(other + i);
    store(out + i, first.even + second.even, first.odd + second.odd);
  }
}

// The gradient of a norm's input, [N, W], from that of its output; and of its weight, float32 [W], where it is wanted.
void norm_backward(const bf16 *input, const bf16 *weight, const bf16 *grad, bf16 *grad_input, float *grad_weight, int64_t rows,
                   int64_t width, float epsilon) {
  float *scales = malloc(sizeof(float) * rows);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const int64_t at = row * width;
    floats squares = {}, products = {};
    for (int64_t i = 0; i < width; i += PAIR) {
      pair value = load(input + at + i), by = load(weight + i), given = load(grad + at + i);
      squares += value.even * value.even + value.odd * value.odd;
      products += value.even * given.even * by.even + value.odd * given.odd * by.odd;
    }
    const float scale = 1.0f / sqrtf(total(squares) / (float)width + epsilon);
    const float along = total(products) / (float)width * scale * scale * scale;
    scales[row] = scale;
    for (int64_t i = 0; i < width; i += PAIR) {
      pair value = load(input + at + i), by = load(weight + i), given = load(grad + at + i);
      store(grad_input + at + i, given.even * by.even * scale - value.even * along,
            given.odd * by.odd * scale - value.odd * along);
    }
  }
  if (grad_weight) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < width; i += PAIR) {
      pair sum = {};
      for (int64_t row = 0; row < rows; row++) {
        pair value = load(input + row * width + i), given = load(grad + row * width + i);
        sum.even += given.even * in_bf16(value.even * scales[row]);
        sum.odd += given.odd * in_bf16(value.odd * scales[row]);
      }
      store_in_order(grad_weight + i, sum.even, sum.odd);
    }
  }
  free(scales);
}

// Beyond this SiLU and its derivative are 0: `exponential` goes no further than 88, and a larger factor would not stay next to nothing.
static const float LEAST_GATE = -88.0f;

INLINE floats sigmoid(floats x) { return chosen(x < LEAST_GATE, (floats){}, inverse(1.0f + exponential(-x))); }

// x · sigmoid(x): of minus infinity -0, the limit, where torch has infinity by infinity, NaN.
INLINE floats silu(floats x) { return in_bf16(at_least(x, 2 * LEAST_GATE) * sigmoid(x)); }

// out = SiLU(gate) · up, number by number; `count` is a multiple of 32.
void gated(const bf16 *gate, const bf16 *up, bf16 *out, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += PAIR) {
    pair value = load(gate + i), by = load(up + i);
    store(out + i, silu(value.even) * by.even, silu(value.odd) * by.odd);
  }
}

INLINE void gate_gradients(floats gate, floats up, floats grad, floats *grad_gate, floats *grad_up) {
  const floats share = sigmoid(gate);
  *grad_up = grad * silu(gate);
  *grad_gate = in_bf16(grad * up) * share * (1.0f + at_least(gate, 2 * LEAST_GATE) * (1.0f - share));
}

// The gradients of `gated`'s gate and up; and what it put out, where that is wanted again.
void gated_backward(const bf16 *gate, const bf16 *up, const bf16 *grad, bf16 *grad_gate, bf16 *grad_up, bf16 *out, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += PAIR) {
    pair value = load(gate + i), by = load(up + i), given = load(grad + i), to_gate, to_up;
    gate_gradients(value.even, by.even, given.even, &to_gate.even, &to_up.even);
    gate_gradients(value.odd, by.odd, given.odd, &to_gate.odd, &to_up.odd);
    store(grad_gate + i, to_gate.even, to_gate.odd);
    store(grad_up + i, to_up.even, to_up.odd);
    if (out) store(out + i, silu(value.even) * by.even, silu(value.odd) * by.odd);
  }
}

INLINE floats turned(floats one, floats other, floats cos, floats sin) { return in_bf16(one * cos) + in_bf16(other * sin); }

// Turn heads [H, N, D] to their positions, by their strides; cos and sin are [N, D]. `sign` -1 turns them back, as gradients go.
void rotate(const bf16 *from, int64_t from_head, int64_t from_token, bf16 *to, int64_t to_head, int64_t to_token, const bf16 *cos,
            const bf16 *sin, int64_t tokens, int64_t heads, int64_t size, float sign) {
  const int64_t half = size / 2;
#pragma omp parallel for schedule(static)
  for (int64_t token = 0; token < tokens; token++)
    for (int64_t head = 0; head < heads; head++)
      for (int64_t i = 0; i < half; i += PAIR) {
        const bf16 *low = from + head * from_head + token * from_token + i, *high = low + half;
        bf16 *to_low = to + head * to_head + token * to_token + i, *to_high = to_low + half;
        pair first = load(low), second = load(high);
        pair c = load(cos + token * size + i), s = load(sin + token * size + i);
        pair c_high = load(cos + token * size + half + i), s_high = load(sin + token * size + half + i);
        store(to_low, turned(first.even, second.even, c.even, -sign * s.even),
              turned(first.odd, second.odd, c.odd, -sign * s.odd));
        store(to_high, turned(second.even, first.even, c_high.even, sign * s_high.even),
              turned(second.odd, first.odd, c_high.odd, sign * s_high.odd));
      }
}

// Scores [rows, T] become weights, in place: the softmax of each row times `scale`, and in log_sum [rows] the logarithm of what it
// divides by. Of every `queries` rows the last sees all T places and each one before it one place less; of `queries` = 1 all see all.
void softmax(bf16 *scores, int64_t rows, int64_t places, int64_t queries, float scale, float *log_sum) {
  const int64_t padded = (places + PAIR - 1) / PAIR * PAIR;
#pragma omp parallel
  {
    float *weights = malloc(sizeof(float) * padded);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
      bf16 *own = scores + row * places, last[PAIR];
      const int64_t seen = places - queries + row % queries + 1, whole = seen - seen % PAIR;
      for (int64_t i = 0; i < PAIR; i++) last[i] = whole + i < seen ? own[whole + i] : 0xff80;  // minus infinity
      floats highest = (floats){} - INFINITY, sums = {};
      for (int64_t t = 0; t < seen; t += PAIR) {
        pair score = load(t < whole ? own + t : last);
        score = (pair){score.even * scale, score.odd * scale};
        highest = chosen(score.even > highest, score.even, highest);
        highest = chosen(score.odd > highest, score.odd, highest);
      }
      const float most = largest(highest);
      for (int64_t t = 0; t < seen; t += PAIR) {
        pair score = load(t < whole ? own + t : last);
        floats even = exponential(score.even * scale - most), odd = exponential(score.odd * scale - most);
        sums += even;
        sums += odd;
        store_floats(weights + t, even);
        store_floats(weights + t + LANES, odd);
      }
      const float sum = total(sums), share = 1.0f / sum;
      for (int64_t t = 0; t < whole; t += PAIR)
        store(own + t, load_floats(weights + t) * share, load_floats(weights + t + LANES) * share);
      if (whole < seen) store(last, load_floats(weights + whole) * share, load_floats(weights + whole + LANES) * share);
      for (int64_t t = whole; t < places; t++) own[t] = t < seen ? last[t - whole] : 0;
      log_sum[row] = most + logf(sum);
    }
    free(weights);
  }
}

INLINE pair load_some(const bf16 *from, int64_t count) {
  bf16 some[PAIR] = {};
  for (int64_t i = 0; i < count; i++) some[i] = from[i];
  return load(some);
}

// The gradient of scores [rows, T], in place of that of their weights, the softmax of these scores.
void softmax_backward(const bf16 *weights, bf16 *grads, int64_t rows, int64_t places) {
  const int64_t whole = places - places % PAIR, rest = places - whole;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const bf16 *own = weights + row * places;
    bf16 *given = grads + row * places, last[PAIR];
    const pair last_weight = load_some(own + whole, rest), last_grad = load_some(given + whole, rest);
    floats sums = last_weight.even * last_grad.even + last_weight.odd * last_grad.odd;
    for (int64_t t = 0; t < whole; t += PAIR) {
      pair weight = load(own + t), grad = load(given + t);
      sums += weight.even * grad.even;
      sums += weight.odd * grad.odd;
    }
    const float mean = total(sums);
    for (int64_t t = 0; t < whole; t += PAIR) {
      pair weight = load(own + t), grad = load(given + t);
      store(given + t, weight.even * (grad.even - mean), weight.odd * (grad.odd - mean));
    }
    store(last, last_weight.even * (last_grad.even - mean), last_weight.odd * (last_grad.odd - mean));
    memcpy(given + whole, last, sizeof(bf16) * rest);
  }
}

// The sum of e to the power of each number less the largest of them.
INLINE float summed_exponentials(const bf16 *numbers, int64_t width, float *most) {
  floats highest = (floats){} - INFINITY, sums = {};
  for (int64_t i = 0; i < width; i += PAIR) {
    pair number = load(numbers + i);
    highest = chosen(number.even > highest, number.even, highest);
    highest = chosen(number.odd > highest, number.odd, highest);
  }
  *most = largest(highest);
  for (int64_t i = 0; i < width; i += PAIR) {
    pair number = load(numbers + i);
    sums += exponential(number.even - *most);
    sums += exponential(number.odd - *most);
  }
  return total(sums);
}

// The logarithm of each row's summed exponentials [N], of bfloat16 scores [N, W].
void log_sums(const bf16 *scores, int64_t rows, int64_t width, float *out) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    float most;
    const float sum = summed_exponentials(scores + row * width, width, &most);
    out[row] = most + logf(sum);
  }
}

// Of logits [rows, V] the logarithm log_p [rows] of each label's probability; where `scale` [rows] is given, the logits become
// the gradient of log_p times it, scale · (1[label] - p).
void label_scores(bf16 *logits, const int64_t *labels, const float *scale, float *log_p, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    bf16 *own = logits + row * width;
    float most;
    const float sum = summed_exponentials(own, width, &most), score = in_float(own[labels[row]]) - most;
    log_p[row] = score - logf(sum);
    if (!scale) continue;
    const float share = -scale[row] / sum;
    for (int64_t i = 0; i < width; i += PAIR) {
      pair logit = load(own + i);
      store(own + i, exponential(logit.even - most) * share, exponential(logit.odd - most) * share);
    }
    own[labels[row]] = one_in_bf16(scale[row] * (1.0f - expf(score) / sum));
  }
}
