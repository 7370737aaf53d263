#include "scenario.h"

#include <fstream>
#include <iomanip>
#include <set>
#include <sstream>
#include <stdexcept>

namespace seams
{
namespace
{

// What `kind NAME PARAMETER...` lines declare.
using Kinds = std::map<std::string, std::set<std::string>>;

void declare(std::istringstream& words, Kinds& kinds)
{
    std::string kind, parameter;
    words >> kind;
    while (words >> parameter)
    {
        kinds[kind].insert(parameter);
    }
}

// `name kind key=value key="a value" ...`
Scenario parse(std::string const& name, std::istringstream& words, Kinds const& kinds)
{
    Scenario scenario{name, {}, {}};
    words >> scenario.kind;
    auto const kind = kinds.find(scenario.kind);
    if (kind == kinds.end())
    {
        throw std::runtime_error("no kind '" + scenario.kind + "' is declared");
    }
    std::string key, value;
    while (std::getline(words >> std::ws, key, '='))
    {
        if (kind->second.count(key) == 0)
        {
            throw std::runtime_error("a " + scenario.kind + " has no parameter '" + key + "'");
        }
        words >> std::quoted(value);
        scenario.parameters[key] = value;
    }
    return scenario;
}

} // namespace

std::string Scenario::text(std::string const& key, std::string const& otherwise) const
{
    auto const found = parameters.find(key);
    return found == parameters.end() ? otherwise : found->second;
}

size_t Scenario::number(std::string const& key, size_t otherwise) const
{
    auto const value = text(key);
    if (value.empty())
    {
        return otherwise;
    }
    size_t end = 0;
    size_t const number = std::stoull(value, &end);
    std::map<std::string, size_t> const units{{"", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}};
    auto const unit = units.find(value.substr(end));
    if (unit == units.end())
    {
        throw std::runtime_error(name + ": " + key + "=" + value + " is not a number");
    }
    return number * unit->second;
}

std::vector<std::string> Scenario::list(std::string const& key) const
{
    std::vector<std::string> parts;
    std::istringstream words(text(key));
    for (std::string part; std::getline(words, part, ',');)
    {
        parts.push_back(part);
    }
    return parts;
}

std::vector<Scenario> readScenarios(std::string const& path)
{
    std::ifstream file(path);
    if (!file)
    {
        throw std::runtime_error("cannot read " + path);
    }
    Kinds kinds;
    std::set<std::string> names;
    std::vector<Scenario> scenarios;
    std::string line;
    for (int number = 1; std::getline(file, line); ++number)
    {
        std::istringstream words(line);
        std::string name;
        if (!(words >> name) || name[0] == '#')
        {
            continue;
        }
        try
        {
            if (name == "kind")
            {
                declare(words, kinds);
                continue;
            }
            if (!names.insert(name).second)
            {
                throw std::runtime_error("the name is used twice");
            }
            scenarios.push_back(parse(name, words, kinds));
        }
        catch (std::exception const& error)
        {
            throw std::runtime_error(path + ":" + std::to_string(number) + ": " + error.what());
        }
    }
    return scenarios;
}

} // namespace seams
