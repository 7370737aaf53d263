/*
 * A profiler that writes down what it is told, a line for each call, into the file that NVTX_LINES names.
 *
 * Where the machine has NVIDIA's headers it is compiled with them, and holds Baton against what they say; elsewhere with
 * the declarations below, which are the same as far as it uses them.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(WITH_HEADERS)

#include <nvtx3/nvToolsExt.h>

#define SLOT(name) NVTX_CBID_CORE2_##name
enum { SLOTS = NVTX_CBID_CORE2_SIZE };
static int const modules[][2] = {
    {NVTX_CB_MODULE_CORE, NVTX_CBID_CORE_SIZE},     {NVTX_CB_MODULE_CUDA, NVTX_CBID_CUDA_SIZE},
    {NVTX_CB_MODULE_OPENCL, NVTX_CBID_OPENCL_SIZE}, {NVTX_CB_MODULE_CUDART, NVTX_CBID_CUDART_SIZE},
    {NVTX_CB_MODULE_CORE2, NVTX_CBID_CORE2_SIZE},   {NVTX_CB_MODULE_SYNC, NVTX_CBID_SYNC_SIZE},
};

#else

typedef struct domain* nvtxDomainHandle_t;
typedef struct text* nvtxStringHandle_t;
typedef uint64_t nvtxRangeId_t;
typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t colorType;
    uint32_t color;
    int32_t payloadType, reserved0;
    union {
        uint64_t ullValue;
    } payload;
    int32_t messageType;
    union {
        char const* ascii;
        nvtxStringHandle_t registered;
    } message;
} nvtxEventAttributes_t;
typedef void (*NvtxFunctionPointer)(void);
typedef NvtxFunctionPointer** NvtxFunctionTable;
typedef struct {
    size_t struct_size;
    int (*GetModuleFunctionTable)(int, NvtxFunctionTable*, unsigned*);
} NvtxExportTableCallbacks;
typedef struct {
    size_t struct_size;
    uint32_t version, reserved0;
    void (*SetInjectionNvtxVersion)(uint32_t);
} NvtxExportTableVersionInfo;
typedef void const* (*NvtxGetExportTableFunc_t)(uint32_t);
enum {
    NVTX_ETID_CALLBACKS = 1,
    NVTX_ETID_VERSIONINFO = 3,
    NVTX_CB_MODULE_CORE2 = 5,
    NVTX_PAYLOAD_TYPE_UNSIGNED_INT64 = 1,
    NVTX_MESSAGE_TYPE_REGISTERED = 3,
    NVTX_COLOR_ARGB = 1,
};
enum { DomainRangeStartEx = 2, DomainRangeEnd = 3, DomainNameCategoryA = 8, DomainRegisterStringA = 10, DomainCreateA = 12 };
#define SLOT(name) name
enum { SLOTS = 16 };
static int const modules[][2] = {{1, 16}, {2, 9}, {3, 15}, {4, 7}, {5, 16}, {6, 7}};

#endif

enum { RANGES_MAX = 4096 };

static FILE* lines;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char const* names[RANGES_MAX];
static nvtxRangeId_t ranges;

static nvtxDomainHandle_t create(char const* name) {
    fprintf(lines, "domain %s\n", name);
    return (nvtxDomainHandle_t)strdup(name);
}

static nvtxStringHandle_t register_text(nvtxDomainHandle_t domain, char const* text) {
    fprintf(lines, "text %s %s\n", (char const*)domain, text);
    return (nvtxStringHandle_t)strdup(text);
}

static void name_category(nvtxDomainHandle_t domain, uint32_t category, char const* name) {
    fprintf(lines, "category %s %u %s\n", (char const*)domain, category, name);
}

static nvtxRangeId_t start(nvtxDomainHandle_t domain, nvtxEventAttributes_t const* range) {
    if (range->version != 3 || range->size != sizeof *range || range->reserved0 != 0 ||
        range->messageType != NVTX_MESSAGE_TYPE_REGISTERED || range->colorType != NVTX_COLOR_ARGB) {
        fprintf(lines, "odd attributes: version %u, %u bytes\n", range->version, range->size);
        return 0;
    }
    pthread_mutex_lock(&lock);
    nvtxRangeId_t id = ++ranges;
    names[id % RANGES_MAX] = (char const*)range->message.registered;
    fprintf(lines, "start %s %s %u %08x", (char const*)domain, (char const*)range->message.registered, range->category,
            range->color);
    if (range->payloadType == NVTX_PAYLOAD_TYPE_UNSIGNED_INT64)
        fprintf(lines, " %llx", (unsigned long long)range->payload.ullValue);
    fprintf(lines, "\n");
    pthread_mutex_unlock(&lock);
    return id;
}

static void end(nvtxDomainHandle_t domain, nvtxRangeId_t id) {
    pthread_mutex_lock(&lock);
    char const* name = names[id % RANGES_MAX];
    fprintf(lines, "end %s %s\n", (char const*)domain, id > 0 && id <= ranges && name ? name : "unknown");
    names[id % RANGES_MAX] = NULL;
    pthread_mutex_unlock(&lock);
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t tables) {
    char const* path = getenv("NVTX_LINES");
    lines = path ? fopen(path, "w") : NULL;
    if (!lines) return 0; /* does not start */
    setvbuf(lines, NULL, _IOLBF, 0);
    NvtxExportTableVersionInfo const* version = tables(NVTX_ETID_VERSIONINFO);
    NvtxExportTableCallbacks const* callbacks = tables(NVTX_ETID_CALLBACKS);
    if (tables(0) || !version || version->struct_size != sizeof *version || version->version != 3) return 0;
    if (!callbacks || callbacks->struct_size != sizeof *callbacks) return 0;
    version->SetInjectionNvtxVersion(3);
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        NvtxFunctionTable table = NULL;
        unsigned size = 0;
        if (!callbacks->GetModuleFunctionTable(modules[i][0], &table, &size)) return 0;
        if (size != (unsigned)modules[i][1] || table[0] || table[size]) return 0;
        for (unsigned slot = 1; slot < size; slot++)
            if (!table[slot]) return 0;
    }
    if (callbacks->GetModuleFunctionTable(0, NULL, NULL) || callbacks->GetModuleFunctionTable(99, NULL, NULL)) return 0;
    NvtxFunctionTable core = NULL;
    callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &core, NULL);
    *core[SLOT(DomainCreateA)] = (NvtxFunctionPointer)create;
    *core[SLOT(DomainRegisterStringA)] = (NvtxFunctionPointer)register_text;
    *core[SLOT(DomainNameCategoryA)] = (NvtxFunctionPointer)name_category;
    *core[SLOT(DomainRangeStartEx)] = (NvtxFunctionPointer)start;
    *core[SLOT(DomainRangeEnd)] = (NvtxFunctionPointer)end;
    return 1;
}
