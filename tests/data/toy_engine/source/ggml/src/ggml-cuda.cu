#include "ggml.h"

#include <cuda_runtime.h>

__global__ void twice(float *values) { values[threadIdx.x] *= 2.0f; }

extern "C" int toy_cuda_devices(void) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) {
        twice<<<1, 1>>>(nullptr);
    }
    return count;
}
