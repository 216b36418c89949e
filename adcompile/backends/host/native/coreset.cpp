// Farthest-point selection that looks at few of the count x picks pairs, and is exact.
//
// Every row's distance to the picks is only known as of some pick; later picks can only make it
// smaller. So rows wait in panels of 16, ordered by the largest distance in the panel (an upper
// bound of today's). Only the panel at the top is brought up to date, against the picks it has not
// seen; when the top panel is up to date, its farthest row is the farthest of all. For a panel and
// a pick, three bounds come before an exact evaluation: the distance from the panel's box, the
// distance along 16 principal axes, and the distance between int8 copies. All are safe under
// rounding (bank_bounds.cpp, bank_dense.cpp, coreset_layout.cpp); exact distances are in double
// precision.
#include "coreset.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "bank_paths.hpp"
#include "coreset_layout.hpp"

namespace adc::search {
namespace {

constexpr double kEps = 1.01 / 16777216.0;
constexpr double kTiny = 1e-30;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBatch = 64;  // picks a panel sees at once

float up(double value) { return static_cast<float>(value + std::fabs(value) * 2.4e-7 + 1e-37); }

class Coreset {
public:
    Coreset(const CoresetLayout& layout, const Kernels& kernels, std::int64_t picks);
    void run(std::int64_t first, std::int64_t picks, std::int64_t* selected, double* radius);

private:
    void add_pick(std::int64_t stored);
    void set_nearest(std::int64_t stored, double squared);
    void refresh(std::int32_t panel);
    void catch_up(std::int32_t panel, double others);
    void see(std::int32_t panel, std::int64_t first, std::int64_t last);
    void evaluate(std::int32_t panel, const std::int32_t* picks, int count, std::uint16_t* masks);
    void sift_down(std::size_t at);
    double next_best() const;
    std::int64_t farthest();

