// What `attend_cached` (`attention.c`) reads: the tokens of a pass, and the cache of one layer.

#pragma once

#include "vectors.h"

enum { ROWS = 3 };  // queries that read the same keys at once

// Of all layers alike but for the tensors. As `model/kernels/cached_attention.py` has it.
typedef struct {
  const void *query, *key, *value;  // [H, N, D], [K, N, D], [K, N, D], each head and token some numbers apart
  int64_t query_head, query_token, key_head, key_token, value_head, value_token;
  void *out;                        // [N, H, D]
  int64_t wide, sequences, groups;  // float32 or bfloat16; S; G
  const int64_t *starts, *slots;    // [S + 1] and [S], the first token of each sequence, and its slot
  const int64_t *places, *seen;     // [N], where a token goes in its slot, and how many places of it it sees
  const int64_t *ancestors, *depths;     // [N, A] and [N], further places; NULL if there are none
  int64_t deepest;                  // A
  const int64_t *prefix_lengths, *prefix_rooms;  // [S], in tokens and in places; NULL without prefixes
  float cap;                        // soft cap of the scores, 0 without
} attention_job;

typedef struct {
  void *keys, *values;                            // of all slots
  const int64_t *prefix_keys, *prefix_values;     // [S] addresses; NULL without prefixes
  int64_t room, shared, size, window;             // T of a slot; K; D; how many positions back, itself included, 0 for all
  float scale;
} layer_cache;

void attend_cached(const attention_job *j, const layer_cache *c);
