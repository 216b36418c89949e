#include "bank_view.hpp"

#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

namespace adc::search {
namespace {

constexpr std::uint64_t kMaxColumns = 65536;
constexpr std::uint64_t kMaxRows = 2147483648u - 1024;
constexpr std::size_t kSections = 7;      // of every bank
constexpr std::size_t kAxesSections = 6;  // of one that is searched along axes, too

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
    const Section* axes = file.find("axes");
    if (file.sections.size() != kSections + (axes == nullptr ? 0 : kAxesSections))
        return refuse(why, "sections: some are missing or unknown");
    Reader read(file, why);
    const std::int32_t* columns = read.get<std::int32_t>("columns", "<i4", {1});
    if (columns == nullptr) return false;
    const Section* rows = file.find("rows");
    if (rows == nullptr || rows->shape.size() != 2) return refuse(why, "section 'rows': not two axes");
    if (*columns < 1 || static_cast<std::uint64_t>(*columns) > kMaxColumns)
        return refuse(why, "columns: " + std::to_string(*columns) + " cannot be searched");
    if (rows->shape[0] > kMaxRows) return refuse(why, "rows: more than can be searched");
    if (axes != nullptr && (axes->shape.size() != 3 || axes->shape[0] > kMaxAxes / kLanes))
        return refuse(why, "section 'axes': not three axes, of which the first is 1 to 16");
    b.rows = static_cast<std::int64_t>(rows->shape[0]);
    b.columns = *columns;
    b.stride = static_cast<std::int64_t>(blocks(static_cast<std::uint64_t>(*columns), 32) * 32);
    b.code_stride = static_cast<std::int64_t>(blocks(static_cast<std::uint64_t>(*columns), 64) * 64);
    b.axis_panels = axes == nullptr ? 0 : static_cast<int>(axes->shape[0]);
    b.panels = (b.rows + kLanes - 1) / kLanes;
    b.groups = (b.panels + kGroupPanels - 1) / kGroupPanels;
    return true;
}

bool numbers(const double* values, BankView& b, std::string& why) {
    int exponent = 0;
    if (std::frexp(values[0], &exponent) != 0.5 || exponent < -100 || exponent > 101)
        return refuse(why, "numbers: scale is not a power of two within 2^±100");
    if (values[1] < 0 || values[2] < 0) return refuse(why, "numbers: negative length");
    if (!(values[3] >= 1.0 / 1048576 && values[3] <= 1))
        return refuse(why, "numbers: step of the queries is not within 2^-20 … 1");
    b.scale = static_cast<float>(values[0]);
    b.longest = values[1] + values[2];
    b.query_step = static_cast<float>(values[3]);
    return true;
}

}  // namespace

bool view_bank(const Container& file, BankView& b, std::string& why) {
    b = BankView();
    if (!sizes(file, b, why)) return false;
    const auto n = [](std::int64_t v) { return static_cast<std::uint64_t>(v); };
    const std::uint64_t rows = n(b.rows), ld = n(b.stride), panels = n(b.panels), axes = n(b.axis_panels);
    Reader read(file, why);
    b.row_data = read.get<float>("rows", "<f4", {rows, ld});
    b.order = read.get<std::int32_t>("order", "<i4", {rows});
    b.centre = read.get<float>("centre", "<f4", {ld});
    b.whole.columns = b.stride;
    b.whole.codes = read.get<std::int8_t>("whole", "|i1", {panels, ld / 4, 64});
    b.whole.thin = (b.rows - 1) % kLanes < kLanes / 2 ? b.panels - 1 : -1;
    b.whole.terms = read.get<float>("whole_terms", "<f4", {panels, 3, 16});
    if (axes > 0) {
        b.axes = read.get<float>("axes", "<f4", {axes, ld, 16});
        b.boxes = read.get<float>("boxes", "<f4", {blocks(n(b.groups), kLanes), kBoxTerms, 16});
        b.head.columns = b.axis_count();
        b.head.rest = true;
        b.head.codes = read.get<std::int8_t>("head", "|i1", {panels, 4 * axes, 64});
        b.head.terms = read.get<float>("head_terms", "<f4", {panels, 4, 16});
        b.row_codes = read.get<std::int8_t>("row_codes", "|i1", {rows, n(b.code_stride)});
        b.row_terms = read.get<float>("row_terms", "<f4", {rows, kRowTerms});
    }
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
