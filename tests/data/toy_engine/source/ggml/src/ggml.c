#include "ggml.h"

const char *toy_origin(void) { return __FILE__; }

#ifdef TOY_CUDA
int toy_cuda_used(void) { return toy_cuda_devices(); }
#endif
