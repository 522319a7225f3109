// Causal attention of whole sequences with its gradient, of which nothing is kept but a sum for each query.
//
// Sequences lie end to end in one row and form trees: one goes on from its parent, which stands before it, and sees all of its
// ancestors. A tree and a key head are worked on by one thread: its keys and values are laid out once, each sequence from a multiple of
// 32 places on; 32 queries of a head have all their scores at once. Shapes: N tokens, H query heads, K key/value heads, G = H / K,
// D head size, a multiple of 32, P places of a tree, C columns of a block's scores.

#ifdef __AVX512BF16__

#include "products.h"

typedef struct {
  const bf16 *numbers;
  int64_t head, token;  // how far apart
} side;

// What is asked for: the attention, or where `grad` is given its gradients.
typedef struct {
  side query, key, value;                   // [H, N, D], [K, N, D], [K, N, D]
  const int64_t *starts, *parents, *roots;  // [S + 1] tokens; [S] sequences, -1 for none; [trees + 1] sequences
  int64_t trees, shared, groups, size;
  float scale;
  bf16 *out;       // [N, H, D]
  float *log_sum;  // [N, H], the logarithm of the summed weights
  const bf16 *grad;                          // [N, H, D]
  bf16 *grad_query, *grad_key, *grad_value;  // [N, H, D], [N, K, D], [N, K, D]
} job;

// Places that a sequence sees: where they are in the tree and in the scores, how many, rounded up, and how many are tokens.
typedef struct {
  int64_t place, column, width, seen;
} span;

typedef struct {
  word *keys, *values, *key_rows;        // [D / 2, P], [D / 2, P] or [P / 2, D], [P / 2, D]
  float *key_sums, *value_sums;          // [P, D], in the order of `pack_rows`
  word *queries, *grads;                 // [32, D / 2]
  word *query_rows, *grad_rows;          // [16, D]
  float *scores, *slopes;                // [32, C]
  word *weights, *weight_rows, *slope_rows;  // [32, C / 2], [16, C], [16, C]
  int64_t *places;                       // [sequences of the tree]
  span *spans;
  int64_t room;                          // places of the largest tree
} workspace;

INLINE int64_t padded(int64_t count) { return up_to(count, PAIR); }

static int64_t largest_tree(const job *j, int64_t *sequences) {
  int64_t most = 0;
  *sequences = 0;
  for (int64_t tree = 0; tree < j->trees; tree++) {
    int64_t places = 0, first = j->roots[tree], end = j->roots[tree + 1];
    for (int64_t one = first; one < end; one++) places += padded(j->starts[one + 1] - j->starts[one]);
    most = places > most ? places : most;
    *sequences = end - first > *sequences ? end - first : *sequences;
  }
  return most;
}

static void set_up(workspace *d, const job *j) {
  int64_t sequences, room = largest_tree(j, &sequences), size = j->size, block = PAIR;
  d->room = room;
  d->places = room_for(sequences, sizeof(int64_t));
  d->spans = room_for(sequences, sizeof(span));
  d->keys = room_for(room * size / 2, sizeof(word));
  d->values = room_for(room * size / 2, sizeof(word));
  d->queries = room_for(block * size / 2, sizeof(word));
  d->scores = room_for(block * room, sizeof(float));
  d->weights = room_for(block * room / 2, sizeof(word));
  if (!j->grad) return;
  d->key_rows = room_for(room * size / 2, sizeof(word));
  d->key_sums = room_for(room * size, sizeof(float));
  d->value_sums = room_for(room * size, sizeof(float));
  d->grads = room_for(block * size / 2, sizeof(word));
  d->query_rows = room_for(HALF * size, sizeof(word));
  d->grad_rows = room_for(HALF * size, sizeof(word));
  d->slopes = room_for(block * room, sizeof(float));
  d->weight_rows = room_for(HALF * room, sizeof(word));
  d->slope_rows = room_for(HALF * room, sizeof(word));
}

