/* A card that doesn't exist: enough of CUDA's runtime for torch to plan work, and to compute none.
 *
 * It is preloaded before NVIDIA's runtime (LD_PRELOAD), whose functions of the same names it
 * replaces. What isn't here is answered by NVIDIA's runtime: that there is no driver. So nothing
 * can be computed on the card, and a kernel that torch tries to start is an error.
 */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#define GIGABYTE ((size_t)1 << 30)
#define STREAM ((cudaStream_t)16) /* any handle but the default stream's */
#define OK cudaSuccess
#define SAY(target, value) return *(target) = (value), OK

cudaError_t cudaGetDeviceCount(int *count) { SAY(count, 1); }
cudaError_t cudaGetDevice(int *device) { SAY(device, 0); }
cudaError_t cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : OK; }
cudaError_t cudaDriverGetVersion(int *version) { SAY(version, CUDART_VERSION); }
cudaError_t cudaRuntimeGetVersion(int *version) { SAY(version, CUDART_VERSION); }
cudaError_t cudaGetLastError(void) { return OK; }
cudaError_t cudaPeekAtLastError(void) { return OK; }
cudaError_t cudaDeviceSynchronize(void) { return OK; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return OK; }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return OK; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { SAY(can, 0); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
    memset(card, 0, sizeof *card);
    strcpy(card->name, "imagined card");
    card->totalGlobalMem = 24 * GIGABYTE;
    card->major = 8, card->minor = 6;
    card->multiProcessorCount = 82, card->warpSize = 32;
    card->maxThreadsPerBlock = 1024, card->maxThreadsPerMultiProcessor = 1536;
    card->maxThreadsDim[0] = card->maxThreadsDim[1] = 1024, card->maxThreadsDim[2] = 64;
    card->maxGridSize[0] = 2147483647, card->maxGridSize[1] = card->maxGridSize[2] = 65535;
    card->regsPerBlock = card->regsPerMultiprocessor = 65536;
    card->sharedMemPerBlock = 49152, card->sharedMemPerBlockOptin = 101376;
    card->sharedMemPerMultiprocessor = 102400, card->l2CacheSize = 6 << 20;
    card->unifiedAddressing = card->canMapHostMemory = card->concurrentKernels = 1;
    return OK;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *free = 23 * GIGABYTE;
    SAY(total, 24 * GIGABYTE);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    SAY(greatest, -5);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    SAY(stream, STREAM);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    SAY(status, cudaStreamCaptureStatusNone);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count) {
    SAY(status, cudaStreamCaptureStatusNone);
}

/* Of the driver, torch needs the names; it asks only whether the card is in use. */
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    SAY(active, 1);
}
#define REFUSE(name) int name(void) { return 100; /* CUDA_ERROR_NO_DEVICE */ }
REFUSE(cuCtxGetCurrent) REFUSE(cuCtxSetCurrent) REFUSE(cuDeviceGet) REFUSE(cuDeviceGetAttribute)
REFUSE(cuDevicePrimaryCtxRetain) REFUSE(cuFuncGetAttribute) REFUSE(cuFuncSetAttribute)
REFUSE(cuFuncSetCacheConfig) REFUSE(cuGetErrorString) REFUSE(cuLaunchCooperativeKernel)
REFUSE(cuLaunchKernel) REFUSE(cuLinkAddData_v2) REFUSE(cuLinkComplete) REFUSE(cuLinkCreate_v2)
REFUSE(cuModuleGetFunction) REFUSE(cuModuleLoad) REFUSE(cuModuleLoadData)
REFUSE(cuModuleLoadDataEx) REFUSE(cuModuleUnload) REFUSE(cuPointerGetAttribute)
REFUSE(cuOccupancyMaxActiveBlocksPerMultiprocessor) REFUSE(cuTensorMapEncodeTiled)

/* Pinned memory is the processor's, and torch asks which of it is pinned. */
static struct { char *first, *last; } pinned[4096];
static int count;

cudaError_t cudaHostAlloc(void **memory, size_t size, unsigned flags) {
    if (count == 4096) return cudaErrorMemoryAllocation;
    *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    pinned[count].first = *memory;
    pinned[count++].last = (char *)*memory + size;
    return OK;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
    memset(found, 0, sizeof *found);
    for (int i = 0; i < count; i++)
        if (pinned[i].first <= (char *)pointer && (char *)pointer < pinned[i].last)
            found->type = cudaMemoryTypeHost, found->hostPointer = (void *)pointer;
    return OK;
}
