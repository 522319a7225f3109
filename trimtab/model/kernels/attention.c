// Attention for inference: queries of a flat row attend to keys and values in a cache, in bfloat16 or float32.
//
// Each sequence of the row sees, in this order, the keys of a prefix that other sequences may share, the first `seen` places of its own
// slot, and `depth` further places of the slot (the ancestors of a node of a tree). Every sum over them has this one order: scores over
// the head size, weights and outputs over the positions. So a token gets the same bits whatever shares the pass, wherever its earlier
// tokens are cached and however many threads there are (batch invariance). Scores, weights and sums are float32.
//
// Shapes: N tokens of the row, S sequences, H query heads, K key/value heads, G = H / K, D head size, T places of a slot or prefix, a
// multiple of 64. D is a multiple of 32. Keys are stored transposed in blocks of 64 places, [K, T / 64, D, 64], values [K, T, D].

#include "attention.h"

enum { QUERY_TOKENS = 16 };  // tokens of one work item

INLINE pair load_pair(int wide, const void *from, int64_t at) {
  if (wide) return (pair){load_floats((const float *)from + at), load_floats((const float *)from + at + LANES)};
  return load((const bf16 *)from + at);
}

// 32 numbers in their order: those of `load_pair`.
INLINE void store_ordered(int wide, float *to, pair given) {
  if (wide) {
    store_floats(to, given.even);
    store_floats(to + LANES, given.odd);
  } else {
    store_in_order(to, given.even, given.odd);
  }
}

INLINE void store_pair(int wide, void *to, int64_t at, pair given) {
  if (wide) store_ordered(1, (float *)to + at, given);
  else store((bf16 *)to + at, given.even, given.odd);
}

INLINE const void *offset(int wide, const void *from, int64_t count) { return (const char *)from + count * (wide ? 4 : 2); }

// Where a number of the key at a place is.
INLINE int64_t key_index(int64_t place, int64_t d, int64_t size) { return (place / BLOCK * size + d) * BLOCK + place % BLOCK; }

// Scores of `rows` queries [rows, D] with the 64 keys of one block. Memory `ahead` of what is read is prefetched.
INLINE void score_block(int wide, int rows, const float *query, const void *keys, int64_t ahead, int64_t size, float *scores,
                        int64_t room) {
  pair sums[ROWS][2] = {};
  for (int64_t d = 0; d < size; d++)
    UNROLL for (int part = 0; part < 2; part++) {
      const int64_t at = d * BLOCK + part * PAIR;
      if (ahead) __builtin_prefetch(offset(wide, keys, at + ahead), 0, 2);
      const pair key = load_pair(wide, keys, at);
      UNROLL for (int r = 0; r < rows; r++) {
        sums[r][part].even += key.even * query[r * size + d];
        sums[r][part].odd += key.odd * query[r * size + d];
      }
    }
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int part = 0; part < 2; part++) store_ordered(wide, scores + r * room + part * PAIR, sums[r][part]);
}

// Add the values of the places from `begin` to `end`, 32 · parts columns of them, each by its row's weight.
INLINE void add_values(int wide, int rows, int parts, pair sums[ROWS][2], const float *weights, int64_t room, const void *values,
                       int64_t ahead, int64_t stride, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++)
    UNROLL for (int part = 0; part < parts; part++) {
      const int64_t at = t * stride + part * PAIR;
      if (ahead) __builtin_prefetch(offset(wide, values, at + ahead), 0, 2);
      const pair value = load_pair(wide, values, at);
      UNROLL for (int r = 0; r < rows; r++) {
        sums[r][part].even += value.even * weights[r * room + t];
        sums[r][part].odd += value.odd * weights[r * room + t];
      }
    }
}