static void clear_up(workspace *d) {
  void *all[] = {d->places, d->spans, d->keys, d->values, d->queries, d->scores, d->weights, d->key_rows, d->key_sums, d->value_sums,
                 d->grads, d->query_rows, d->grad_rows, d->slopes, d->weight_rows, d->slope_rows};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void pack_as_columns(const workspace *d, const job *j, int64_t tree, const bf16 *from, int64_t token, word *to) {
  for (int64_t one = j->roots[tree]; one < j->roots[tree + 1]; one++)
    pack_columns(from + j->starts[one] * token, token, j->starts[one + 1] - j->starts[one], j->size,
                to + d->places[one - j->roots[tree]], d->room);
}

static void pack_as_rows(const workspace *d, const job *j, int64_t tree, const bf16 *from, int64_t token, word *to) {
  for (int64_t one = j->roots[tree]; one < j->roots[tree + 1]; one++) {
    const int64_t place = d->places[one - j->roots[tree]], length = j->starts[one + 1] - j->starts[one];
    for (int64_t t = 0; t < length; t += PAIR)
      pack_rows(from + (j->starts[one] + t) * token, token, length - t, j->size, to + (place + t) / 2 * j->size, j->size);
  }
}

static void find_places(workspace *d, const job *j, int64_t tree) {
  int64_t place = 0;
  for (int64_t one = j->roots[tree]; one < j->roots[tree + 1]; one++) {
    d->places[one - j->roots[tree]] = place;
    place += padded(j->starts[one + 1] - j->starts[one]);
  }
}

// What queries of a sequence from `first` on see, up to the token before `end`: their own sequence first. Gives all columns.
static int64_t find_spans(workspace *d, const job *j, int64_t tree, int64_t sequence, int64_t first, int64_t end, int64_t *count) {
  int64_t columns = 0;
  *count = 0;
  for (int64_t one = sequence; one >= 0; one = j->parents[one]) {
    const int64_t seen = one == sequence ? end : j->starts[one + 1] - j->starts[one];
    d->spans[*count] = (span){d->places[one - j->roots[tree]], columns, padded(seen), *count ? seen : first + 1};
    columns += d->spans[(*count)++].width;
  }
  return columns;
}

// 32 rows [32, W] behind one another, those that are not there 0.
INLINE void take(const bf16 *from, int64_t token, int64_t rows, int64_t size, word *to) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < size / 2; i += LANES) store_words(to + r * size / 2 + i, load_words((const word *)(from + r * token) + i));
  memset(to + rows * size / 2, 0, sizeof(bf16) * (PAIR - rows) * size);
}

// Products of rows [32, D / 2], the first `rows` of them, with the columns of a tree.
static void score(const workspace *d, int64_t count, const word *left, int64_t rows, int64_t size, const word *columns, int64_t width,
                  float scale, float *scores) {
  for (int64_t one = 0; one < count; one++) {
    const span seen = d->spans[one];
    for (int64_t t = 0; t < seen.width; t += PAIR)
      for (int64_t r = 0; r < rows; r += LEFT) {
        floats sums[LEFT][2] = {};
        multiply(2, sums, left + r * size / 2, size / 2, 1, columns + seen.place + t, d->room, size / 2);
        UNROLL for (int i = 0; i < LEFT; i++)
          UNROLL for (int part = 0; part < 2; part++)
            store_floats(scores + (r + i) * width + seen.column + t + part * LANES, sums[i][part] * scale);
      }
  }
}

// Of weights [32, C / 2] and the rows of a tree the sums [rows, D], each row times its share.
static void sum_up(const workspace *d, int64_t count, const word *weights, const float *shares, int64_t rows, int64_t width,
                   const word *right, int64_t size, bf16 *out, int64_t token) {
  for (int64_t i = 0; i < size; i += PAIR)
    for (int64_t r = 0; r < rows; r += LEFT) {
      floats sums[LEFT][2] = {};
      for (int64_t one = 0; one < count; one++) {
        const span seen = d->spans[one];
        multiply(2, sums, weights + (r * width + seen.column) / 2, width / 2, 1, right + seen.place / 2 * size + i, size,
                 seen.width / 2);
      }
      UNROLL for (int n = 0; n < LEFT; n++)
        if (r + n < rows) store(out + (r + n) * token + i, sums[n][0] * shares[r + n], sums[n][1] * shares[r + n]);
    }
}

// To each place that is seen, [P, D], the products of its column in rows [16, C] with rows [16, D].
static void give(const workspace *d, int64_t count, const word *columns, int64_t width, const word *rows, int64_t size, float *to) {
  for (int64_t one = 0; one < count; one++) {
    const span seen = d->spans[one];
    for (int64_t t = 0; t < seen.width; t += LEFT)
      for (int64_t i = 0; i < size; i += PAIR) {
        float *own = to + (seen.place + t) * size + i;
        floats sums[LEFT][2];
        UNROLL for (int n = 0; n < LEFT; n++)
          UNROLL for (int part = 0; part < 2; part++) sums[n][part] = load_floats(own + n * size + part * LANES);
        multiply(2, sums, columns + seen.column + t, 1, width, rows + i, size, HALF);
        UNROLL for (int n = 0; n < LEFT; n++)
          UNROLL for (int part = 0; part < 2; part++) store_floats(own + n * size + part * LANES, sums[n][part]);
      }
  }
}

