// Tests put it into the build folder, as if a build had generated it.
static __device__ int kept = 4;

__global__ void generated_kernel(int *out) { *out = kept; }
