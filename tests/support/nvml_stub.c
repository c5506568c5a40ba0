/* The calls of NVIDIA's NVML that the agent makes, as https://docs.nvidia.com/deploy/nvml-api/ declares them, for a
 * machine with two GPUs of which the second does not count how busy it is. */
#include <stdio.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef struct device *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;

struct device { const char *name; unsigned int minor; nvmlMemory_t memory; unsigned int busy; };
static struct device devices[] = {
    {"NVIDIA GeForce RTX 4090", 1, {25757220864ULL, 24757220864ULL, 1000000000ULL}, 87},
    {"NVIDIA RTX A2000", 0, {12884901888ULL, 12884901888ULL, 0}, 0},
};
static int inits;

static nvmlReturn_t text(char *out, unsigned int length, const char *said) {
    if (!inits) return 1;                        /* NVML_ERROR_UNINITIALIZED */
    if (strlen(said) >= length) return 7;        /* NVML_ERROR_INSUFFICIENT_SIZE */
    strcpy(out, said);
    return 0;
}

nvmlReturn_t nvmlInit_v2(void) {
#ifdef NO_DRIVER
    return 9;                                    /* NVML_ERROR_DRIVER_NOT_LOADED */
#endif
    inits++;
    return 0;
}
nvmlReturn_t nvmlShutdown(void) { return inits-- > 0 ? 0 : 1; }
int inits_left(void) { return inits; }
nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int length) { return text(out, length, "550.54.15"); }
#ifndef OLD
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return inits ? 0 : 1; }
#endif
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (index > 1) return 2;                     /* NVML_ERROR_INVALID_ARGUMENT */
    *device = &devices[index];
    return 0;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned int length) {
    return text(out, length, device->name);
}
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) { *minor = device->minor; return 0; }
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) { *memory = device->memory; return 0; }
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    if (!device->busy) return 3;                 /* NVML_ERROR_NOT_SUPPORTED */
    rates->gpu = device->busy;
    rates->memory = 1;
    return 0;
}
