#ifndef TOY_GGML_H
#define TOY_GGML_H
#ifdef __cplusplus
extern "C" {
#endif

enum ggml_type {
    GGML_TYPE_F16 = 1,
    GGML_TYPE_Q4_0 = 2,
    GGML_TYPE_Q4_1 = 3,
    GGML_TYPE_Q5_0 = 6,
    GGML_TYPE_Q5_1 = 7,
    GGML_TYPE_Q8_0 = 8,
};

int ggml_init(void);
int ggml_backend_cpu_init(void);
int ggml_backend_cuda_init(void);

float toy_dot(const float *a, const float *b, int n);
int toy_quantize(float value, float scale);
int toy_threads(void);
const char *toy_features(void);
const char *toy_cuda_features(void);
const char *toy_origin(void);

#ifdef __cplusplus
}
#endif
#endif
