// What the build says about the headers that check_host.cc was compiled against: their age, or that their virtual
// functions stand in another order.

#include <cstdio>

extern "C" int baton_host_headers_age();
extern "C" bool baton_host_headers_slots_fit();

int main()
{
    if (!baton_host_headers_slots_fit())
    {
        std::fputs("these TensorRT-LLM headers put the virtual functions in another order: Baton cannot serve this "
                   "host\n",
            stderr);
        return 1;
    }
    std::printf("these TensorRT-LLM headers are of age P%d%s\n", baton_host_headers_age(),
        baton_host_headers_age() == 0 ? " (or P0b or P1)" : "");
    return 0;
}
