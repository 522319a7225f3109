// A decoder layer in training, with a low-rank change beside each of its weights or without, forward in one call and backward in
// another: by parts, a tenth of a step is spent between the calls.
//
// Every number is rounded where the parts by themselves round it (`model/fast/patch.py`, `model/adapters/lora.py`), but that the gradients of a place that
// is wanted twice are added up behind the product with the attention's output, and not before it. Shapes: N tokens, W width of the
// model, H query heads, K key/value heads, D head size, F width of the MLP, R rank, 0 where there are no changes.

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)

#include "layers.h"
#include "products.h"

enum { QUERY, KEY, VALUE, OUT, GATE, UP, DOWN, LINEARS };

typedef struct {
  const bf16 *weight, *bias;  // [O, I]; [O] or missing
  const float *a, *b;         // [R, I], [O, R]
  bf16 *grad;                 // [O, I], where the weight moves and its gradient is wanted
} changed;

// As `model/fast/train_layers.py` has it.
typedef struct {
  const bf16 *norm, *between;
  float *grad_norm, *grad_between;  // [W], as those of weights
  changed linears[LINEARS];
  int64_t width, heads, shared, size, wide, rank;
  float epsilon, between_epsilon, attention_scale, change_scale;
} train_layer;

static int64_t inputs_of(const train_layer *of, int linear) {
  return linear == OUT ? of->heads * of->size : linear == DOWN ? of->wide : of->width;
}

static int64_t outputs_of(const train_layer *of, int linear) {
  if (linear == QUERY) return of->heads * of->size;
  if (linear == KEY || linear == VALUE) return of->shared * of->size;
  return linear == GATE || linear == UP ? of->wide : of->width;
}

// Where each side of a change begins, of all A behind one another and all B behind them; those of one input lie side by side.
static void find_sides(const train_layer *of, int64_t a[LINEARS], int64_t b[LINEARS]) {
  int64_t at = 0;
  for (int i = 0; i < LINEARS; i++) a[i] = at, at += of->rank * inputs_of(of, i);
  for (int i = 0; i < LINEARS; i++) b[i] = at, at += of->rank * outputs_of(of, i);
}

// What is kept of a pass for its way back, behind one another in one block, whose size `model/fast/train_layers.py` counts.
typedef struct {
  bf16 *query, *key, *value, *attended, *sum, *gate, *up;  // [N, H, D], [N, K, D] twice, [N, H, D], [N, W], [N, F] twice
  bf16 *seen, *mixed, *entered, *left;                     // what A makes of inputs: [N, 3R], [N, R], [N, 2R], [N, R]
} activations;

static activations find_activations(const train_layer *of, int64_t tokens, bf16 *kept) {
  const int64_t heads = of->heads * of->size, shared = of->shared * of->size, rank = of->rank;
  const int64_t widths[] = {heads, shared, shared, heads, of->width, of->wide, of->wide, 3 * rank, rank, 2 * rank, rank};
  activations m;
  bf16 **parts[] = {&m.query, &m.key, &m.value, &m.attended, &m.sum, &m.gate, &m.up, &m.seen, &m.mixed, &m.entered, &m.left};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    *parts[i] = kept;
    kept += up_to(tokens * widths[i], PAIR);
  }
  return m;
}

static void round_a(const float *from, int64_t count, bf16 *to) {
  for (int64_t i = 0; i < count; i += LANES) {
    halves numbers = in_order(load_floats(from + i));
    memcpy(to + i, &numbers, sizeof numbers);
  }
}

// Columns of B from `r` on, `there` of them, as rows.
INLINE void round_columns(const float *from, int64_t outputs, int64_t rank, int64_t r, int64_t there, float scale, bf16 *to) {
  for (int64_t o = 0; o < outputs; o += LANES) {
    words rows[LANES] = {};
    UNROLL for (int i = 0; i < LANES; i++) memcpy(rows + i, from + (o + i) * rank + r, sizeof(float) * there);
    transpose(rows);
    for (int64_t i = 0; i < there; i++) {
      halves numbers = in_order((floats)rows[i] * scale);
      memcpy(to + (r + i) * outputs + o, &numbers, sizeof numbers);
    }
  }
}

