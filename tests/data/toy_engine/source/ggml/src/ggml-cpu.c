#include "ggml.h"

#ifdef __ARM_NEON
#include <arm_neon.h>
#endif

#ifdef __ARM_FEATURE_DOTPROD
int toy_dot_q8(const signed char *a, const signed char *b) {
    return vaddvq_s32(vdotq_s32(vdupq_n_s32(0), vld1q_s8(a), vld1q_s8(b)));
}
#endif

#ifdef __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
void toy_fma_f16(__fp16 *sum, const __fp16 *a, const __fp16 *b) {
    vst1q_f16(sum, vfmaq_f16(vld1q_f16(sum), vld1q_f16(a), vld1q_f16(b)));
}
#endif

int ggml_backend_cpu_init(void) { return 1; }

float toy_dot(const float *a, const float *b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

const char *toy_features(void) {
    return "CPU : "
#ifdef __ARM_NEON
           "NEON = 1 | "
#endif
#ifdef __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
           "FP16_VA = 1 | "
#endif
#ifdef __ARM_FEATURE_DOTPROD
           "DOTPROD = 1 | "
#endif
#ifdef __AVX2__
           "AVX2 = 1 | "
#endif
        ;
}
