// Preloaded into a host (LD_PRELOAD): its wall clock is off by what the first word of the file CHAOS_CLOCK says, in
// nanoseconds, at every moment. The monotonic clock is left alone. It changes what this process is told, not the
// machine's clock.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

namespace
{

constexpr int64_t kSecond = 1'000'000'000;

std::atomic<int64_t> const* openShift()
{
    static std::atomic<int64_t> const kNone{0};
    char const* const path = std::getenv("CHAOS_CLOCK");
    int const file = path != nullptr ? ::open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
    {
        return &kNone;
    }
    void* const page = ::mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    ::close(file);
    return page == MAP_FAILED ? &kNone : static_cast<std::atomic<int64_t> const*>(page);
}

// The wall clock's time, shifted.
timespec shifted(clockid_t clock)
{
    static std::atomic<int64_t> const* const shift = openShift();
    timespec real{};
    ::syscall(SYS_clock_gettime, clock, &real);
    auto const total = real.tv_sec * kSecond + real.tv_nsec + shift->load(std::memory_order_relaxed);
    return {static_cast<time_t>(total / kSecond), static_cast<long>(total % kSecond)};
}

} // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept
{
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
    {
        *time = shifted(clock);
        return 0;
    }
    return static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
}

extern "C" int gettimeofday(timeval* time, void*) noexcept
{
    auto const now = shifted(CLOCK_REALTIME);
    *time = {now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

extern "C" time_t time(time_t* out) noexcept
{
    auto const now = shifted(CLOCK_REALTIME).tv_sec;
    if (out != nullptr)
    {
        *out = now;
    }
    return now;
}
