/* Records which GPU kernels a program launches, by preloading: a line in $LAUNCHES_FILE for each kernel's
   mangled name, once. Works for every program that links the CUDA runtime (10 to 13) dynamically.

   nvcc's start-up code registers each kernel's host stub with its name (__cudaRegisterFunction). A launch
   names the stub, or since CUDA 13 a handle that __cudaGetKernel gave for it (crt/host_runtime.h). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <search.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned x, y, z; } dim3;
typedef struct { const void *key; const char *name; int seen; } kernel;

static void *kernels; /* a tree of kernel, by key: a stub's address or a handle */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int by_key(const void *a, const void *b) {
    const void *x = ((const kernel *) a)->key, *y = ((const kernel *) b)->key;
    return (x > y) - (x < y);
}

static kernel *find(const void *key) {
    kernel wanted = { key, NULL, 0 };
    kernel **found = tfind(&wanted, &kernels, by_key);
    return found ? *found : NULL;
}

static void add(const void *key, const char *name) {
    kernel *new = calloc(1, sizeof *new);
    if (!new || !key) { free(new); return; }
    new->key = key;
    new->name = strdup(name);
    tsearch(new, &kernels, by_key);
}

static void launched(const void *key) {
    pthread_mutex_lock(&lock);
    kernel *one = find(key);
    if (!one) { add(key, "?"); one = find(key); }
    if (one && !one->seen) {
        one->seen = 1;
        const char *path = getenv("LAUNCHES_FILE");
        int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
        if (file >= 0) { dprintf(file, "%s\n", one->name); close(file); }
    }
    pthread_mutex_unlock(&lock);
}

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) { fprintf(stderr, "launches: no %s behind us\n", name); abort(); }
    return found;
}

void __cudaRegisterFunction(void **image, const char *stub, char *device, const char *name, int limit,
                            void *tid, void *bid, void *block, void *grid, int *warp) {
    static void (*next)(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *);
    if (!next) next = real("__cudaRegisterFunction");
    pthread_mutex_lock(&lock);
    add(stub, name);
    pthread_mutex_unlock(&lock);
    next(image, stub, device, name, limit, tid, bid, block, grid, warp);
}

int __cudaGetKernel(void **handle, const void *stub) {
    static int (*next)(void **, const void *);
    if (!next) next = real("__cudaGetKernel");
    int code = next(handle, stub);
    pthread_mutex_lock(&lock);
    kernel *one = find(stub);
    if (code == 0 && one && !find(*handle)) add(*handle, one->name);
    pthread_mutex_unlock(&lock);
    return code;
}

#define LAUNCH(function) \
    int function(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared, void *stream) { \
        static int (*next)(const void *, dim3, dim3, void **, size_t, void *); \
        if (!next) next = real(#function); \
        launched(kernel); \
        return next(kernel, grid, block, args, shared, stream); \
    }
LAUNCH(cudaLaunchKernel)
LAUNCH(cudaLaunchCooperativeKernel)
LAUNCH(__cudaLaunchKernel)
LAUNCH(__cudaLaunchKernel_ptsz)

int cudaLaunchKernelExC(const void *config, const void *kernel, void **args) {
    static int (*next)(const void *, const void *, void **);
    if (!next) next = real("cudaLaunchKernelExC");
    launched(kernel);
    return next(config, kernel, args);
}