// B [O, R] linear_forward the scale of the change, as [R, O].
static void round_b(const float *from, int64_t outputs, int64_t rank, float scale, bf16 *to) {
  int64_t r = 0;
  for (; r + LANES <= rank; r += LANES) round_columns(from, outputs, rank, r, LANES, scale, to);
  if (r < rank) round_columns(from, outputs, rank, r, rank - r, scale, to);
}

// All sides in bfloat16, where `find_sides` says; for the caller to free.
static bf16 *rounded_sides(const train_layer *of, int64_t a[LINEARS], int64_t b[LINEARS]) {
  find_sides(of, a, b);
  bf16 *sides = some(b[DOWN] + of->rank * outputs_of(of, DOWN));
  for (int i = 0; i < LINEARS && of->rank; i++) {
    round_a(of->linears[i].a, of->rank * inputs_of(of, i), sides + a[i]);
    round_b(of->linears[i].b, outputs_of(of, i), of->rank, of->change_scale, sides + b[i]);
  }
  return sides;
}

// What `rank` rows of A make of an input together, or of B of a gradient; nothing where there are no changes.
static void project_down(const bf16 *input, const bf16 *side, int64_t tokens, int64_t inputs, int64_t rank, bf16 *low, int64_t stride) {
  if (rank) narrow(input, side, tokens, inputs, rank, low, stride);
}

// The gradient of a weight, from that of what it put out and from what went in, where it is wanted.
static void weight_gradient(const train_layer *of, int linear, const bf16 *grad, const bf16 *input, int64_t tokens) {
  const int64_t inputs = inputs_of(of, linear), outputs = outputs_of(of, linear);
  bf16 *to = of->linears[linear].grad;
  if (to) gather(grad, outputs, input, tokens, inputs, outputs, 1.0f, 0, NULL, to);
}

// The gradient of `rank` rows of A, from what the way back and what the way forth made narrow; and that of B.
static void a_gradient(const bf16 *low, const bf16 *input, int64_t tokens, int64_t inputs, int64_t rank, float *to) {
  if (rank) gather(low, rank, input, tokens, inputs, rank, 1.0f, 0, to, NULL);
}

static void b_gradient(const train_layer *of, const bf16 *low, int64_t stride, const bf16 *grad, int64_t tokens, int64_t outputs,
                       float *to) {
  if (of->rank) gather(low, stride, grad, tokens, outputs, of->rank, of->change_scale, 1, to, NULL);
}

// What a linear layer puts out; `low` is what A made of its input, rows `stride` apart.
static void linear_forward(const train_layer *of, int linear, const bf16 *input, const bf16 *low, int64_t stride, const bf16 *b,
                           int64_t tokens, bf16 *out) {
  const changed *by = of->linears + linear;
  product(input, by->weight, FLAT, of->rank ? low : NULL, stride, b, of->rank, by->bias, 0, tokens, inputs_of(of, linear),
          outputs_of(of, linear), out);
}

// What a gradient [N, O] gives to the input; `low` and `a` are of all changes of one input together, `rank` rows of A, or of none.
static void linear_backward(const train_layer *of, int linear, const bf16 *grad, const bf16 *low, int64_t rank, const bf16 *a,
                            int64_t adds, int64_t tokens, bf16 *out) {
  product(grad, of->linears[linear].weight, UPRIGHT, rank ? low : NULL, rank, a, rank, NULL, adds, tokens, outputs_of(of, linear),
          inputs_of(of, linear), out);
}

// A copy of the `wanted` rows, `count` of them, for the caller to free.
static bf16 *select_rows(const bf16 *rows, int64_t width, const int64_t *wanted, int64_t count) {
  bf16 *to = some(count * width);
  for (int64_t i = 0; i < count; i++) memcpy(to + i * width, rows + wanted[i] * width, sizeof(bf16) * width);
  return to;
}

// The gradient of all `tokens` rows from that of the `wanted` ones, of which some may be the same; for the caller to free.
static bf16 *scatter_rows(const bf16 *grad, int64_t width, const int64_t *wanted, int64_t count, int64_t tokens) {
  bf16 *to = some(tokens * width);
  memset(to, 0, sizeof(bf16) * tokens * width);
  for (int64_t i = 0; i < count; i++) add_up(to + wanted[i] * width, grad + i * width, width, to + wanted[i] * width);
  return to;
}