// Scores of one query that it may not see.
INLINE void hide(const workspace *d, int64_t count, int64_t row, float *scores) {
  for (int64_t one = 0; one < count; one++) {
    const span seen = d->spans[one];
    for (int64_t t = one ? seen.seen : seen.seen + row; t < seen.width; t++) scores[seen.column + t] = -INFINITY;
  }
}

// Scores of a query become weights, e to the power of each less the largest of them, in words of columns 16 apart; gives their sum.
INLINE float weights_in_words(const float *scores, int64_t columns, word *weights, float *most) {
  floats sums = {};
  *most = largest_of(scores, columns);
  for (int64_t t = 0; t < columns; t += PAIR) {
    floats low = exponential(load_floats(scores + t) - *most), high = exponential(load_floats(scores + t + LANES) - *most);
    sums += low + high;
    store_words(weights + t / 2, joined(low, high));
  }
  return total(sums);
}

// Queries of a block, which starts at the place `where` of [N, H].
static void attend_block(workspace *d, const job *j, int64_t count, int64_t columns, int64_t rows, int64_t where) {
  const int64_t heads = j->shared * j->groups;
  float shares[PAIR];
  score(d, count, d->queries, rows, j->size, d->keys, columns, j->scale, d->scores);
  for (int64_t r = 0; r < rows; r++) {
    float most;
    hide(d, count, r, d->scores + r * columns);
    const float sum = weights_in_words(d->scores + r * columns, columns, d->weights + r * columns / 2, &most);
    shares[r] = 1.0f / sum;
    j->log_sum[where + r * heads] = most + logf(sum);
  }
  sum_up(d, count, d->weights, shares, rows, columns, d->values, j->size, j->out + where * j->size, heads * j->size);
}

INLINE float alike(const bf16 *one, const bf16 *other, int64_t size) {
  floats sums = {};
  for (int64_t i = 0; i < size; i += PAIR) {
    pair first = load(one + i), second = load(other + i);
    sums += first.even * second.even;
    sums += first.odd * second.odd;
  }
  return total(sums);
}

// Of scores and of what their weights would give, [32, C] each, the weights and the gradients of the scores, both as words of rows 16
// apart, these also as words of columns 16 apart. sums [32]: logarithms of summed weights; means [32]: of each row of slopes, weighted.
static void softmax_block(workspace *d, int64_t columns, float scale, const float *sums, const float *means) {
  for (int64_t r = 0; r < HALF; r++)
    for (int64_t t = 0; t < columns; t += PAIR) {
      floats weights[2][2], slopes[2][2];
      UNROLL for (int n = 0; n < 2; n++)
        UNROLL for (int part = 0; part < 2; part++) {
          const int64_t row = r + n * HALF, at = row * columns + t + part * LANES;
          weights[n][part] = exponential(load_floats(d->scores + at) - sums[row]);
          slopes[n][part] = weights[n][part] * (load_floats(d->slopes + at) - means[row]) * scale;
        }
      UNROLL for (int part = 0; part < 2; part++) {
        store_words(d->weight_rows + r * columns + t + part * LANES, joined(weights[0][part], weights[1][part]));
        store_words(d->slope_rows + r * columns + t + part * LANES, joined(slopes[0][part], slopes[1][part]));
      }
      UNROLL for (int n = 0; n < 2; n++)
        store_words(d->weights + (r + n * HALF) * columns / 2 + t / 2, joined(slopes[n][0], slopes[n][1]));
    }
}

// The weights of a block again, the gradients of its scores, and what both give to queries, keys and values.
static void attend_block_backward(workspace *d, const job *j, int64_t count, int64_t columns, int64_t rows, int64_t where) {
  const int64_t heads = j->shared * j->groups, size = j->size, token = heads * size;
  const bf16 *out = j->out + where * size, *grad = j->grad + where * size;
  float sums[PAIR], means[PAIR] = {}, whole[PAIR];
  take(grad, token, rows, size, d->grads);
  pack_rows(grad, token, rows, size, d->grad_rows, size);
  score(d, count, d->queries, rows, size, d->keys, columns, j->scale, d->scores);
  score(d, count, d->grads, rows, size, d->values, columns, 1.0f, d->slopes);
  memset(d->scores + rows * columns, 0, sizeof(float) * (PAIR - rows) * columns);
  memset(d->slopes + rows * columns, 0, sizeof(float) * (PAIR - rows) * columns);
  for (int64_t r = 0; r < PAIR; r++) whole[r] = 1.0f, sums[r] = INFINITY;  // of a row that is not there all weights are 0
  for (int64_t r = 0; r < rows; r++) {
    hide(d, count, r, d->scores + r * columns);
    sums[r] = j->log_sum[where + r * heads];
    means[r] = alike(out + r * token, grad + r * token, size);
  }
  softmax_block(d, columns, j->scale, sums, means);
  sum_up(d, count, d->weights, whole, rows, columns, d->key_rows, size, j->grad_query + where * size, token);
  give(d, count, d->weight_rows, columns, d->grad_rows, size, d->value_sums);
  give(d, count, d->slope_rows, columns, d->query_rows, size, d->key_sums);
}

