// One line of scenarios.txt: a name, a kind, and parameters. The list is the same for every seam.

#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace seams
{

struct Scenario
{
    std::string name;
    std::string kind;
    std::map<std::string, std::string> parameters;

    // A parameter, or `otherwise` where the line does not give it.
    std::string text(std::string const& key, std::string const& otherwise = {}) const;

    // A parameter as a number; KiB and MiB may follow it. Throws for anything else.
    size_t number(std::string const& key, size_t otherwise) const;

    // A parameter with commas between its parts.
    std::vector<std::string> list(std::string const& key) const;
};

// The file's scenarios, in its order. Throws with file and line where one cannot be followed: a kind or a parameter
// that is not declared, a name that is used twice.
std::vector<Scenario> readScenarios(std::string const& path);

} // namespace seams
