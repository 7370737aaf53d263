// A libcufile.so.0 for tests: reads and writes files with the CPU, and reaches device memory by the libcuda of the process.
//
// FAKE_CUFILE_OPEN=N: cuFileDriverOpen fails with N.  FAKE_CUFILE_REGISTER=N: so does every registration.
// FAKE_CUFILE_LOG=FILE: one line for each call that moves bytes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  int code;
  unsigned cuda_code;
} Outcome;

typedef struct {
  int kind;
  union {
    int fd;
    void* handle;
  } file;
  void const* operations;
} Description;

typedef int (*ToDevice)(unsigned long long, void const*, size_t);
typedef int (*ToHost)(void*, unsigned long long, size_t);

enum { kInvalidValue = 5022, kNotRegistered = 5027, kAlreadyRegistered = 5028, kCudaError = 5011, kFilesMax = 65536 };
// Odd, so that requests take several steps.
enum { kStepBytes = 3 * 1000 * 1000 + 7 };

static char gKnown[kFilesMax];

static Outcome asked(char const* variable) {
  char const* const code = getenv(variable);
  Outcome const outcome = {code ? atoi(code) : 0, 0};
  return outcome;
}

// A function of the driver that the process has.
static void* driver(char const* name) {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  return library ? dlsym(library, name) : NULL;
}

static void note(char const* call, size_t bytes, long offset) {
  char const* const path = getenv("FAKE_CUFILE_LOG");
  FILE* const log = path ? fopen(path, "a") : NULL;
  if (log) {
    fprintf(log, "%s %zu %ld\n", call, bytes, offset);
    fclose(log);
  }
}

Outcome cuFileDriverOpen(void) { return asked("FAKE_CUFILE_OPEN"); }

Outcome cuFileHandleRegister(void** handle, Description* description) {
  Outcome outcome = asked("FAKE_CUFILE_REGISTER");
  int const fd = description->file.fd;
  if (outcome.code != 0) {
    return outcome;
  }
  if (description->kind != 1 || fd < 0 || fd >= kFilesMax - 1) {
    outcome.code = kInvalidValue;
  } else if (__atomic_exchange_n(&gKnown[fd], 1, __ATOMIC_ACQ_REL)) {
    outcome.code = kAlreadyRegistered;
  } else {
    *handle = (void*)((unsigned long)fd + 1);
  }
  return outcome;
}

void cuFileHandleDeregister(void* handle) { __atomic_store_n(&gKnown[(unsigned long)handle - 1], 0, __ATOMIC_RELEASE); }

static int known(void* handle) { return handle && __atomic_load_n(&gKnown[(unsigned long)handle - 1], __ATOMIC_ACQUIRE); }

ssize_t cuFileRead(void* handle, void* memory, size_t size, off_t offset, off_t place) {
  ToDevice const to_device = (ToDevice)driver("cuMemcpyHtoD_v2");
  size_t const step = size < kStepBytes ? size : kStepBytes;
  char* const bytes = malloc(step);
  ssize_t moved = !known(handle) ? -kNotRegistered : pread((int)((unsigned long)handle - 1), bytes, step, offset);
  if (moved > 0 && (!to_device || to_device((unsigned long long)memory + (unsigned long long)place, bytes, (size_t)moved))) {
    moved = -kCudaError;
  }
  note("read", step, (long)offset);
  free(bytes);
  return moved;
}

ssize_t cuFileWrite(void* handle, void const* memory, size_t size, off_t offset, off_t place) {
  ToHost const to_host = (ToHost)driver("cuMemcpyDtoH_v2");
  size_t const step = size < kStepBytes ? size : kStepBytes;
  char* const bytes = malloc(step);
  ssize_t moved = -kCudaError;
  if (!known(handle)) {
    moved = -kNotRegistered;
  } else if (to_host && !to_host(bytes, (unsigned long long)memory + (unsigned long long)place, step)) {
    moved = pwrite((int)((unsigned long)handle - 1), bytes, step, offset);
  }
  note("write", step, (long)offset);
  free(bytes);
  return moved;
}
