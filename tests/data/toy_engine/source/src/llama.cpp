#include "llama.h"

#include <string>

#include "ggml.h"

extern "C" const char *llama_print_system_info(void) {
    static std::string line;
    line = std::string(toy_cuda_features()) + toy_features();
    return line.c_str();
}
