#include "ggml.h"

#include <cuda_runtime.h>

#define TEXT_OF(...) #__VA_ARGS__
#define TEXT(...) TEXT_OF(__VA_ARGS__)

__global__ void twice(float *values) { values[threadIdx.x] *= 2.0f; }

extern "C" int ggml_backend_cuda_init(void) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) {
        twice<<<1, 1>>>(nullptr);
#ifdef GGML_CUDA_USE_GRAPHS
        cudaGraphLaunch(nullptr, nullptr);
#endif
    }
    return count;
}

extern "C" const char *toy_cuda_features(void) {
    return "CUDA : ARCHS = " TEXT(__CUDA_ARCH_LIST__) " | "
#ifdef GGML_CUDA_USE_GRAPHS
           "USE_GRAPHS = 1 | "
#endif
           "FA_QUANTS = " GGML_CUDA_FA_QUANTS " | ";
}