// The output of a layer. kept: room for what `find_activations` says; log_sum [N, H]; hidden [N, W]; cos and sin [N, D]; out [N, W],
// or [M, W] of the M `wanted` tokens, which alone go on behind the attention where they are given.
void layer_forward(const train_layer *of, const bf16 *hidden, const bf16 *cos, const bf16 *sin, const int64_t *starts,
                   const int64_t *parents, const int64_t *roots, int64_t trees, int64_t tokens, const int64_t *wanted, int64_t count,
                   bf16 *kept, float *log_sum, bf16 *out) {
  const int64_t width = of->width, heads = of->heads * of->size, shared = of->shared * of->size, rank = of->rank;
  const activations m = find_activations(of, tokens, kept);
  int64_t a[LINEARS], b[LINEARS];
  bf16 *sides = rounded_sides(of, a, b);
  bf16 *normed = some(tokens * width), *mixed = some(tokens * of->wide);

  add_and_norm(hidden, NULL, of->norm, NULL, normed, tokens, width, of->epsilon);
  project_down(normed, sides + a[QUERY], tokens, width, 3 * rank, m.seen, 3 * rank);
  linear_forward(of, QUERY, normed, m.seen, 3 * rank, sides + b[QUERY], tokens, m.query);
  linear_forward(of, KEY, normed, m.seen + rank, 3 * rank, sides + b[KEY], tokens, m.key);
  linear_forward(of, VALUE, normed, m.seen + 2 * rank, 3 * rank, sides + b[VALUE], tokens, m.value);
  rotate(m.query, of->size, heads, m.query, of->size, heads, cos, sin, tokens, of->heads, of->size, 1.0f);
  rotate(m.key, of->size, shared, m.key, of->size, shared, cos, sin, tokens, of->shared, of->size, 1.0f);
  attend_causal(m.query, of->size, heads, m.key, of->size, shared, m.value, of->size, shared, starts, parents, roots, trees,
                of->shared, of->heads / of->shared, of->size, of->attention_scale, m.attended, log_sum, NULL, NULL, NULL, NULL);

  bf16 *before = wanted ? select_rows(hidden, width, wanted, count) : NULL;
  bf16 *seen = wanted ? select_rows(m.attended, heads, wanted, count) : NULL;
  const bf16 *attended = seen ? seen : m.attended;
  project_down(attended, sides + a[OUT], count, heads, rank, m.mixed, rank);
  linear_forward(of, OUT, attended, m.mixed, rank, sides + b[OUT], count, out);
  add_and_norm(before ? before : hidden, out, of->between, m.sum, normed, count, width, of->between_epsilon);
  project_down(normed, sides + a[GATE], count, width, 2 * rank, m.entered, 2 * rank);
  linear_forward(of, GATE, normed, m.entered, 2 * rank, sides + b[GATE], count, m.gate);
  linear_forward(of, UP, normed, m.entered + rank, 2 * rank, sides + b[UP], count, m.up);
  gated(m.gate, m.up, mixed, count * of->wide);
  project_down(mixed, sides + a[DOWN], count, of->wide, rank, m.left, rank);
  linear_forward(of, DOWN, mixed, m.left, rank, sides + b[DOWN], count, out);
  add_up(m.sum, out, count * width, out);
  free(before);
  free(seen);
  free(sides);
  free(normed);
  free(mixed);
}

// What the way back through a layer has at hand: what was kept of the way forth, all sides and where each begins, room for the gradients
// of sides, and for rows in between.
typedef struct {
  const train_layer *of;
  activations kept;
  bf16 *sides;
  int64_t a[LINEARS], b[LINEARS];
  float *grads;
  bf16 *low, *normed, *grad_normed;  // [N, 3R], [N, W] twice
} backward_pass;

