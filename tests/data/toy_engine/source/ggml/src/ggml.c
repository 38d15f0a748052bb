#include "ggml.h"

const char *toy_origin(void) { return __FILE__; }

int ggml_init(void) {
    int devices = ggml_backend_cpu_init();
#ifdef TOY_CUDA
    devices += ggml_backend_cuda_init();
#endif
    return devices;
}

#ifndef TOY_CUDA
const char *toy_cuda_features(void) { return ""; }
#endif
