#include "llama.h"

#include <cstdio>
#include <cstring>

extern int LLAMA_BUILD_NUMBER;
extern char const *LLAMA_COMMIT;

int main(int argc, char **argv) {
    if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
        std::fprintf(stderr, "version: %d (%s)\n", LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
        return 0;
    }
    std::printf("%s\n", llama_system_info().c_str());
    return 0;
}
