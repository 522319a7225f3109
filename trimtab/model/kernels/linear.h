// Linear layers for inference (`linear.c`).

#pragma once

#include "vectors.h"

void linear_bf16(const bf16 *input, const bf16 *weight, int64_t is_packed, const bf16 *bias, int64_t tokens, int64_t inputs,
                 int64_t outputs, bf16 *out);
