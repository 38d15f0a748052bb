#include "ggml.h"

float toy_dot(const float *a, const float *b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

const char *toy_features(void) {
    return ""
#ifdef __ARM_FEATURE_DOTPROD
           "dotprod "
#endif
#ifdef __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
           "fp16 "
#endif
        ;
}
