// Memory that Python lends for a call, as a pair of an address and a number of bytes: as cheap as two
// integers, and enough to check that a kernel stays inside.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

using Lent = std::pair<std::uintptr_t, std::int64_t>;

// The address, if there are as many numbers as there should be.
template <class T>
T* numbers(const Lent& lent, std::int64_t count, const char* name) {
    const std::int64_t size = sizeof(T), most = std::int64_t{1} << 60;
    if (count < 0 || count > most / size || lent.second != count * size) {
        throw std::invalid_argument("'" + std::string(name) + "' has " +
                                    std::to_string(lent.second) + " bytes where " +
                                    std::to_string(count) + " numbers of " +
                                    std::to_string(size) + " bytes are needed");
    }
    if (count != 0 && lent.first == 0) {
        throw std::invalid_argument("'" + std::string(name) + "' has no address");
    }
    return reinterpret_cast<T*>(lent.first);
}

// The same, or null where nothing is lent.
template <class T>
T* optional(const Lent& lent, std::int64_t count, const char* name) {
    return lent.first == 0 && lent.second == 0 ? nullptr : numbers<T>(lent, count, name);
}
