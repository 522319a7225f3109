// Attention of few queries to keys of their own, where a matrix product would copy more than it multiplies.
//
// Scores, weights and sums are float32 throughout. Shapes: N tokens, H query heads, K key/value heads, G = H / K, D head size, T places
// of a slot. D and T are multiples of 64. Keys lie turned in blocks of 64 places, [T / 64, D, 64]: what is read lies together.

#include "vectors.h"

INLINE void scaled(const bf16 *from, int64_t size, float scale, float *to) {
  for (int64_t d = 0; d < size; d += PAIR) {
    pair part = load(from + d);
    store_in_order(to + d, part.even * scale, part.odd * scale);
  }
}

// Where a number of the key at a place lies.
INLINE int64_t in_blocks(int64_t place, int64_t d, int64_t size) { return (place / BLOCK * size + d) * BLOCK + place % BLOCK; }

// Memory is asked for what will be read, a line of a cache. Into the second cache: the first is too small for what lies far ahead.
INLINE void ask_for(const bf16 *numbers) { __builtin_prefetch(numbers, 0, 2); }

// Scores of `rows` queries [rows, D] with the keys at the places from `begin` to `end`, both multiples of 64. What lies `ahead` of each
// number that is read is asked for.
INLINE void scored(int rows, const float *query, const bf16 *keys, int64_t ahead, int64_t size, int64_t room, int64_t begin,
                   int64_t end, float *scores) {
  for (int64_t t = begin; t < end; t += BLOCK) {
    pair sums[ROWS][2] = {};
    for (int64_t d = 0; d < size; d++) {
      const bf16 *from = keys + t * size + d * BLOCK;
      UNROLL for (int part = 0; part < 2; part++) {
        ask_for(from + part * PAIR + ahead);
        pair key = load(from + part * PAIR);
        UNROLL for (int r = 0; r < rows; r++) {
          sums[r][part].even += key.even * query[r * size + d];
          sums[r][part].odd += key.odd * query[r * size + d];
        }
      }
    }
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int part = 0; part < 2; part++)
        store_in_order(scores + r * room + t + part * PAIR, sums[r][part].even, sums[r][part].odd);
  }
}

// To the sums [rows, 64], 64 columns of the values, `stride` apart, at the places from `begin` to `end`, each by its weight.
INLINE void mix(int rows, pair sums[ROWS][2], const float *weights, int64_t room, const bf16 *values, int64_t ahead, int64_t stride,
                int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++)
    UNROLL for (int part = 0; part < 2; part++) {
      const bf16 *from = values + t * stride + part * PAIR;
      ask_for(from + ahead);
      pair value = load(from);
      UNROLL for (int r = 0; r < rows; r++) {
        sums[r][part].even += value.even * weights[r * room + t];
        sums[r][part].odd += value.odd * weights[r * room + t];
      }
    }
}

INLINE void settle(int rows, pair sums[ROWS][2], const float *whole, bf16 *const *out) {
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int part = 0; part < 2; part++)
      store(out[r] + part * PAIR, sums[r][part].even / whole[r], sums[r][part].odd / whole[r]);
}

INLINE void mixed(int rows, const float *weights, const float *whole, const bf16 *values, int64_t ahead, int64_t size, int64_t room,
                  int64_t begin, int64_t end, bf16 *const *out) {
  pair sums[ROWS][2] = {};
  mix(rows, sums, weights, room, values, ahead, size, begin, end);
  settle(rows, sums, whole, out);
}

// The weights of scores at the places from `first` to `last`, in place and 0 elsewhere between `begin` and `end`; their largest score and sum.
INLINE void weighed(float *scores, int64_t begin, int64_t first, int64_t last, int64_t end, float *most, float *sum) {
  for (int64_t t = begin; t < first; t++) scores[t] = -INFINITY;
  for (int64_t t = last; t < end; t++) scores[t] = -INFINITY;
  *sum = weights_of(scores + begin, end - begin, most);
}

#define FOR_ROWS(rows, call)                   \
  switch (rows) {                              \
    case 1: { enum { R = 1 }; call; } break;   \
    case 2: { enum { R = 2 }; call; } break;   \
    case 3: { enum { R = 3 }; call; } break;   \
    default: { enum { R = ROWS }; call; }      \
  }

INLINE int64_t one_more(int64_t *begun) { return __atomic_fetch_add(begun, 1, __ATOMIC_RELAXED); }