// From the gradient of what the layer puts out at `count` tokens to that of the sum before the MLP, for the caller to free.
static bf16 *mlp_backward(const backward_pass *back, const bf16 *grad, int64_t count) {
  const train_layer *of = back->of;
  const int64_t width = of->width, wide = of->wide, rank = of->rank, *a = back->a, *b = back->b;
  const activations m = back->kept;
  const bf16 *sides = back->sides;
  bf16 *low = back->low, *normed = back->normed, *grad_normed = back->grad_normed, *grad_sum = some(count * width);
  bf16 *mixed = some(count * wide), *grad_mixed = some(count * wide), *grad_gate = some(count * wide), *grad_up = some(count * wide);
  project_down(grad, sides + b[DOWN], count, width, rank, low, rank);
  linear_backward(of, DOWN, grad, low, rank, sides + a[DOWN], 0, count, grad_mixed);
  gated_backward(m.gate, m.up, grad_mixed, grad_gate, grad_up, mixed, count * wide);
  a_gradient(low, mixed, count, wide, rank, back->grads + a[DOWN]);
  b_gradient(of, m.left, rank, grad, count, width, back->grads + b[DOWN]);
  weight_gradient(of, DOWN, grad, mixed, count);

  add_and_norm(m.sum, NULL, of->between, NULL, normed, count, width, of->between_epsilon);
  project_down(grad_gate, sides + b[GATE], count, wide, rank, low, 2 * rank);
  project_down(grad_up, sides + b[UP], count, wide, rank, low + rank, 2 * rank);
  linear_backward(of, GATE, grad_gate, low, 2 * rank, sides + a[GATE], 0, count, grad_normed);
  linear_backward(of, UP, grad_up, NULL, 0, NULL, 1, count, grad_normed);
  a_gradient(low, normed, count, width, 2 * rank, back->grads + a[GATE]);
  b_gradient(of, m.entered, 2 * rank, grad_gate, count, wide, back->grads + b[GATE]);
  b_gradient(of, m.entered + rank, 2 * rank, grad_up, count, wide, back->grads + b[UP]);
  weight_gradient(of, GATE, grad_gate, normed, count);
  weight_gradient(of, UP, grad_up, normed, count);
  norm_backward(m.sum, of->between, grad_normed, grad_sum, of->grad_between, count, width, of->between_epsilon);
  add_up(grad, grad_sum, count * width, grad_sum);
  free(mixed);
  free(grad_mixed);
  free(grad_gate);
  free(grad_up);
  return grad_sum;
}

// From the gradient of the sum before the MLP at `count` tokens, the `wanted` ones where they are given, to that of what was attended to
// at all of them, for the caller to free.
static bf16 *output_backward(const backward_pass *back, const bf16 *grad_sum, int64_t tokens, const int64_t *wanted, int64_t count) {
  const train_layer *of = back->of;
  const int64_t width = of->width, heads = of->heads * of->size, rank = of->rank;
  const activations m = back->kept;
  bf16 *low = back->low, *grad = some(count * heads), *seen = wanted ? select_rows(m.attended, heads, wanted, count) : NULL;
  const bf16 *attended = seen ? seen : m.attended;
  project_down(grad_sum, back->sides + back->b[OUT], count, width, rank, low, rank);
  linear_backward(of, OUT, grad_sum, low, rank, back->sides + back->a[OUT], 0, count, grad);
  a_gradient(low, attended, count, heads, rank, back->grads + back->a[OUT]);
  b_gradient(of, m.mixed, rank, grad_sum, count, width, back->grads + back->b[OUT]);
  weight_gradient(of, OUT, grad_sum, attended, count);
  free(seen);
  if (!wanted) return grad;
  bf16 *all = scatter_rows(grad, heads, wanted, count, tokens);
  free(grad);
  return all;
}

