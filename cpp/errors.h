// How a failed call of the bridge reaches the host: as the std::runtime_error that it expects, or, where it
// expects none (destructors, deregisterMemory, release, getters of state), as a line in the log.

#pragma once

#include "baton/src/ffi/bridge.rs.h"
#include "rust/cxx.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace baton
{

// Runs `call`; whatever it throws leaves as std::runtime_error with the same text.
template <typename Call>
auto orThrow(Call&& call) -> decltype(call())
{
    try
    {
        return std::forward<Call>(call)();
    }
    catch (::rust::Error const& error)
    {
        throw std::runtime_error(std::string("[baton] ") + error.what());
    }
}

// A text of C++'s for the bridge.
inline ::rust::Slice<uint8_t const> bytesOf(std::string const& text)
{
    return {reinterpret_cast<uint8_t const*>(text.data()), text.size()};
}

inline std::string stringOf(::rust::Vec<uint8_t> const& bytes)
{
    return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

// Runs `call`; whatever it throws is logged under `name`, and `otherwise` is the result.
template <typename Call, typename Result>
Result orLog(char const* name, Call&& call, Result otherwise) noexcept
{
    try
    {
        return std::forward<Call>(call)();
    }
    catch (std::exception const& error)
    {
        auto const* text = reinterpret_cast<uint8_t const*>(error.what());
        bridge::log_error(name, {text, std::strlen(error.what())});
    }
    catch (...)
    {
        bridge::log_error(name, {});
    }
    return otherwise;
}

} // namespace baton