// Put the newest keys and values of each sequence into its slot, and attend from them to all that stands there up to themselves.
//
// query [H, N, D] and key, value [K, N, D] by their strides (the last is 1); `each` tokens of a sequence stand behind one another,
// the first at the place `at` of its slot. keys [slots, K, T / 64, D, 64], values [slots, K, T, D]. out [N, H, D]; log_sum [N, H], the
// logarithm of the summed weights, where it is wanted. `window`: how many places back, itself included; 0 for all.
void attend_own(const bf16 *query, int64_t query_head, int64_t query_token, const bf16 *key, int64_t key_head, int64_t key_token,
                const bf16 *value, int64_t value_head, int64_t value_token, bf16 *keys, bf16 *values, const int64_t *at,
                int64_t sequences, int64_t each, int64_t shared, int64_t groups, int64_t size, int64_t room, int64_t window,
                float scale, bf16 *out, float *log_sum) {
  const int64_t items = sequences * shared;
  int64_t begun = 0;
#pragma omp parallel
  {
    float *scores = malloc(sizeof(float) * ROWS * (room + size)), *queries = scores + ROWS * room;
    // Each thread knows the item that it takes next, and asks memory for it while it works on one.
    for (int64_t item = one_more(&begun), next; item < items; item = next) {
      next = one_more(&begun);
      const int64_t sequence = item / shared, head = item % shared, place = at[sequence];
      bf16 *slot_keys = keys + item * size * room, *slot_values = values + item * room * size;
      for (int64_t i = 0; i < each; i++) {
        const int64_t token = sequence * each + i;
        const bf16 *new_key = key + head * key_head + token * key_token;
        for (int64_t d = 0; d < size; d++) slot_keys[in_blocks(place + i, d, size)] = new_key[d];
        memcpy(slot_values + (place + i) * size, value + head * value_head + token * value_token, sizeof(bf16) * size);
      }
      for (int64_t row = 0; row < groups * each; row += ROWS) {
        const int rows = (int)(groups * each - row < ROWS ? groups * each - row : ROWS);
        const int64_t ahead = row || next >= items ? 0 : (next - item) * size * room;
        int64_t begin = room, end = 0, firsts[ROWS], lasts[ROWS], token_heads[ROWS];
        for (int r = 0; r < rows; r++) {
          const int64_t of_sequence = (row + r) % each, of_head = head * groups + (row + r) / each;
          const int64_t token = sequence * each + of_sequence;
          const bf16 *from = query + of_head * query_head + token * query_token;
          scaled(from, size, scale, queries + r * size);
          token_heads[r] = token * shared * groups + of_head;
          lasts[r] = place + of_sequence + 1;
          firsts[r] = window && lasts[r] > window ? lasts[r] - window : 0;
          begin = firsts[r] < begin ? firsts[r] : begin;
          end = lasts[r] > end ? lasts[r] : end;
        }
        begin -= begin % BLOCK;
        const int64_t padded = (end + BLOCK - 1) / BLOCK * BLOCK;
        FOR_ROWS(rows, scored(R, queries, slot_keys, ahead, size, room, begin, padded, scores))
        float whole[ROWS];
        for (int r = 0; r < rows; r++) {
          float most;
          weighed(scores + r * room, begin, firsts[r], lasts[r], padded, &most, whole + r);
          if (log_sum) log_sum[token_heads[r]] = most + logf(whole[r]);
        }
        for (int64_t d = 0; d < size; d += BLOCK) {
          bf16 *outs[ROWS];
          for (int r = 0; r < rows; r++) outs[r] = out + token_heads[r] * size + d;
          FOR_ROWS(rows, mixed(R, scores, whole, slot_values + d, ahead, size, room, begin, end, outs))
        }
      }
    }
    free(scores);
  }
}

INLINE float product(const float *query, const bf16 *key, int64_t size) {
  floats sums = {};
  for (int64_t d = 0; d < size; d += PAIR) {
    pair own = load(key + d);
    floats even = {}, odd = {};
    UNROLL for (int i = 0; i < LANES; i++) {
      even[i] = query[d + 2 * i];
      odd[i] = query[d + 2 * i + 1];
    }
    sums += own.even * even;
    sums += own.odd * odd;
  }
  return total(sums);
}

