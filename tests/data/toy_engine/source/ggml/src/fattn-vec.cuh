#pragma once

#include "ggml.h"

// The host side of a FlashAttention kernel, with a name as in the real engines.
template <int D, ggml_type K, ggml_type V> int ggml_cuda_flash_attn_ext_vec_case(int n) {
    return n * D + K * V;
}

#define FATTN(K, V) template int ggml_cuda_flash_attn_ext_vec_case<128, GGML_TYPE_##K, GGML_TYPE_##V>(int);
