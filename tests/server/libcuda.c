/* A driver with as many GPUs as FAKE_GPUS says, whose memory is the machine's.
 *
 * It is compiled against NVIDIA's own cuda.h, so that every function has the driver's signature;
 * its arguments are checked. Errors are those of the driver. */
#include <cuda.h>
#include <stdlib.h>
#include <string.h>

static int initialized, pinned;
static __thread int pushed;

static int gpus(void) {
    const char *text = getenv("FAKE_GPUS");
    return text ? atoi(text) : 2;
}

static CUresult checked(CUdevice device) {
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    return device >= 0 && device < gpus() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuInit(unsigned int flags) {
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    if (!gpus()) return CUDA_ERROR_NO_DEVICE;
    initialized = 1;
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    *count = gpus();
    return initialized ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return checked(ordinal);
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    strncpy(name, device == 1 ? "Fake A100 MIG 1g.10gb" : "Fake H200", length);
    return checked(device);
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    for (int i = 0; i < 16; i++) uuid->bytes[i] = (char)(16 * device + i + 0xa0);
    return checked(device);
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    *bytes = (size_t)(device + 1) << 34;
    return checked(device);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = (CUcontext)(size_t)(0x7000000000 + device);
    return checked(device);
}

CUresult cuCtxPushCurrent(CUcontext context) {
    if ((size_t)context < 0x7000000000) return CUDA_ERROR_INVALID_CONTEXT;
    pushed++;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context) {
    if (!context || !pushed) return CUDA_ERROR_INVALID_CONTEXT;
    pushed--;
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(size_t *available, size_t *total) {
    *total = (size_t)1 << 34;
    *available = *total / 4;
    return pushed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuMemHostAlloc(void **address, size_t size, unsigned int flags) {
    if (!pushed || flags) return CUDA_ERROR_INVALID_VALUE;
    if (!size || size > 1 << 20) return CUDA_ERROR_OUT_OF_MEMORY;
    pinned++;
    return posix_memalign(address, 4096, size) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *address) {
    if (!pushed) return CUDA_ERROR_INVALID_CONTEXT;
    pinned--;
    free(address);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr device, const void *host, size_t size) {
    memcpy((void *)device, host, size);
    return pushed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuMemcpyDtoH(void *host, CUdeviceptr device, size_t size) {
    memcpy(host, (void *)device, size);
    return pushed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* ONNX Runtime's provider is linked against it. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                void *address, const cuuint64_t *sizes, const cuuint64_t *strides,
                                const cuuint32_t *box, const cuuint32_t *element_strides,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
    return CUDA_ERROR_NOT_SUPPORTED;
}

int fake_pinned(void) { return pinned; }
