// Search that skips almost every row of a bank whose rows, like features of a network, vary mostly
// along few directions. Why no neighbour is lost is shown in bank_bounds.cpp.
//
// A query first looks at the groups of rows nearest to it, which gives it a limit close to the final
// one. Then the groups are visited one after another, each by all queries of the block whose limit
// reaches its box, so that a group is in cache once for all of them. Rows go through three tests,
// each dearer and sharper than the last: int8 coordinates along the principal axes, for tiles of
// queries and rows; int8 copies of all columns, row by row; float32.
#include <algorithm>
#include <cstring>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

constexpr int kEvaluated = 3;  // rows evaluated before the limit is looked at again
constexpr int kSingles = 96;   // more rows of a group than this are tested by panels

}  // namespace

int Worker::panels_of(std::int64_t group) const {
    return static_cast<int>(std::min<std::int64_t>(kGroupPanels, bank_.panels - group * kGroupPanels));
}

// Tests rows[0, count) against all columns; those in reach go to rows_. The last panel's padding never is.
int Worker::check(int i, const std::int32_t* rows, int count) {
    int real = 0;
    for (int j = 0; j < count; ++j) {
        rows_[real] = rows[j];
        real += rows[j] < bank_.rows ? 1 : 0;
    }
    return kernels_.check(bank_, bounds_[static_cast<std::size_t>(i)].whole.probe, rows_, real, row_values_);
}

// Evaluates those of rows_[0, count) that may be near, the nearest by their row_values_ first: the
// limit falls quickly and spares most of the others.
void Worker::refine(int i, int count) {
    Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
    const Top& top = tops_[static_cast<std::size_t>(i)];
    struct Candidate { float value; std::int32_t row; };
    Candidate candidates[kListed];
    for (int j = 0; j < count; ++j) candidates[j] = {row_values_[j], rows_[j]};
    const auto nearer = [](const Candidate& a, const Candidate& b) {
        return a.value != b.value ? a.value < b.value : a.row < b.row;
    };
    if (count > 1) std::sort(candidates, candidates + count, nearer);
    for (int j = 0; j < count;) {
        const Probe& probe = bounds.whole.probe;
        std::int32_t rows[kEvaluated];
        int taken = 0;
        for (; j < count && taken < kEvaluated; ++j) {
            const float error = bank_.row_terms[static_cast<std::int64_t>(candidates[j].row) * kRowTerms + 2];
            if (candidates[j].value + probe.slope * error <= probe.limit) rows[taken++] = candidates[j].row;
        }
        evaluate(i, rows, taken);
        if (top.limit() < bounds.limit()) bounds.update(top.limit());
    }
}

// The groups with the smallest bounds, nearest first. Returns how many.
int Worker::nearest_groups(const float* group_bounds, std::int64_t* nearest) const {
    float least[kNearGroups];
    int count = 0;
    for (std::int64_t group = 0; group < bank_.groups; ++group) {
        const float bound = group_bounds[group];
        if (count == kNearGroups && bound >= least[count - 1]) continue;
        int place = count < kNearGroups ? count++ : count - 1;
        for (; place > 0 && least[place - 1] > bound; --place) {
            least[place] = least[place - 1];
            nearest[place] = nearest[place - 1];
        }
        least[place] = bound;
        nearest[place] = group;
    }
    return count;
}

// Searches the listed groups for query i: the rows that look nearest, about k, first. That gives a limit
// close to the final one, for the other rows of these groups and for all other groups.
void Worker::first_limit(int i, const std::int64_t* groups, int count, int k) {
    Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
    int panels = 0;
    for (int j = 0; j < count; ++j) {
        kernels_.values(bank_.head, head_codes(i), &bounds.head.probe, 1, groups[j] * kGroupPanels, panels_of(groups[j]),
                        values_ + panels * kLanes);
        panels += panels_of(groups[j]);
    }
    const float least = k <= kLanes ? kernels_.roughly_kth(values_, panels, k) : std::numeric_limits<float>::max();
    for (const bool all : {false, true}) {
        const float slope = all ? bounds.head.probe.slope : 0.0f;
        const float limit = all ? bounds.head.probe.limit : least;
        int rows = 0;
        panels = 0;
        for (int j = 0; j < count; ++j) {
            rows += kernels_.collect(bank_.head, values_ + panels * kLanes, groups[j] * kGroupPanels, panels_of(groups[j]),
                                     std::numeric_limits<float>::lowest(), slope, limit, rows_ + rows);
            panels += panels_of(groups[j]);
        }
        refine(i, check(i, rows_, rows));
    }
}

