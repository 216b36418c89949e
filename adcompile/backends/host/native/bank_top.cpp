#include "bank_top.hpp"

#include <algorithm>
#include <limits>

namespace adc::search {

void Top::start(const BankView* bank, const Kernels* kernels, const float* query, int k,
                double margin) {
    bank_ = bank;
    kernels_ = kernels;
    query_ = query;
    k_ = k;
    count_ = 0;
    margin_ = margin;
    limit_ = std::numeric_limits<double>::infinity();
}

bool Top::contains(std::int32_t row) const {
    for (int i = 0; i < count_; ++i)
        if (entries_[i].row == row) return true;
    return false;
}

int Top::rows(std::int32_t* out) const {
    const int count = std::min(count_, k_);
    for (int i = 0; i < count; ++i) out[i] = entries_[i].row;
    return count;
}

double Top::precise(Entry& entry) const {
    if (entry.precise < 0) {
        const float* row = bank_->row(entry.row);
        kernels_->precise(query_, &row, 1, bank_->stride, &entry.precise);
    }
    return entry.precise;
}

void Top::offer(std::int32_t row, float distance) {
    Entry entry{distance, -1.0, row};
    if (!keeps_error(distance)) entry.value = precise(entry);
    if (entry.value * (1 - margin_) > limit_) return;
    int place = count_++;
    for (; place > 0 && entries_[place - 1].value > entry.value; --place)
        entries_[place] = entries_[place - 1];
    entries_[place] = entry;
    if (count_ < k_) return;
    refresh_limit();
    if (count_ == k_ + kSpare) settle();
}

void Top::offer(const std::int32_t* rows, const float* distances, int count) {
    // Into an empty list all go at once, each to its place: no comparison to guess wrongly.
    bool sound = count_ == 0 && count > 1;
    for (int i = 0; i < count; ++i) sound &= keeps_error(distances[i]);
    if (sound) {
        std::uint8_t places[kRanked];
        kernels_->ranks(distances, count, places);
        for (int i = 0; i < count; ++i) entries_[places[i]] = {distances[i], -1.0, rows[i]};
        count_ = count;
        if (count_ >= k_) refresh_limit();
        return;
    }
    for (int i = 0; i < count; ++i) offer(rows[i], distances[i]);
}

void Top::refresh_limit() {
    limit_ = entries_[k_ - 1].value * (1 + margin_);
    while (count_ > k_ && entries_[count_ - 1].value * (1 - margin_) > limit_) --count_;
}

void Top::order_precisely(int first, int last) {
    for (int i = first; i < last; ++i) precise(entries_[i]);
    std::sort(entries_ + first, entries_ + last, [this](const Entry& a, const Entry& b) {
        if (a.precise != b.precise) return a.precise < b.precise;
        return bank_->order[a.row] < bank_->order[b.row];
    });
}

void Top::settle() {
    order_precisely(0, count_);
    count_ = k_;
    std::sort(entries_, entries_ + count_,
              [](const Entry& a, const Entry& b) { return a.value < b.value; });
    limit_ = entries_[k_ - 1].value * (1 + margin_);
}

void Top::finish(std::int64_t* indices, double* squared) {
    // Runs of entries whose margins touch are put in order by their double-precision distances.
    for (int first = 0; first < count_ && first < k_;) {
        int last = first + 1;
        while (last < count_ && entries_[last].value * (1 - margin_) <=
                                    entries_[last - 1].value * (1 + margin_))
            ++last;
        if (last - first > 1) order_precisely(first, last);
        first = last;
    }
    double previous = 0;
    for (int i = 0; i < k_; ++i) {
        // Within a run the float32 values may disagree in their last digits; keep them ascending.
        previous = std::max(previous, entries_[i].value);
        indices[i] = bank_->order[entries_[i].row];
        squared[i] = previous;
    }
}

}  // namespace adc::search
