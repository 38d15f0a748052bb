#pragma once

#include <string>

std::string llama_system_info();
