// Device symbols that only this file sees: nvcc makes up their names.
namespace {
__device__ int inside;
__global__ void kernel(int *out) { *out = inside; }
}
static __device__ int kept = 4;

void run(int *p) {
    kernel<<<1, 1>>>(p);
    cudaMemcpyToSymbol(kept, p, sizeof kept);
}
