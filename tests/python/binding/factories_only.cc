// A wrapper library of the time before seam S2: it has the factories and not the classes.

extern "C" __attribute__((visibility("default"))) void* createNixlTransferAgent(void const*)
{
    return nullptr;
}

extern "C" __attribute__((visibility("default"))) void* createNixlLoopbackAgent(void const*)
{
    return nullptr;
}