INLINE void put_back(const workspace *d, const job *j, int64_t tree, const float *sums, bf16 *to, int64_t token) {
  for (int64_t one = j->roots[tree]; one < j->roots[tree + 1]; one++)
    for (int64_t t = j->starts[one]; t < j->starts[one + 1]; t++) {
      const float *own = sums + (d->places[one - j->roots[tree]] + t - j->starts[one]) * j->size;
      for (int64_t i = 0; i < j->size; i += PAIR)
        store(to + t * token + i, load_floats(own + i), load_floats(own + i + LANES));
    }
}

// All queries of a tree that share a key head.
static void attend_tree(workspace *d, const job *j, int64_t tree, int64_t own) {
  const bf16 *key = j->key.numbers + own * j->key.head, *value = j->value.numbers + own * j->value.head;
  const int64_t size = j->size;
  find_places(d, j, tree);
  pack_as_columns(d, j, tree, key, j->key.token, d->keys);
  if (j->grad) {
    pack_as_columns(d, j, tree, value, j->value.token, d->values);
    pack_as_rows(d, j, tree, key, j->key.token, d->key_rows);
    memset(d->key_sums, 0, sizeof(float) * d->room * size);
    memset(d->value_sums, 0, sizeof(float) * d->room * size);
  } else {
    pack_as_rows(d, j, tree, value, j->value.token, d->values);
  }
  for (int64_t one = j->roots[tree]; one < j->roots[tree + 1]; one++)
    for (int64_t at = 0, length = j->starts[one + 1] - j->starts[one]; at < length; at += PAIR) {
      const int64_t rows = length - at < PAIR ? length - at : PAIR, token = j->starts[one] + at;
      int64_t count, columns = find_spans(d, j, tree, one, at, at + rows, &count);
      for (int64_t head = own * j->groups; head < (own + 1) * j->groups; head++) {
        const bf16 *query = j->query.numbers + head * j->query.head + token * j->query.token;
        const int64_t where = token * j->shared * j->groups + head;
        take(query, j->query.token, rows, size, d->queries);
        if (j->grad) {
          pack_rows(query, j->query.token, rows, size, d->query_rows, size);
          attend_block_backward(d, j, count, columns, rows, where);
        } else {
          attend_block(d, j, count, columns, rows, where);
        }
      }
    }
  if (j->grad) {
    put_back(d, j, tree, d->key_sums, j->grad_key + own * size, j->shared * size);
    put_back(d, j, tree, d->value_sums, j->grad_value + own * size, j->shared * size);
  }
}

// query [H, N, D], key and value [K, N, D] by their strides (the last is 1). Without `grad` out [N, H, D] and log_sum [N, H], the logarithm
// of the summed weights, are made; with it, of these, the gradients grad_query [N, H, D], grad_key and grad_value [N, K, D].
void attend_causal(const bf16 *query, int64_t query_head, int64_t query_token, const bf16 *key, int64_t key_head, int64_t key_token,
                   const bf16 *value, int64_t value_head, int64_t value_token, const int64_t *starts, const int64_t *parents,
                   const int64_t *roots, int64_t trees, int64_t shared, int64_t groups, int64_t size, float scale, bf16 *out,
                   float *log_sum, const bf16 *grad, bf16 *grad_query, bf16 *grad_key, bf16 *grad_value) {
  const job j = {{query, query_head, query_token}, {key, key_head, key_token}, {value, value_head, value_token},
                 starts, parents, roots, trees, shared, groups, size, scale, out, log_sum, grad, grad_query, grad_key, grad_value};
#pragma omp parallel
  {
    workspace d = {};
    set_up(&d, &j);
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < trees * shared; item++) attend_tree(&d, &j, item / shared, item % shared);
    clear_up(&d);
  }
}

#endif