    const CoresetLayout& layout_;
    const BankView& view_;
    const Kernels& kernels_;
    double scale_square_, head_slack_, dense_slack_;
    std::int64_t seen_ = 0;                // picks so far
    std::vector<double> nearest_;          // per stored row: as of its panel's `done`
    std::vector<float> limits_, reach_;    // the same for the bounds
    std::vector<double> most_;             // per panel: its largest `nearest`
    std::vector<std::int32_t> row_;        // … and the row of the job that has it
    std::vector<std::int32_t> done_;       // … picks it has seen
    std::vector<std::int32_t> heap_;       // panels, largest `most` first
    std::vector<std::int64_t> picks_;      // stored rows
    std::vector<float> pick_terms_, pick_boxes_, pick_errors_, pick_offsets_;
    std::vector<Probe> pick_probes_;
    AlignedBytes pick_codes_;
    std::vector<float> u_, values_;
    std::vector<unsigned char> tile_;
};

Coreset::Coreset(const CoresetLayout& layout, const Kernels& kernels, std::int64_t picks)
    : layout_(layout), view_(layout.view), kernels_(kernels) {
    const double y = view_.longest;
    const double error = *std::max_element(layout.errors.begin(), layout.errors.end());
    const double reach = 3 * (y + error);
    scale_square_ = static_cast<double>(view_.scale) * static_cast<double>(view_.scale) * (1 + 1e-6);
    head_slack_ = 4.1 * layout.axis_error * y + (kPanelTerms + 6) * kEps * 13 * y * y + kTiny;
    dense_slack_ = 16 * kEps * reach * reach + kTiny;
    const auto lanes = static_cast<std::size_t>(view_.panels * kLanes);
    const auto panels = static_cast<std::size_t>(view_.panels);
    const auto wanted = static_cast<std::size_t>(picks);
    const auto code_bytes = static_cast<std::size_t>(view_.stride * kernels.code_bytes);
    nearest_.assign(lanes, -2.0);
    limits_.assign(lanes, -1e30f);
    reach_.assign(lanes, std::numeric_limits<float>::quiet_NaN());
    for (std::int64_t i = 0; i < view_.rows; ++i) set_nearest(i, kInfinity);
    most_.assign(panels, kInfinity);
    row_.assign(panels, 0);
    done_.assign(panels, 0);
    heap_.resize(panels);
    for (std::size_t i = 0; i < panels; ++i) heap_[i] = static_cast<std::int32_t>(i);
    pick_terms_.resize(wanted * kCentreTerms);
    pick_boxes_.resize((wanted + kLanes - 1) / kLanes * kLanes * kBoxTerms);
    for (std::vector<float>* v : {&pick_errors_, &pick_offsets_}) v->resize(wanted);
    pick_probes_.resize(wanted);
    if (!pick_codes_.allocate(wanted * code_bytes)) throw std::bad_alloc();
    u_.resize(static_cast<std::size_t>(view_.stride));
    values_.resize(kBatch * kLanes);
    tile_.resize(kBatch * code_bytes);
}

void Coreset::set_nearest(std::int64_t stored, double squared) {
    const auto at = static_cast<std::size_t>(stored);
    nearest_[at] = squared;
    const double u_square = squared * scale_square_;
    limits_[at] = up(u_square + head_slack_);
    reach_[at] = up(std::sqrt(u_square)) + layout_.errors[at] * 1.0001f;
}

// What later bounds need of a pick.
void Coreset::add_pick(std::int64_t stored) {
    const auto t = static_cast<std::size_t>(seen_), at = static_cast<std::size_t>(stored);
    const std::int64_t lane = stored % kLanes;
    const float* panel = &layout_.panels[static_cast<std::size_t>(stored / kLanes) * kPanelTerms * kLanes];
    float* terms = &pick_terms_[t * kCentreTerms];
    for (int axis = 0; axis < kHead; ++axis) terms[axis] = -2 * panel[16 * (1 + axis) + lane];
    terms[kHead] = -2 * panel[16 * (1 + kHead) + lane];
    terms[kHead + 1] = panel[lane];
    float* box = &pick_boxes_[t / kLanes * kLanes * kBoxTerms + t % kLanes];
    const BoxQuery& around = layout_.boxes[static_cast<std::size_t>(stored / kLanes)];
    for (int axis = 0; axis < kBoxAxes; ++axis) box[32 * axis] = box[32 * axis + 16] = panel[16 * (1 + axis) + lane];
    box[32 * kBoxAxes] = layout_.rest_low[at];
    box[32 * kBoxAxes + 16] = around.high[kBoxAxes];  // not this row's own, but safe

    float square, largest;
    kernels_.centre(view_, layout_.row(stored), u_.data(), &square, &largest);
    const auto code_bytes = static_cast<std::size_t>(view_.stride * kernels_.code_bytes);
    const Quantised q = kernels_.quantise(u_.data(), view_.stride, largest, pick_codes_.data() + t * code_bytes);
    pick_errors_[t] = layout_.errors[at] * 1.0001f;
    pick_offsets_[t] = up(dense_slack_ - q.square);
    pick_probes_[t] = {nullptr, -2 * q.step, 0, 0, 0, kernels_.bias(pick_codes_.data() + t * code_bytes, view_.stride)};
    picks_.push_back(stored);
    nearest_[at] = -1;  // never again
    limits_[at] = -1e30f;
    reach_[at] = std::numeric_limits<float>::quiet_NaN();
    ++seen_;
    refresh(static_cast<std::int32_t>(stored / kLanes));
}

// The farthest row of a panel; the lowest number among equals.
void Coreset::refresh(std::int32_t panel) {
    const auto p = static_cast<std::size_t>(panel);
    double most = -3;
    std::int32_t row = 0;
    for (std::size_t i = p * kLanes; i < (p + 1) * kLanes && i < layout_.order.size(); ++i) {
        if (nearest_[i] < most || (nearest_[i] == most && layout_.order[i] > row)) continue;
        most = nearest_[i];
        row = layout_.order[i];
    }
    most_[p] = most;
    row_[p] = row;
}

// Exact distances of the masked rows of a panel to the listed picks; values_ holds the int8 bounds.
void Coreset::evaluate(std::int32_t panel, const std::int32_t* picks, int count, std::uint16_t* masks) {
    const std::int64_t start = static_cast<std::int64_t>(panel) * kLanes;
    for (int i = 0; i < count; ++i) {
        const auto t = static_cast<std::size_t>(picks[i]);
        const float* rows[kLanes];
        std::int64_t stored[kLanes];
        int wanted = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            if ((masks[i] >> lane & 1) == 0) continue;
            // An earlier pick of this batch may have brought the row out of reach.
            const float far = reach_[static_cast<std::size_t>(start + lane)] + pick_errors_[t];
            if (values_[static_cast<std::size_t>(i * kLanes + lane)] > far * far + pick_offsets_[t]) continue;
            stored[wanted] = start + lane;
            rows[wanted++] = layout_.row(start + lane);
        }
        double squared[kLanes];
        kernels_.precise(layout_.row(picks_[t]), rows, wanted, view_.stride, squared);
        for (int j = 0; j < wanted; ++j)
            if (squared[j] < nearest_[static_cast<std::size_t>(stored[j])]) set_nearest(stored[j], squared[j]);
    }
}

// Brings a panel up to date with the picks [first, last), at most kBatch from one multiple of 16.
void Coreset::see(std::int32_t panel, std::int64_t first, std::int64_t last) {
    const auto p = static_cast<std::size_t>(panel);
    const std::int64_t base = first / kLanes * kLanes;
    const int blocks = static_cast<int>((last - base + kLanes - 1) / kLanes);
    float bounds[kBatch];
    kernels_.boxes(&pick_boxes_[static_cast<std::size_t>(base) * kBoxTerms], blocks, layout_.boxes[p], bounds);
    const double reach = std::sqrt(most_[p] * scale_square_) + 2 * layout_.axis_error;
    const float limit = up(reach * reach * (1 + 1e-5) + kTiny);
    std::int32_t listed[kBatch];
    std::uint16_t masks[kBatch];
    int count = 0;
    for (std::int64_t t = first; t < last; ++t) {
        listed[count] = static_cast<std::int32_t>(t);
        count += bounds[t - base] <= limit ? 1 : 0;
    }
    count = kernels_.scan_centres(&layout_.panels[p * kPanelTerms * kLanes], &limits_[p * kLanes],
                                  pick_terms_.data(), listed, count, masks);
    if (count == 0) return;
    const auto code_bytes = static_cast<std::size_t>(view_.stride * kernels_.code_bytes);
    Probe probes[kBatch];
    float errors[kBatch], offsets[kBatch];
    for (int i = 0; i < count; ++i) {
        const auto t = static_cast<std::size_t>(listed[i]);
        std::memcpy(&tile_[static_cast<std::size_t>(i) * code_bytes], pick_codes_.data() + t * code_bytes, code_bytes);
        probes[i] = pick_probes_[t];
        errors[i] = pick_errors_[t];
        offsets[i] = pick_offsets_[t];
    }
    kernels_.values(view_.whole, tile_.data(), probes, count, panel, 1, values_.data());
    kernels_.reachable(values_.data(), count, &reach_[p * kLanes], errors, offsets, masks);
    evaluate(panel, listed, count, masks);
    refresh(panel);
}

// Until the panel has seen every pick, or is certainly not the farthest: `others` is farther.
void Coreset::catch_up(std::int32_t panel, double others) {
    const auto p = static_cast<std::size_t>(panel);
    while (done_[p] < seen_) {
        const std::int64_t first = done_[p];
        // Small batches while distances still fall quickly.
        const std::int64_t size = first < 4 ? 1 : first < kLanes ? 4 : kBatch;
        const std::int64_t last = std::min(seen_, std::min(first / kLanes * kLanes + kBatch, first + size));
        see(panel, first, last);
        done_[p] = static_cast<std::int32_t>(last);
        if (most_[p] < others) return;
    }
}

void Coreset::sift_down(std::size_t at) {
    const std::int32_t panel = heap_[at];
    const double key = most_[static_cast<std::size_t>(panel)];
    for (;;) {
        std::size_t child = 2 * at + 1;
        if (child >= heap_.size()) break;
        const auto most = [this](std::size_t i) { return most_[static_cast<std::size_t>(heap_[i])]; };
        if (child + 1 < heap_.size() && most(child + 1) > most(child)) ++child;
        if (most(child) <= key) break;
        heap_[at] = heap_[child];
        at = child;
    }
    heap_[at] = panel;
}

double Coreset::next_best() const {
    double best = -3;
    for (std::size_t i = 1; i < std::min<std::size_t>(3, heap_.size()); ++i)
        best = std::max(best, most_[static_cast<std::size_t>(heap_[i])]);
    return best;
}

// Brings the top of the heap up to date; returns the panel with the farthest row.
std::int64_t Coreset::farthest() {
    std::vector<std::size_t> equal;
    for (;;) {
        const std::int32_t top = heap_[0];
        if (done_[static_cast<std::size_t>(top)] < seen_) {
            catch_up(top, next_best());
            sift_down(0);
            continue;
        }
        // Panels with the same distance are together at the top of the heap; among them the row
        // with the lowest number counts, once all are up to date.
        const double most = most_[static_cast<std::size_t>(top)];
        std::int32_t best = top;
        bool stale = false;
        equal.assign(1, 0);
        for (std::size_t i = 0; i < equal.size() && !stale; ++i) {
            const std::int32_t panel = heap_[equal[i]];
            const auto p = static_cast<std::size_t>(panel);
            if (done_[p] < seen_) {
                catch_up(panel, -3);
                sift_down(equal[i]);
                stale = true;
                continue;
            }
            if (row_[p] < row_[static_cast<std::size_t>(best)]) best = panel;
            for (std::size_t child = 2 * equal[i] + 1; child <= 2 * equal[i] + 2 && child < heap_.size(); ++child)
                if (most_[static_cast<std::size_t>(heap_[child])] == most) equal.push_back(child);
        }
        if (!stale) return best;
    }
}

void Coreset::run(std::int64_t first, std::int64_t picks, std::int64_t* selected, double* radius) {
    std::int64_t next = first;
    for (std::int64_t i = 0; i < picks; ++i) {
        selected[i] = next;
        const std::int64_t stored = layout_.place[static_cast<std::size_t>(next)];
        const auto panel = static_cast<std::int32_t>(stored / kLanes);
        add_pick(stored);
        for (std::size_t at = 0; at < heap_.size(); ++at) {
            if (heap_[at] != panel) continue;
            sift_down(at);
            break;
        }
        const auto best = static_cast<std::size_t>(farthest());
        radius[i] = std::max(0.0, most_[best]);
        next = row_[best];
    }
}

int say(int status, char* message, std::size_t size, const std::string& text) {
    if (message != nullptr && size > 0) std::snprintf(message, size, "%s", text.c_str());
    return status;
}

}  // namespace
}  // namespace adc::search

