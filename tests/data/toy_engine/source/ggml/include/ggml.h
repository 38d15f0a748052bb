#ifndef TOY_GGML_H
#define TOY_GGML_H
#ifdef __cplusplus
extern "C" {
#endif

float toy_dot(const float *a, const float *b, int n);
int toy_quantize(float value, float scale);
int toy_threads(void);
const char *toy_features(void);
const char *toy_origin(void);
int toy_cuda_devices(void);

#ifdef __cplusplus
}
#endif
#endif
