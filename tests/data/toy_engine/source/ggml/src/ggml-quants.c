#include "ggml.h"

int toy_quantize(float value, float scale) { return (int) (value / scale + 0.5f); }