INLINE void add_ways(int rows, pair sums[ROWS][2], const float *weights, int64_t room, const bf16 *values, int64_t stride,
                     const int64_t *const *ways, const int64_t *depths) {
  UNROLL for (int r = 0; r < rows; r++)
    for (int64_t a = 0; a < depths[r]; a++)
      UNROLL for (int part = 0; part < 2; part++) {
        pair value = load(values + ways[r][a] * stride + part * PAIR);
        sums[r][part].even += value.even * weights[r * room + a];
        sums[r][part].odd += value.odd * weights[r * room + a];
      }
}

INLINE void mixed_on_ways(int rows, const float *weights, const float *whole, const bf16 *values, int64_t stride, int64_t room,
                          int64_t prompt, const int64_t *const *ways, const int64_t *depths, bf16 *const *out) {
  pair sums[ROWS][2] = {};
  mix(rows, sums, weights, room, values, 0, stride, 0, prompt);
  add_ways(rows, sums, weights + prompt, room, values, stride, ways, depths);
  settle(rows, sums, whole, out);
}

// Attend from nodes of a tree to the whole prompt before it and to each node's way: its ancestors and itself.
//
// query [H, Q, D]; keys and values [K, T, D], the first `prompt` places the prompt's; ways [Q, A] are places of nodes, of which each
// node has as many as it is deep. out [Q, H, D], log_sum [Q, H] as in `attend_own`.
void attend_ways(const bf16 *query, int64_t query_head, int64_t query_token, const bf16 *keys, int64_t key_head, int64_t key_token,
                 const bf16 *values, int64_t value_head, int64_t value_token, const int64_t *ways, const int64_t *depths,
                 int64_t nodes, int64_t deepest, int64_t prompt, int64_t shared, int64_t groups, int64_t size, float scale,
                 bf16 *out, float *log_sum) {
  enum { NODES = 32 };  // of an item: the prompt's keys are turned for it once
  const int64_t padded = (prompt + BLOCK - 1) / BLOCK * BLOCK, room = (prompt + deepest + BLOCK - 1) / BLOCK * BLOCK;
  const int64_t parts = (nodes + NODES - 1) / NODES;
#pragma omp parallel
  {
    float *scores = malloc(sizeof(float) * ROWS * (room + size)), *queries = scores + ROWS * room;
    bf16 *turned_keys = calloc(size * room, sizeof(bf16));
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < shared * parts; item++) {
      const int64_t head = item / parts, first = item % parts * NODES;
      const int64_t rows_here = ((nodes < first + NODES ? nodes : first + NODES) - first) * groups;
      const bf16 *own_keys = keys + head * key_head, *own_values = values + head * value_head;
      for (int64_t t = 0; t < prompt; t++)
        for (int64_t d = 0; d < size; d++) turned_keys[in_blocks(t, d, size)] = own_keys[t * key_token + d];
      for (int64_t row = 0; row < rows_here; row += ROWS) {
        const int rows = (int)(rows_here - row < ROWS ? rows_here - row : ROWS);
        const int64_t *own_ways[ROWS];
        int64_t own_depths[ROWS], token_heads[ROWS];
        for (int r = 0; r < rows; r++) {
          const int64_t node = first + (row + r) / groups, of_head = head * groups + (row + r) % groups;
          scaled(query + of_head * query_head + node * query_token, size, scale, queries + r * size);
          own_ways[r] = ways + node * deepest;
          own_depths[r] = depths[node];
          token_heads[r] = node * shared * groups + of_head;
        }
        FOR_ROWS(rows, scored(R, queries, turned_keys, 0, size, room, 0, padded, scores))
        float whole[ROWS];
        for (int r = 0; r < rows; r++) {
          float most, *own = scores + r * room;
          for (int64_t a = 0; a < own_depths[r]; a++)
            own[prompt + a] = product(queries + r * size, own_keys + own_ways[r][a] * key_token, size);
          weighed(own, 0, 0, prompt + own_depths[r], room, &most, whole + r);
          log_sum[token_heads[r]] = most + logf(whole[r]);
        }
        for (int64_t d = 0; d < size; d += BLOCK) {
          bf16 *outs[ROWS];
          for (int r = 0; r < rows; r++) outs[r] = out + token_heads[r] * size + d;
          FOR_ROWS(rows, mixed_on_ways(R, scores, whole, own_values + d, value_token, room, prompt, own_ways, own_depths, outs))
        }
      }
    }
    free(turned_keys);
    free(scores);
  }
}
