// What every factory does first: the host's age, and the one field of its config that all ages have in one place.

#pragma once

#include "abi/provider.h"
#include "errors.h"

namespace baton
{

// Finds the host's age, at the first call of the process; throws where it is none that Baton knows.
inline abi::HostAge hostAge(char const* caller, void const* config)
{
    auto const age = static_cast<abi::HostAge>(bridge::host_age(caller));
    if (config == nullptr)
    {
        throw std::runtime_error(std::string("[baton] ") + caller + " was called without a config");
    }
    return age;
}

// The name is the first member at every age.
inline ::rust::Slice<uint8_t const> nameOf(void const* config)
{
    return bytesOf(static_cast<abi::ConfigFloor const*>(config)->mName);
}

} // namespace baton
