#include "llama.h"

#include <cstdio>
#include <cstring>

#include "ggml.h"

extern int LLAMA_BUILD_NUMBER;
extern char const *LLAMA_COMMIT;

int main(int argc, char **argv) {
    if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
        std::fprintf(stderr, "version: %d (%s)\n", LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
        return 0;
    }
    const float one[] = {1.0f, 2.0f};
    std::printf("%s\ndot: %.0f, %d threads, q: %d, %s\n", llama_print_system_info(), toy_dot(one, one, 2),
                toy_threads(), toy_quantize(1.0f, 0.5f), toy_origin());
    return 0;
}