void Worker::start_scan(int i, const float* z, float square, int k) {
    Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
    unsigned char* codes = head_codes(i);
    const Quantised q = kernels_.quantise(z, bank_.axis_count(), -1.0f, codes);
    bounds.start(bank_, queries_[static_cast<std::size_t>(i)].whole, z, square, codes, q, kernels_.bias(codes, bank_.axis_count()));
    const std::int64_t blocks = (bank_.groups + kLanes - 1) / kLanes;
    float* group_bounds = group_bounds_ + i * blocks * kLanes;
    kernels_.boxes(bank_.boxes, static_cast<int>(blocks), bounds.box, group_bounds);
    std::int64_t nearest[kNearGroups];
    const int near = nearest_groups(group_bounds, nearest);
    for (int j = 0; j < near; ++j) group_bounds[nearest[j]] = std::numeric_limits<float>::infinity();
    first_limit(i, nearest, near, k);
}

// Rows of a group that the axes left to query i: tested against all columns, then evaluated.
void Worker::look(int i, std::int64_t group, const std::int32_t* listed, int count) {
    Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
    const std::int64_t first = group * kGroupPanels;
    counts.after_first += static_cast<std::uint64_t>(count);
    if (count <= kSingles) {
        refine(i, check(i, listed, count));
        return;
    }
    const Probe& probe = bounds.whole.probe;
    ++counts.dense_groups;
    kernels_.values(bank_.whole, whole_codes(i), &probe, 1, first, panels_of(group), values_);
    const int rows = kernels_.collect(bank_.whole, values_, first, panels_of(group), std::numeric_limits<float>::lowest(),
                                      probe.slope, probe.limit, rows_);
    int real = rows;
    while (real > 0 && rows_[real - 1] >= bank_.rows) --real;  // padding of the last panel
    for (int j = 0; j < real; ++j) row_values_[j] = values_[rows_[j] - first * kLanes];
    refine(i, real);
}

// One group, for those of the listed queries that its box does not exclude.
void Worker::scan_group(const int* list, int count, std::int64_t group) {
    const std::int64_t blocks = (bank_.groups + kLanes - 1) / kLanes;
    const std::size_t code_size = static_cast<std::size_t>(bank_.axis_count() * kernels_.code_bytes);
    int near[kBlock];
    int found = 0;
    for (int j = 0; j < count; ++j) {
        const int i = list[j];
        const Bounds& bounds = bounds_[static_cast<std::size_t>(i)];
        if (!(group_bounds_[i * blocks * kLanes + group] <= bounds.box_limit)) continue;
        std::memcpy(tile_ + static_cast<std::size_t>(found) * code_size, head_codes(i), code_size);
        probes_[static_cast<std::size_t>(found)] = bounds.head.probe;
        near[found++] = i;
    }
    if (found == 0) return;
    const int panels = panels_of(group);
    kernels_.sift(bank_.head, tile_, probes_.get(), found, group * kGroupPanels, panels, masks_);
    // The rows of a few queries are on their way from memory while others are tested.
    for (int first = 0; first < found; first += kListedQueries) {
        const int some = std::min(kListedQueries, found - first);
        int ends[kListedQueries], end = 0;
        for (int j = 0; j < some; ++j) {
            const int start = end;
            end += rows_in(masks_ + (first + j) * panels, group * kGroupPanels, panels, listed_ + start);
            if (end - start <= kSingles) kernels_.fetch(bank_, listed_ + start, end - start);
            ends[j] = end;
        }
        for (int j = 0, start = 0; j < some; start = ends[j++])
            if (ends[j] > start) look(near[first + j], group, listed_ + start, ends[j] - start);
    }
}

// False when a query is not finite.
bool Worker::scan(int count, int k) {
    int list[kBlock];
    int open = 0;
    for (int first = 0; first < count; first += kProjected) {
        const int some = std::min(kProjected, count - first);
        float squares[kProjected];
        for (int j = 0; j < some; ++j)
            if (!encode(first + j, u_ + j * bank_.stride, &squares[j])) return false;
        kernels_.project(bank_, u_, some, z_);
        for (int j = 0; j < some; ++j) {
            if (queries_[static_cast<std::size_t>(first + j)].slow) continue;
            start_scan(first + j, z_ + j * bank_.axis_count(), squares[j], k);
            list[open++] = first + j;
        }
    }
    for (std::int64_t group = 0; group < bank_.groups; ++group) scan_group(list, open, group);
    return true;
}

}  // namespace adc::search
