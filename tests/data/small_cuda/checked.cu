// Asserts in the toolkit's own headers bring their __FILE__ in.
#define CCCL_ENABLE_ASSERTIONS
#include <cuda/std/span>

__global__ void device_at(int *p, int i) { p[0] = cuda::std::span<int>(p, 4)[i]; }

int host_at(int *p, int i) { return cuda::std::span<int>(p, 4)[i]; }
