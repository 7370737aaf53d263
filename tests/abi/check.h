// What the test hosts check with: conditions that end the program, expected errors, and canaries around whatever
// the library returns or reads.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <utility>

#define CHECK(condition) \
    do \
    { \
        if (!(condition)) \
        { \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1); \
        } \
    } while (false)

// Runs `call`, which has to throw std::runtime_error with `part` in its text.
template <typename Call>
void expectError(char const* what, std::string const& part, Call&& call)
{
    try
    {
        call();
    }
    catch (std::runtime_error const& error)
    {
        std::printf("%s: %s\n", what, error.what());
        if (std::string(error.what()).find(part) != std::string::npos)
        {
            return;
        }
        std::fprintf(stderr, "%s: the error lacks '%s': %s\n", what, part.c_str(), error.what());
        std::exit(1);
    }
    std::fprintf(stderr, "%s: no error, expected '%s'\n", what, part.c_str());
    std::exit(1);
}

// Room for a T between canaries. `fill` constructs it there from what `make` returns by value, so the callee gets
// the address of this room and every byte that it writes beside the T is seen.
template <typename T>
class Guarded
{
public:
    template <typename Make>
    explicit Guarded(Make&& make)
    {
        std::memset(mBytes, kCanary, sizeof(mBytes));
        mValue = new (mBytes + kMargin) T(std::forward<Make>(make)());
        checkCanaries();
    }

    ~Guarded()
    {
        mValue->~T();
        checkCanaries();
    }

    Guarded(Guarded const&) = delete;
    Guarded& operator=(Guarded const&) = delete;

    T& operator*() const
    {
        return *mValue;
    }

    T* operator->() const
    {
        return mValue;
    }

private:
    static constexpr size_t kMargin = 128;
    static constexpr unsigned char kCanary = 0xA5;

    void checkCanaries() const
    {
        for (size_t at = 0; at < kMargin; ++at)
        {
            CHECK(mBytes[at] == kCanary);
            CHECK(mBytes[kMargin + sizeof(T) + at] == kCanary);
        }
    }

    alignas(16) unsigned char mBytes[kMargin + sizeof(T) + kMargin];
    T* mValue;
};

// A T that ends where readable memory ends: whoever reads past it crashes. Filled with garbage first, so that
// padding is never zero by chance.
template <typename T>
class AtPageEnd
{
public:
    template <typename Make>
    explicit AtPageEnd(Make&& make)
    {
        mPages = static_cast<unsigned char*>(
            ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        CHECK(mPages != MAP_FAILED);
        std::memset(mPages, 0xEE, 2 * kPage);
        CHECK(::mprotect(mPages + kPage, kPage, PROT_NONE) == 0);
        static_assert(sizeof(T) % alignof(T) == 0 && sizeof(T) < kPage);
        mValue = new (mPages + kPage - sizeof(T)) T(std::forward<Make>(make)());
    }

    ~AtPageEnd()
    {
        mValue->~T();
        ::munmap(mPages, 2 * kPage);
    }

    AtPageEnd(AtPageEnd const&) = delete;
    AtPageEnd& operator=(AtPageEnd const&) = delete;

    T* get() const
    {
        return mValue;
    }

private:
    static constexpr size_t kPage = 65536; // at least a page everywhere

    unsigned char* mPages;
    T* mValue;
};
