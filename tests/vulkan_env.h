/* vulkan_env.h - the surroundings of Vulkan tests: which driver, a device with validation. */
#ifndef CX_TESTS_VULKAN_ENV_H
#define CX_TESTS_VULKAN_ENV_H

#include "graph/backend.h"

/* Pins lavapipe and a runtime folder unless the environment names others. */
void vulkan_env(void);
/* Opens vulkan:0; validate as in cx_config. Messages of the layers are printed. False: no such
 * device, and why is printed: skip. */
bool vulkan_open(int validate, cx_runtime **rt, cx_device **dev);
double vulkan_seconds(void);

#endif
