#pragma once

extern "C" const char *llama_print_system_info(void);