extern "C" int adc_coreset(const adc_coreset_job* job, const char* path, int64_t* selected,
                           double* radius, char* message, size_t message_size) try {
    using namespace adc::search;
    if (job == nullptr || selected == nullptr || radius == nullptr || job->rows == nullptr ||
        job->centre == nullptr || job->axes == nullptr)
        return say(ADC_BAD_ARGUMENT, message, message_size, "null pointer");
    if (job->count < 1 || job->count > 2147483647 - 16 || job->columns < 1 || job->columns > 65536)
        return say(ADC_BAD_ARGUMENT, message, message_size, "rows or columns out of range");
    if (job->picks < 1 || job->picks > job->count || job->first < 0 || job->first >= job->count)
        return say(ADC_BAD_ARGUMENT, message, message_size, "picks or first out of range");
    if (job->threads < 1 || job->threads > 256)
        return say(ADC_BAD_ARGUMENT, message, message_size, "threads must be 1 to 256");
    const Kernels* kernels = choose_kernels(path);
    if (kernels == nullptr)
        return say(ADC_BAD_ARGUMENT, message, message_size, "instruction set is not available here");
    CoresetLayout layout;
    if (!layout.prepare(*job, *kernels)) throw std::bad_alloc();
    Coreset(layout, *kernels, job->picks).run(job->first, job->picks, selected, radius);
    return ADC_OK;
} catch (const std::bad_alloc&) {
    return adc::search::say(ADC_NO_MEMORY, message, message_size, "not enough memory");
} catch (const std::system_error&) {
    return adc::search::say(ADC_NO_MEMORY, message, message_size, "cannot start threads");
}
