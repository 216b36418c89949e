// Search through bounding boxes and principal axes: skips almost every row of a bank whose rows,
// like features of a network, vary mostly along few directions. That the bounds are safe is shown
// in bank_bounds.cpp.
//
// A block of queries is searched together. First each query looks at the groups of rows nearest to
// it, which gives it a limit close to the final one. Then the groups are visited one after another,
// each by all queries whose limit reaches it, so that a group is in cache once for all of them.
#include <algorithm>
#include <limits>

#include "bank_worker.hpp"

namespace adc::search {
namespace {

// Rough costs, in the unit of Kernels::dense_cost.
constexpr float kPanelCost = 25;
constexpr float kStartShare = 0.3f;  // of a dense scan, for the nearest groups
constexpr int kEvaluated = 3;  // rows evaluated before the limit is looked at again

}  // namespace

// Offers about k rows with the smallest bounds among the listed panels: which ones is only a guess,
// but it gives a limit.
void Worker::greedy(int i, int panels) {
    const Top& top = tops_[static_cast<std::size_t>(i)];
    const float limit = kernels_.roughly_kth(bounds_, panels, std::min(top.k(), kLanes));
    const int found = kernels_.pick(panels_, bounds_, panels, limit, rows_);
    evaluate(i, rows_, std::min(found, 2 * ADC_MAX_NEIGHBOURS));
    query_bounds_[static_cast<std::size_t>(i)].update(top.limit());
}

// Offers those of rows_[0, count) that may be near, nearest bounds first: the limit falls quickly
// and spares most of the others.
void Worker::refine(int i, int count) {
    struct Candidate { float bound; std::int32_t row; };
    const Bounds& bounds = query_bounds_[static_cast<std::size_t>(i)];
    const Top& top = tops_[static_cast<std::size_t>(i)];
    Candidate heap[kListed * kLanes];
    for (int j = 0; j < count; ++j) heap[j] = {row_bounds_[j], rows_[j]};
    const auto farther = [](const Candidate& a, const Candidate& b) {
        return a.bound != b.bound ? a.bound > b.bound : a.row > b.row;
    };
    std::make_heap(heap, heap + count, farther);
    while (count > 0) {
        const float limit = bounds.tail_limit_at(top.limit());
        std::int32_t rows[kEvaluated];
        int taken = 0;
        for (; count > 0 && taken < kEvaluated && heap[0].bound <= limit; --count) {
            rows[taken++] = heap[0].row;
            std::pop_heap(heap, heap + count, farther);
        }
        if (taken == 0) return;
        evaluate(i, rows, taken);
    }
}

// Bounds the rows of panels_[0, panels) and looks at those in reach. False when the query has by
// then cost more than the allowed part of a dense scan.
bool Worker::scan(int i, int panels, bool first, float allowed) {
    Bounds& bounds = query_bounds_[static_cast<std::size_t>(i)];
    const int open = kernels_.scan(bank_, panels_, panels, bounds.head, bounds.head_limit, bounds_);
    if (open == 0) return true;
    if (first) greedy(i, open);
    counts.after_first += static_cast<std::uint64_t>(open) * kLanes;
    const int kept = kernels_.tails(bank_, panels_, bounds_, open, bounds.tail, bounds.head_limit,
                                    bounds.tail_limit, rows_, row_bounds_);
    spent_[i] += static_cast<float>(panels) * kPanelCost + static_cast<float>(open) * tail_cost_ +
                  static_cast<float>(kept) * exact_cost_;
    if (spent_[i] > dense_cost_ * allowed) return false;
    refine(i, kept);
    bounds.update(tops_[static_cast<std::size_t>(i)].limit());
    return true;
}

// Adds the panels of a group whose boxes are within reach to panels_[listed…].
int Worker::list_panels(int i, std::int64_t group, int listed) {
    const Bounds& bounds = query_bounds_[static_cast<std::size_t>(i)];
    float boxes[kLanes];
    kernels_.boxes(bank_.group_boxes + group * kBoxTerms * kLanes, 1, bounds.box, boxes);
    const std::int64_t in_group = std::min<std::int64_t>(kLanes, bank_.panels - group * kLanes);
    for (int lane = 0; lane < in_group; ++lane) {
        panels_[listed] = static_cast<std::int32_t>(group * kLanes + lane);
        listed += boxes[lane] <= bounds.box_limit ? 1 : 0;
    }
    return listed;
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

// A first limit for query i. `previous` is a query already started, or negative.
bool Worker::start_tree(int i, int previous) {
    Top& top = tops_[static_cast<std::size_t>(i)];
    Bounds& bounds = query_bounds_[static_cast<std::size_t>(i)];
    const float* z = z_ + static_cast<std::int64_t>(i) * 16 * bank_.axis_panels;
    unsigned char* codes = tail_codes_ + i * kernels_.code_bytes * bank_.tail;
    bounds.start(bank_, z, prepared_[i].square, codes,
                 kernels_.quantise(z + kHead, bank_.tail, -1.0f, codes));
    spent_[i] = 0;
    float* group_bounds = group_bounds_ + i * bank_.supers * kLanes;
    kernels_.boxes(bank_.super_boxes, static_cast<int>(bank_.supers), bounds.box, group_bounds);
    std::int64_t nearest[kNearGroups];
    const int near = nearest_groups(group_bounds, nearest);
    if (previous >= 0) {
        // Neighbouring patches of an image resemble each other: begin with what the last one found.
        std::int32_t seeds[ADC_MAX_NEIGHBOURS];
        const int count = tops_[static_cast<std::size_t>(previous)].rows(seeds);
        evaluate(i, seeds, count);
    }
    bounds.update(top.limit());
    int listed = 0;
    for (int j = 0; j < near; ++j) {
        listed = list_panels(i, nearest[j], listed);
        group_bounds[nearest[j]] = std::numeric_limits<float>::infinity();
    }
    return scan(i, listed, true, kStartShare);
}

// Searches the queries list[0, count); moves those that the boxes and axes do not separate from
// most rows to the front of the list and returns their number: they are for the dense scan.
int Worker::tree(int* list, int count) {
    int left = 0, open = 0;
    int alive[kBlock];
    for (int j = 0; j < count; ++j) {
        if (start_tree(list[j], open > 0 ? alive[open - 1] : -1))
            alive[open++] = list[j];
        else
            list[left++] = list[j];
    }
    for (std::int64_t group = 0; group < bank_.groups; ++group) {
        // A query that will not pay off is given up early.
        const float done = static_cast<float>(group + 1) / static_cast<float>(bank_.groups);
        for (int j = 0; j < open; ++j) {
            const int i = alive[j];
            const float reach = query_bounds_[static_cast<std::size_t>(i)].box_limit;
            if (!(group_bounds_[i * bank_.supers * kLanes + group] <= reach)) continue;
            if (scan(i, list_panels(i, group, 0), false, kStartShare + done)) continue;
            list[left++] = i;
            alive[j--] = alive[--open];
        }
    }
    return left;
}

}  // namespace adc::search
