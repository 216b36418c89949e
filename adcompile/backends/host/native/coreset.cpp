// The C interface of the coreset selection; the selection itself is in coreset_rounds.cpp.
#include "coreset.hpp"

#include <algorithm>
#include <new>
#include <system_error>

#include "bank_paths.hpp"
#include "bank_status.hpp"
#include "bank_team.hpp"
#include "coreset_first.hpp"
#include "coreset_layout.hpp"
#include "coreset_rounds.hpp"

using namespace adc::search;

extern "C" int adc_coreset(const adc_coreset_job* job, const char* path, int64_t* selected,
                           double* radius, char* message, size_t message_size) try {
    if (job == nullptr || selected == nullptr || radius == nullptr || job->rows == nullptr)
        return say(ADC_BAD_ARGUMENT, message, message_size, "null pointer");
    if (job->count < 1 || job->count > 2147483647 - 16 || job->columns < 1 || job->columns > 65536)
        return say(ADC_BAD_ARGUMENT, message, message_size, "rows or columns out of range");
    if (job->picks < 1 || job->picks > job->count || job->first < -1 || job->first >= job->count)
        return say(ADC_BAD_ARGUMENT, message, message_size, "picks or first out of range");
    if (job->threads < 1 || job->threads > 256)
        return say(ADC_BAD_ARGUMENT, message, message_size, "threads must be 1 to 256");
    const Kernels* kernels = choose_kernels(path);
    if (kernels == nullptr)
        return say(ADC_BAD_ARGUMENT, message, message_size, "instruction set is not available here");
    Team team(job->threads);
    CoresetLayout layout;
    if (layout.prepare(*job, *kernels, team) == ADC_NOT_FINITE)
        return say(ADC_NOT_FINITE, message, message_size, "a row, or its distance from the mean, is not finite");
    Rounds rounds(layout, *kernels, team, job->picks);
    std::int64_t next = job->first >= 0 ? job->first : farthest_from_mean(layout, team);
    for (std::int64_t i = 0; i < job->picks; ++i) {
        selected[i] = next;
        const Rounds::Farthest farthest = rounds.pick(static_cast<std::int32_t>(next));
        radius[i] = std::max(0.0, farthest.squared);
        next = farthest.row;
    }
    return ADC_OK;
} catch (const std::bad_alloc&) {
    return say(ADC_NO_MEMORY, message, message_size, "not enough memory");
} catch (const std::system_error&) {
    return say(ADC_NO_MEMORY, message, message_size, "cannot start threads");
}
