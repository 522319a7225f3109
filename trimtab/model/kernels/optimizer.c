// A step of AdamW over what moves in bfloat16, in one pass over memory, and the sums of its gradients: a step of
// all weights is bound by memory.

#include "vectors.h"

// sum += gradient, number by number; sum = gradient where it is the `first`. `count` is a multiple of 16.
void add_gradient(const bf16 *gradient, float *sum, int64_t count, int64_t first) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += LANES) {
    floats more = in_floats(gradient + i);
    store_floats(sum + i, first ? more : load_floats(sum + i) + more);
  }
}

// Masters, in float32, and both moments move by the `gradient` times `scale`; `weight` becomes the master as it is then, rounded.
// `kept`: of the master, less what decays of it; `rate`: the learning rate over the correction of the mean; `spread`: the root of the
// correction of the squares. `count` is a multiple of 16.
void step_adam(const float *gradient, float *master, float *mean, float *square, bf16 *weight, int64_t count, float scale, float kept,
               float rate, float spread, float beta1, float beta2, float epsilon) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += LANES) {
    floats given = load_floats(gradient + i) * scale, first = load_floats(mean + i), second = load_floats(square + i);
    first += (given - first) * (1.0f - beta1);
    second = second * beta2 + given * given * (1.0f - beta2);
    floats now = load_floats(master + i) * kept - first / (root(second) / spread + epsilon) * rate;
    store_floats(mean + i, first);
    store_floats(square + i, second);
    store_floats(master + i, now);
    halves narrow = in_order(now);
    memcpy(weight + i, &narrow, sizeof narrow);
  }
}
