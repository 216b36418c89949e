#include "bank_view.hpp"

#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

namespace adc::search {
namespace {

constexpr std::uint64_t kMaxColumns = 65536;
constexpr std::uint64_t kMaxRows = 2147483648u - 1024;
constexpr std::size_t kSections = 15;

bool refuse(std::string& why, std::string text) {
    why = std::move(text);
    return false;
}

std::uint64_t blocks(std::uint64_t n, std::uint64_t size) { return (n + size - 1) / size; }

// Finds a section of exactly this dtype and shape.
class Reader {
public:
    Reader(const Container& file, std::string& why) : file_(file), why_(why) {}

    template <class T>
    const T* get(const char* name, const char* dtype, std::initializer_list<std::uint64_t> shape) {
        const Section* s = file_.find(name);
        const std::string at = std::string("section '") + name + "'";
        if (!ok_) return nullptr;
        if (s == nullptr) return fail<T>(at + " is missing");
        if (s->dtype != dtype) return fail<T>(at + ": dtype " + s->dtype + ", expected " + dtype);
        if (s->shape != std::vector<std::uint64_t>(shape))
            return fail<T>(at + ": shape does not follow from rows and columns");
        return reinterpret_cast<const T*>(s->data);
    }
    bool ok() const { return ok_; }

private:
    template <class T>
    const T* fail(std::string text) {
        ok_ = false;
        why_ = std::move(text);
        return nullptr;
    }
    const Container& file_;
    std::string& why_;
    bool ok_ = true;
};

bool finite_section(const Section& s) {
    if (s.dtype == "<f4") {
        const float* p = reinterpret_cast<const float*>(s.data);
        for (std::uint64_t i = 0; i < s.bytes / 4; ++i)
            if (!std::isfinite(p[i])) return false;
    }
    if (s.dtype == "<f8") {
        const double* p = reinterpret_cast<const double*>(s.data);
        for (std::uint64_t i = 0; i < s.bytes / 8; ++i)
            if (!std::isfinite(p[i])) return false;
    }
    return true;
}

bool permutation(const std::int32_t* order, std::uint64_t rows) {
    std::vector<bool> seen(rows, false);
    for (std::uint64_t i = 0; i < rows; ++i) {
        if (order[i] < 0 || static_cast<std::uint64_t>(order[i]) >= rows) return false;
        if (seen[static_cast<std::size_t>(order[i])]) return false;
        seen[static_cast<std::size_t>(order[i])] = true;
    }
    return true;
}

bool sizes(const Container& file, BankView& b, std::string& why) {
    if (file.kind != "knn-l2") return refuse(why, "kind: '" + file.kind + "', expected 'knn-l2'");
    if (file.sections.size() != kSections) return refuse(why, "sections: unknown ones are present");
    Reader read(file, why);
    const std::int32_t* columns = read.get<std::int32_t>("columns", "<i4", {1});
    if (columns == nullptr) return false;
    const Section* rows = file.find("rows");
    const Section* axes = file.find("axes");
    if (rows == nullptr || rows->shape.size() != 2) return refuse(why, "section 'rows': not two axes");
    if (axes == nullptr || axes->shape.size() != 3) return refuse(why, "section 'axes': not three axes");
    if (*columns < 1 || static_cast<std::uint64_t>(*columns) > kMaxColumns)
        return refuse(why, "columns: " + std::to_string(*columns) + " cannot be searched");
    if (rows->shape[0] > kMaxRows) return refuse(why, "rows: more than can be searched");
    if (axes->shape[0] < 2 || axes->shape[0] > kMaxAxes / 16)
        return refuse(why, "section 'axes': 2 to 16 blocks are allowed");
    b.rows = static_cast<std::int64_t>(rows->shape[0]);
    b.columns = *columns;
    b.stride = static_cast<std::int64_t>(blocks(static_cast<std::uint64_t>(*columns), 32) * 32);
    b.axis_panels = static_cast<int>(axes->shape[0]);
    b.tail = 16 * (b.axis_panels - 1);
    b.panels = (b.rows + kLanes - 1) / kLanes;
    b.groups = (b.panels + kLanes - 1) / kLanes;
    b.supers = (b.groups + kLanes - 1) / kLanes;
    return true;
}

bool numbers(const double* values, BankView& b, std::string& why) {
    int exponent = 0;
    if (std::frexp(values[0], &exponent) != 0.5 || exponent < -100 || exponent > 101)
        return refuse(why, "numbers: scale is not a power of two within 2^±100");
    if (values[1] < 0 || values[2] < 0) return refuse(why, "numbers: negative length");
    b.scale = static_cast<float>(values[0]);
    b.longest = values[1];
    b.shadow_error = values[2];
    return true;
}

}  // namespace

bool view_bank(const Container& file, BankView& b, std::string& why) {
    b = BankView();
    if (!sizes(file, b, why)) return false;
    const auto n = [](std::int64_t v) { return static_cast<std::uint64_t>(v); };
    const std::uint64_t ld = n(b.stride), panels = n(b.panels), axes = n(b.axis_panels);
    Reader read(file, why);
    b.row_data = read.get<float>("rows", "<f4", {n(b.rows), ld});
    b.order = read.get<std::int32_t>("order", "<i4", {n(b.rows)});
    b.centre = read.get<float>("centre", "<f4", {ld});
    b.axes = read.get<float>("axes", "<f4", {axes, ld, 16});
    b.panel_data = read.get<float>("panels", "<f4", {panels, kPanelTerms, 16});
    b.tails = read.get<std::int8_t>("tails", "|i1", {panels, n(b.tail) / 4, 64});
    b.tail_terms = read.get<float>("tail_terms", "<f4", {panels, kTailTerms, 16});
    b.tail_sums = read.get<std::int32_t>("tail_sums", "<i4", {panels, 16});
    b.group_boxes = read.get<float>("groups", "<f4", {n(b.groups), kBoxTerms, 16});
    b.super_boxes = read.get<float>("supers", "<f4", {n(b.supers), kBoxTerms, 16});
    b.shadow = read.get<std::int8_t>("shadow", "|i1", {panels, ld / 4, 64});
    b.shadow_terms = read.get<float>("shadow_terms", "<f4", {panels, 3, 16});
    b.shadow_sums = read.get<std::int32_t>("shadow_sums", "<i4", {panels, 16});
    const double* values = read.get<double>("numbers", "<f8", {4});
    if (!read.ok() || !numbers(values, b, why)) return false;
    for (const Section& s : file.sections)
        if (!finite_section(s)) return refuse(why, "section '" + s.name + "' holds NaN or an infinity");
    if (!permutation(b.order, n(b.rows))) return refuse(why, "order: not a permutation of the rows");
    for (std::int64_t i = 0; i < b.rows; ++i)
        for (std::int64_t j = b.columns; j < b.stride; ++j)
            if (b.row(i)[j] != 0) return refuse(why, "rows: padding columns are not zero");
    return true;
}

}  // namespace adc::search
