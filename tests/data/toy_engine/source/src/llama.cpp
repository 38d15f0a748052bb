#include "llama.h"

#include "ggml.h"

std::string llama_system_info() {
    const float one[] = {1.0f, 2.0f};
    const std::string features = toy_features();
    return "features: " + features + "| dot: " + std::to_string(toy_dot(one, one, 2)) +
           " | threads: " + (toy_threads() > 0 ? "some" : "unknown") +
           " | q: " + std::to_string(toy_quantize(1.0f, 0.5f)) + " | " + toy_origin();
}
