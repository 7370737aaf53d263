// A libcuda.so.1 of long ago: it starts, and has next to nothing.
int cuInit(unsigned flags) { return flags ? 1 : 0; }

int cuDriverGetVersion(int* version) {
  *version = 9000;
  return 0;
}

int cuDeviceGetCount(int* count) {
  *count = 1;
  return 0;
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? 0 : 101;
}