INLINE float score_place(int wide, const float *query, const void *keys, int64_t place, int64_t size) {
  float sums[8] = {};
  for (int64_t d = 0; d < size; d += 8)
    UNROLL for (int i = 0; i < 8; i++) {
      const int64_t at = key_index(place, d + i, size);
      sums[i] += query[d + i] * (wide ? ((const float *)keys)[at] : in_float(((const bf16 *)keys)[at]));
    }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// cap · tanh(score / cap), in place.
INLINE void cap_scores(float *scores, int64_t count, float cap) {
  for (int64_t t = 0; t < count; t += LANES) {
    const floats twice = load_floats(scores + t) * (2.0f / cap);
    store_floats(scores + t, cap - 2.0f * cap / (exponential(twice) + 1.0f));
  }
}

typedef struct {
  const void *keys, *values;
  int64_t length;
} source;

// The rows of one group: their queries, scaled, and what each sees by absolute position.
typedef struct {
  int64_t tokens[ROWS], heads[ROWS], first[ROWS], last[ROWS], depth[ROWS];  // contiguous positions: `first` to `last`
  const int64_t *ancestors[ROWS];
} group;

// Attention of a group of rows: `own` is the slot, `last` of each row counts the prefix too.
INLINE void attend_group(int wide, int rows, const attention_job *j, const layer_cache *c, const group *g, source prefix, source own,
                         int64_t ahead, const float *queries, float *scores, int64_t room, void *out, int64_t heads) {
  const int64_t size = c->size, P = prefix.length;
  int64_t begin = g->first[0], end = g->last[0], deepest = 0;
  for (int r = 1; r < rows; r++) {
    begin = g->first[r] < begin ? g->first[r] : begin;
    end = g->last[r] > end ? g->last[r] : end;
  }
  for (int r = 0; r < rows; r++) deepest = g->depth[r] > deepest ? g->depth[r] : deepest;
  const int64_t aligned = begin / BLOCK * BLOCK, padded = up_to(end + deepest, LANES), own_begin = begin > P ? begin - P : 0;
  for (int64_t t = aligned; t < P; t += BLOCK)
    score_block(wide, rows, queries, offset(wide, prefix.keys, t * size), 0, size, scores + t, room);
  for (int64_t t = own_begin / BLOCK * BLOCK; t < end - P; t += BLOCK)
    score_block(wide, rows, queries, offset(wide, own.keys, t * size), ahead, size, scores + P + t, room);
  float whole[ROWS];
  for (int r = 0; r < rows; r++) {
    float *row = scores + r * room, most;
    for (int64_t a = 0; a < g->depth[r]; a++) row[end + a] = score_place(wide, queries + r * size, own.keys, g->ancestors[r][a], size);
    if (j->cap > 0) cap_scores(row + aligned, padded - aligned, j->cap);
    for (int64_t t = aligned; t < g->first[r]; t++) row[t] = -INFINITY;
    for (int64_t t = g->last[r]; t < end; t++) row[t] = -INFINITY;
    for (int64_t t = end + g->depth[r]; t < padded; t++) row[t] = -INFINITY;
    whole[r] = weights_of(row + aligned, padded - aligned, &most);
  }
  for (int64_t d = 0; d < size; d += BLOCK) {
    pair sums[ROWS][2] = {};
    const int parts = size - d < BLOCK ? 1 : 2;
    const void *prefix_values = offset(wide, prefix.values, d), *own_values = offset(wide, own.values, d);
    if (parts == 2) {
      if (P) add_values(wide, rows, 2, sums, scores, room, prefix_values, 0, size, begin, end < P ? end : P);
      add_values(wide, rows, 2, sums, scores + P, room, own_values, ahead, size, own_begin, end - P);
    } else {
      if (P) add_values(wide, rows, 1, sums, scores, room, prefix_values, 0, size, begin, end < P ? end : P);
      add_values(wide, rows, 1, sums, scores + P, room, own_values, ahead, size, own_begin, end - P);
    }
    for (int r = 0; r < rows; r++)
      for (int64_t a = 0; a < g->depth[r]; a++)
        for (int part = 0; part < parts; part++) {
          const pair value = load_pair(wide, own_values, g->ancestors[r][a] * size + part * PAIR);
          sums[r][part].even += value.even * scores[r * room + end + a];
          sums[r][part].odd += value.odd * scores[r * room + end + a];
        }
    for (int r = 0; r < rows; r++)
      for (int part = 0; part < parts; part++)
        store_pair(wide, out, (g->tokens[r] * heads + g->heads[r]) * size + d + part * PAIR,
                   (pair){sums[r][part].even / whole[r], sums[r][part].odd / whole[r]});
  }
}

INLINE void scale_query(int wide, const void *query, int64_t at, int64_t size, float scale, float *to) {
  for (int64_t d = 0; d < size; d += PAIR) {
    const pair part = load_pair(wide, query, at + d);
    store_ordered(wide, to + d, (pair){part.even * scale, part.odd * scale});
  }
}

static void write_places(const attention_job *j, const layer_cache *c, int64_t sequence, int64_t head) {
  const int64_t size = c->size, slot = (j->slots[sequence] * c->shared + head) * c->room * size;
  for (int64_t token = j->starts[sequence]; token < j->starts[sequence + 1]; token++) {
    const int64_t place = j->places[token], key = head * j->key_head + token * j->key_token;
    const int64_t value = head * j->value_head + token * j->value_token;
    if (j->wide) {
      float *keys = (float *)c->keys + slot;
      for (int64_t d = 0; d < size; d++) keys[key_index(place, d, size)] = ((const float *)j->key)[key + d];
      memcpy((float *)c->values + slot + place * size, (const float *)j->value + value, sizeof(float) * size);
    } else {
      bf16 *keys = (bf16 *)c->keys + slot;
      for (int64_t d = 0; d < size; d++) keys[key_index(place, d, size)] = ((const bf16 *)j->key)[key + d];
      memcpy((bf16 *)c->values + slot + place * size, (const bf16 *)j->value + value, sizeof(bf16) * size);
    }
  }
}

// The code of a group is compiled for some numbers of rows; others are made up of these.
#define FOR_ROWS(rows, call)                   \
  switch (rows) {                              \
    case 1: { enum { R = 1 }; call; } break;   \
    case 2: { enum { R = 2 }; call; } break;   \
    default: { enum { R = ROWS }; call; }      \
  }

INLINE int rows_of_group(int64_t left) { return left >= ROWS ? ROWS : left >= 2 ? 2 : 1; }

// The tokens `from` to `to` of the row, of one sequence, with the query heads of one key head.
INLINE void attend_tokens(int wide, const attention_job *j, const layer_cache *c, int64_t sequence, int64_t head, int64_t from,
                          int64_t to, int64_t ahead, float *queries, float *scores, int64_t room) {
  const int64_t size = c->size, groups = j->groups, slot = (j->slots[sequence] * c->shared + head) * c->room * size;
  const source own = {offset(wide, c->keys, slot), offset(wide, c->values, slot), 0};
  source prefix = {};
  if (c->prefix_keys && j->prefix_lengths[sequence]) {
    const int64_t at = head * j->prefix_rooms[sequence] * size;
    prefix = (source){offset(wide, (const void *)c->prefix_keys[sequence], at),
                      offset(wide, (const void *)c->prefix_values[sequence], at), j->prefix_lengths[sequence]};
  }
  for (int64_t row = 0, rows; row < (to - from) * groups; row += rows) {
    rows = rows_of_group((to - from) * groups - row);
    group g;
    for (int r = 0; r < rows; r++) {
      const int64_t token = from + (row + r) / groups, query_head = head * groups + (row + r) % groups;
      g.tokens[r] = token;
      g.heads[r] = query_head;
      const int64_t depth = j->ancestors ? j->depths[token] : 0, unseen = c->window && depth > c->window ? depth - c->window : 0;
      g.depth[r] = depth - unseen;
      g.ancestors[r] = j->ancestors ? j->ancestors + token * j->deepest + unseen : NULL;
      g.last[r] = prefix.length + j->seen[token];
      g.first[r] = c->window && g.last[r] + depth > c->window ? g.last[r] + depth - c->window : 0;
      if (g.first[r] > g.last[r]) g.first[r] = g.last[r];
      scale_query(wide, j->query, query_head * j->query_head + token * j->query_token, size, c->scale, queries + r * size);
    }
    FOR_ROWS(rows, attend_group(wide, R, j, c, &g, prefix, own, row ? 0 : ahead, queries, scores, room, j->out, c->shared * groups))
  }
}

// The number of work items before each sequence: parts of its tokens, for each key head.
static int64_t *items_before(const attention_job *j, int64_t shared) {
  int64_t *before = malloc(sizeof(int64_t) * (j->sequences + 1));
  before[0] = 0;
  for (int64_t s = 0; s < j->sequences; s++)
    before[s + 1] = before[s] + (j->starts[s + 1] - j->starts[s] + QUERY_TOKENS - 1) / QUERY_TOKENS * shared;
  return before;
}

static int64_t most_positions(const attention_job *j, const layer_cache *c) {
  int64_t most = 0;
  for (int64_t s = 0; s < j->sequences; s++) {
    const int64_t prefix = c->prefix_keys ? j->prefix_lengths[s] : 0;
    for (int64_t token = j->starts[s]; token < j->starts[s + 1]; token++)
      most = prefix + j->seen[token] > most ? prefix + j->seen[token] : most;
  }
  return most + j->deepest;
}

// Write the new keys and values [K, N, D] into their slots, then attend from the queries [H, N, D]: out [N, H, D].
void attend_cached(const attention_job *j, const layer_cache *c) {
  const int64_t shared = c->shared, room = up_to(most_positions(j, c), BLOCK) + 2 * BLOCK, size = c->size;
  int64_t *before = items_before(j, shared), begun = 0;
  const int64_t items = before[j->sequences], each = c->room * size;
  const int is_whole = items == j->sequences * shared;  // an item has all tokens of its sequence, and writes them itself
#pragma omp parallel
  {
    if (!is_whole) {
#pragma omp for schedule(static)
      for (int64_t item = 0; item < j->sequences * shared; item++) write_places(j, c, item / shared, item % shared);
    }
    float *scores = room_for(ROWS * (room + size), sizeof(float)), *queries = scores + ROWS * room;
    int64_t sequence = 0;
    // A thread knows its next item while it works on one, and prefetches the keys and values of its slot.
    for (int64_t item = __atomic_fetch_add(&begun, 1, __ATOMIC_RELAXED), next; item < items; item = next) {
      next = __atomic_fetch_add(&begun, 1, __ATOMIC_RELAXED);
      while (before[sequence + 1] <= item) sequence++;
      const int64_t head = (item - before[sequence]) % shared, part = (item - before[sequence]) / shared;
      const int64_t from = j->starts[sequence] + part * QUERY_TOKENS, end = j->starts[sequence + 1];
      const int64_t to = end < from + QUERY_TOKENS ? end : from + QUERY_TOKENS;
      const int64_t after = next / shared;
      const int64_t ahead = is_whole && next < items
                                ? ((j->slots[after] - j->slots[sequence]) * shared + next % shared - head) * each
                                : 0;
      if (is_whole) write_places(j, c, sequence, head);
      if (j->wide) attend_tokens(1, j, c, sequence, head, from, to, ahead, queries, scores, room);
      else attend_tokens(0, j, c, sequence, head, from, to, ahead, queries, scores, room);
    }
    free(scores);
  }
  free(before);
}
