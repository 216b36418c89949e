#include "bank_paths.hpp"

#include <cstring>

namespace adc::search {
namespace {

struct Path {
    const char* name;
    const Kernels* (*kernels)();
};

// Best first.
constexpr Path kPaths[] = {
    {"avx512vnni", avx512vnni_kernels}, {"avx512", avx512_kernels}, {"avx2", avx2_kernels},
    {"neondot", neondot_kernels},       {"neon", neon_kernels},     {"portable", portable_kernels},
};

}  // namespace

const Kernels* choose_kernels(const char* path) {
    const bool any = path == nullptr || std::strcmp(path, "auto") == 0;
    for (const Path& p : kPaths) {
        if (!any && std::strcmp(path, p.name) != 0) continue;
        const Kernels* kernels = p.kernels();
        if (kernels != nullptr || !any) return kernels;
    }
    return nullptr;
}

}  // namespace adc::search
