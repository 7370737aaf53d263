// One test host: `host CASE [TEXT]` runs one case and ends with 0 when it holds.

#include "host.h"

#include <unistd.h>

extern "C" int baton_host_headers_age();
extern "C" bool baton_host_headers_slots_fit();

#ifdef LINKED_TO_STAND_IN
extern "C" int stand_in_loaded();
#endif

// The declarations that this host is compiled with are those of its age, as check_host.cc tells ages.
static void headers()
{
    CHECK(baton_host_headers_slots_fit());
    constexpr int kExpected = HOST_AGE <= AGE_P1 ? 0 : HOST_AGE - AGE_P2 + 2;
    CHECK(baton_host_headers_age() == kExpected);
}

// Runs a case; false if there is none of that name.
static bool run(std::string const& name, std::string const& text)
{
    if (name == "refused")
    {
        host::refused(text);
        return true;
    }
    constexpr std::pair<char const*, void (*)()> kCases[] = {
        {"headers", headers},
        {"slots", host::slots},
        {"threads", host::threads},
        {"bad_input", host::badInput},
        {"lost_peer", host::lostPeer},
        {"loopback", host::loopback},
        {"gpu_memory", host::gpuMemory},
        {"mooncake", host::mooncake},
        {"connections", host::connections},
        {"connection_threads", host::connectionThreads},
        {"connection_input", host::connectionInput},
        {"connection_ends", host::connectionEnds},
        {"both_seams", host::bothSeams},
#if HOST_AGE >= AGE_P4
        {"connection_cancel", host::connectionCancel},
#endif
    };
    for (auto const& entry : kCases)
    {
        if (name == entry.first)
        {
            entry.second();
            return true;
        }
    }
    return false;
}

int main(int argc, char** argv)
{
    constexpr unsigned kWatchdogSeconds = 60;
    ::alarm(kWatchdogSeconds); // its default action ends a host that hangs
#ifdef LINKED_TO_STAND_IN
    CHECK(stand_in_loaded() >= AGE_P0);
#else
    CHECK(::dlopen("libtensorrt_llm.so", RTLD_NOW | RTLD_LOCAL) != nullptr); // as Python loads it
#endif
    std::string const name = argc > 1 ? argv[1] : "";
    try
    {
        if (!run(name, argc > 2 ? argv[2] : ""))
        {
            std::fprintf(stderr, "usage: %s CASE [TEXT]\n", argv[0]);
            return 2;
        }
    }
    catch (std::exception const& error)
    {
        std::fprintf(stderr, "%s: unexpected error: %s\n", name.c_str(), error.what());
        return 1;
    }
    std::printf("%s: ok\n", name.c_str());
    return 0;
}
