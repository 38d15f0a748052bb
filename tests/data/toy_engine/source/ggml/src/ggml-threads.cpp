#include "ggml.h"

#include <thread>

extern "C" int toy_threads(void) { return static_cast<int>(std::thread::hardware_concurrency()); }
