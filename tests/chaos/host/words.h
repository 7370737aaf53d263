// The parameters of a command, one after the other.

#pragma once

#include <sstream>
#include <stdexcept>

namespace chaos
{

// The next parameter; throws where there is none.
template <typename Value>
Value next(std::istringstream& words)
{
    Value value{};
    if (!(words >> value))
    {
        throw std::logic_error("the command lacks a parameter");
    }
    return value;
}

} // namespace chaos
