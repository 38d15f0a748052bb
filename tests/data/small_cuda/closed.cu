// No symbol for others to see, after which nvcc could name this file.
namespace {
__global__ void kernel(int *out) { *out = 1; }

struct Start {
    Start() { kernel<<<1, 1>>>(nullptr); }
} start;
}