// From the gradients of queries, keys and values as products put them out to that of the layer's input, less what goes past the
// attention, for the caller to free; NULL where neither it nor its norm's is `wanted`.
static bf16 *projections_backward(const backward_pass *back, const bf16 *hidden, const bf16 *query, const bf16 *key, const bf16 *value,
                           int64_t tokens, int wanted) {
  const train_layer *of = back->of;
  const int64_t width = of->width, heads = of->heads * of->size, shared = of->shared * of->size, rank = of->rank, *a = back->a,
                *b = back->b;
  const activations m = back->kept;
  const bf16 *sides = back->sides;
  bf16 *low = back->low, *normed = back->normed, *grad_normed = back->grad_normed;
  add_and_norm(hidden, NULL, of->norm, NULL, normed, tokens, width, of->epsilon);
  project_down(query, sides + b[QUERY], tokens, heads, rank, low, 3 * rank);
  project_down(key, sides + b[KEY], tokens, shared, rank, low + rank, 3 * rank);
  project_down(value, sides + b[VALUE], tokens, shared, rank, low + 2 * rank, 3 * rank);
  a_gradient(low, normed, tokens, width, 3 * rank, back->grads + a[QUERY]);
  b_gradient(of, m.seen, 3 * rank, query, tokens, heads, back->grads + b[QUERY]);
  b_gradient(of, m.seen + rank, 3 * rank, key, tokens, shared, back->grads + b[KEY]);
  b_gradient(of, m.seen + 2 * rank, 3 * rank, value, tokens, shared, back->grads + b[VALUE]);
  weight_gradient(of, QUERY, query, normed, tokens);
  weight_gradient(of, KEY, key, normed, tokens);
  weight_gradient(of, VALUE, value, normed, tokens);
  if (!wanted) return NULL;
  bf16 *grad = some(tokens * width);
  linear_backward(of, QUERY, query, low, 3 * rank, sides + a[QUERY], 0, tokens, grad_normed);
  linear_backward(of, KEY, key, NULL, 0, NULL, 1, tokens, grad_normed);
  linear_backward(of, VALUE, value, NULL, 0, NULL, 1, tokens, grad_normed);
  norm_backward(hidden, of->norm, grad_normed, grad, of->grad_norm, tokens, width, of->epsilon);
  return grad;
}

// From grad, the gradient of what `layer_forward` put out, those of all sides, float32 as `find_sides` has them, B as [O, R]; of
// weights and norms where they are wanted; and grad_hidden [N, W] where that is.
void layer_backward(const train_layer *of, const bf16 *hidden, const bf16 *cos, const bf16 *sin, const int64_t *starts,
                    const int64_t *parents, const int64_t *roots, int64_t trees, int64_t tokens, const int64_t *wanted, int64_t count,
                    bf16 *kept, float *log_sum, const bf16 *grad, float *grads, bf16 *grad_hidden) {
  const int64_t width = of->width, heads = of->heads * of->size, shared = of->shared * of->size;
  backward_pass back = {.of = of, .kept = find_activations(of, tokens, kept), .grads = grads, .low = some(tokens * 3 * of->rank)};
  back.sides = rounded_sides(of, back.a, back.b);
  back.normed = some(tokens * width);
  back.grad_normed = some(tokens * width);
  const activations m = back.kept;

  bf16 *grad_sum = mlp_backward(&back, grad, count), *grad_attended = output_backward(&back, grad_sum, tokens, wanted, count);
  if (wanted) {
    bf16 *own = grad_sum;
    grad_sum = scatter_rows(own, width, wanted, count, tokens);
    free(own);
  }
  bf16 *query = some(tokens * heads), *key = some(tokens * shared), *value = some(tokens * shared);
  attend_causal(m.query, of->size, heads, m.key, of->size, shared, m.value, of->size, shared, starts, parents, roots, trees,
                of->shared, of->heads / of->shared, of->size, of->attention_scale, m.attended, log_sum, grad_attended, query, key,
                value);
  rotate(query, of->size, heads, query, of->size, heads, cos, sin, tokens, of->heads, of->size, -1.0f);
  rotate(key, of->size, shared, key, of->size, shared, cos, sin, tokens, of->shared, of->size, -1.0f);
  bf16 *grad_input = projections_backward(&back, hidden, query, key, value, tokens, grad_hidden || of->grad_norm);
  if (grad_hidden) add_up(grad_sum, grad_input, tokens * width, grad_hidden);

  bf16 *rooms[] = {back.sides, back.low, back.normed, back.grad_normed, grad_sum, grad_attended, query, key, value, grad_input};
  for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) free(rooms[i]);
}

#endif
