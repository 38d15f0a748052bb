#include "fattn-vec.cuh"

FATTN(F16, F16)
FATTN(Q4_0, Q4_0)
FATTN(Q8_0, Q8_0)
