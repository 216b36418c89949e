// The inner loops of the bank search, one implementation per instruction set, chosen at run time.
// What the arrays hold is documented in adcompile/anomaly/bank_layout.py.
#ifndef ADCOMPILE_BANK_KERNELS_HPP
#define ADCOMPILE_BANK_KERNELS_HPP

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __FAST_MATH__
#error "the exact search needs IEEE arithmetic: compile without -ffast-math and -Ofast"
#endif

namespace adc::search {

constexpr int kLanes = 16;         // rows of a panel
constexpr int kGroupPanels = 16;   // panels of a group, which has one bounding box
constexpr int kBoxTerms = 18;      // low and high of 8 coordinates and of the rest
constexpr int kBoxAxes = 8;
constexpr int kMaxAxes = 256;
constexpr int kProjectBlock = 64;  // columns summed in one chain by Kernels::project
constexpr int kRanked = 32;        // values that are put in order together
constexpr float kFarAway = 1e30f;  // value of a panel's padding
constexpr int kTagged = 128;       // panels that Kernels::closest can tell apart
constexpr int kRowTerms = 4;       // step, base, error, padding

// 0, 1, … n - 1 as template arguments.
template <int... n>
struct Pack {
    static constexpr int size() { return sizeof...(n); }
};
template <int n, int... rest>
struct CountDown : CountDown<n - 1, n - 1, rest...> {};
template <int... rest>
struct CountDown<0, rest...> {
    using type = Pack<rest...>;
};
template <int n>
using Count = typename CountDown<n>::type;

// A copy of the rows as int8 points, in panels of 16 rows, with a bound on the error of each point;
// bank_bounds.cpp says how they are used. A point may have one more coordinate, a float.
struct Shadow {
    std::int64_t columns = 0;            // coordinates kept as int8, a multiple of 16
    const std::int8_t* codes = nullptr;  // [panels][columns / 4][16 rows][4]
    const float* terms = nullptr;        // [panels][3 or 4][16]: step, base, error, float coordinate
    bool rest = false;                   // the float coordinate exists
    std::int64_t thin = -1;              // number of a last panel of up to 8 rows; the others are padding

    int term_count() const { return rest ? 4 : 3; }
};

struct AxesCopy;
struct HalfBank;

struct BankView {
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t stride = 0;       // columns padded to a multiple of 32
    std::int64_t code_stride = 0;  // columns padded to a multiple of 64
    std::int64_t panels = 0;
    std::int64_t groups = 0;
    int axis_panels = 0;  // blocks of 16 axes; 0: rows are only searched through `whole`
    float scale = 1;
    float query_step = 1;  // of the int8 codes of most queries
    double longest = 0;    // of the centred, scaled rows
    const float* row_data = nullptr;
    const std::int32_t* order = nullptr;
    const float* centre = nullptr;
    Shadow whole;                              // all columns
    const float* axes = nullptr;               // [axis_panels][stride][16]
    const float* boxes = nullptr;              // [groups / 16][kBoxTerms][16]
    const AxesCopy* axes_copy = nullptr;       // of a bank that bank_small.cpp may search
    const HalfBank* half = nullptr;            // of a bank that bank_nearest.cpp may search so
    const std::int32_t* picks = nullptr;       // [columns / 16][16]: which of 32 columns of a vector each is
    Shadow head;                               // the axes and the length of the rest
    const std::int8_t* row_codes = nullptr;    // whole's codes row by row, code_stride apart
    const float* row_terms = nullptr;          // [rows][kRowTerms]: whole's terms

    const float* row(std::int64_t i) const { return row_data + i * stride; }
    int axis_count() const { return kLanes * axis_panels; }
};

// A query's position along the box coordinates, as an interval.
struct BoxQuery {
    float low[kBoxAxes + 1];
    float high[kBoxAxes + 1];
};

struct Quantised {
    float step = 0;     // u is about step times the codes
    double square = 0;  // squared length of step times the codes
    double error = 0;   // computed length of the difference
    std::int32_t bias = 0;  // of the codes, where Kernels::encode made them
};

// A query as one Shadow's kernels see it. A row is in reach when
//     base + factor * step * (codes . row codes) + rest * float coordinate + slope * error <= limit.
struct Probe {
    const void* codes;
    float factor, rest, slope, limit;
    std::int32_t bias;  // what Kernels::bias gave for the codes
};

// The queries of a tile of bank_nearest.cpp, one in each lane, and what they evaluate: two that follow
// each other share a list of rows. So do each four (0 to 3, 4 to 7, …) where all fours of a tile have their
// last columns in common.
constexpr int kNearTile = 12;
constexpr int kNearPanels = 10;
constexpr int kFour = 4;
constexpr int kSharedColumns = 128;  // `shared` is a multiple of this
struct NearTile {
    int count;                            // of queries
    std::int64_t stride, shared;          // of the queries; from which column on each four are alike, or `stride`

    bool in_fours() const { return shared < stride; }

    float square[kLanes], error[kLanes];  // |x'|², and how far x' may be from the point
    std::int32_t bias[kLanes];            // of the codes
    float least[kLanes];                  // what at least k values do not exceed
    float seen[kLanes];                   // the rows with values up to this are in the list
    float kth[kLanes];                    // of the distances in the list, or 1e-5 of it more
    float slope[kLanes], limit[kLanes];   // of the test of rows that are not in it
    int found[kLanes];                    // rows in the list, and distances
    std::int32_t rows[kLanes / 2][(kNearPanels + 1) * kLanes];  // a compressed store may overwrite 16 more
    float distances[kLanes][kRanked];
    float sorted[kLanes][kRanked + 1];
    std::int32_t sorted_rows[kLanes][kRanked];
};

struct NearLimits {
    float apart;              // a distance this many times another is surely the greater one
    float smallest, largest;  // distances between these have the relative error they should
    float scale;              // of the bank, and what the error of a distance adds
    float longest;            // of the bank
    float usual_error;        // of the rows' codes
    float step;               // of the queries' codes
    float error_scale, error_per_length, shift_error;  // from the computed error of the codes to a bound
};

struct Kernels {
    const char* name;
    int tile;        // queries that `values` and `sift` like to take at once
    int direct_rows; // with fewer rows than these for each neighbour, `all_distances` is the fastest way
    int direct_half; // and these where half the columns would be compared otherwise
    int code_bytes;  // bytes per column that `encode` and `quantise` write

    // u = (x - centre) * scale, `columns` values, zeros up to stride. Gives the squared length
    // (32 running sums) and the largest absolute value. x may be unaligned.
    void (*centre)(const BankView&, const float* x, float* u, float* square, float* largest);

    // Codes of u (in the picked columns, where a bank has these), of code_stride columns, with the given step, and their bias; no u is stored. `shift`
    // is -centre * scale / step, code_stride values. False, and nothing promised, when a code would
    // leave ±126 or x is not finite.
    bool (*encode)(const BankView&, const float* shift, const float* x, float step, void* codes, Quantised* out);

    // Codes of `count` values (a multiple of 16) with a step of their own. `largest` is their
    // largest absolute value, or negative when not known.
    Quantised (*quantise)(const float* values, std::int64_t count, float largest, void* codes);

    // The same as plain signed bytes, which is how rows are stored.
    Quantised (*quantise_row)(const float* values, std::int64_t count, float largest,
                              std::int8_t* codes);

    // What Probe::bias must be for codes of `count` columns.
    std::int32_t (*bias)(const void* codes, std::int64_t count);

    // z[i * 16 * axis_panels + a] = axis a . u_i for n rows of u. Sums of kProjectBlock terms by
    // fused or separate multiply-add, then the sum of these.
    void (*project)(const BankView&, const float* u, int n, float* z);

    // out[16 * i + lane] = squared distance from the query's interval to each box.
    void (*boxes)(const float* box_panels, int count, const BoxQuery& query, float* out);

    // out[i * 16 * panels + r] = the left side of Probe's test for row r, without slope * error.
    // codes: those of all probes, one after another (Probe::codes is not looked at).
    void (*values)(const Shadow&, const void* codes, const Probe* probes, int count,
                   std::int64_t first_panel, int panels, float* out);

    // masks[i * panels + p] has the rows of the panel that are in reach of probe i.
    void (*sift)(const Shadow&, const void* codes, const Probe* probes, int count,
                 std::int64_t first_panel, int panels, std::uint16_t* masks);

    // Rows of the panels whose `values` are > seen and pass the test with this slope and limit.
    // Room for 16 * panels + 16. Returns how many.
    int (*collect)(const Shadow&, const float* values, std::int64_t first_panel, int panels,
                   float seen, float slope, float limit, std::int32_t* rows);

    // Starts to load what `check` needs of these ascending rows.
    void (*fetch)(const BankView&, const std::int32_t* rows, int count);

    // The test against BankView::whole for single rows: keeps those in reach, in place, with
    // what `values` would give. Returns how many.
    int (*check)(const BankView&, const Probe& probe, std::int32_t* rows, int count, float* values);

    // `encode` of the queries x of a tile, with `limits.step`, codes code_stride columns apart: their square,
    // error and bias. A bit for each query where it returns true. Where the queries are not alike from
    // `near.shared` on, this becomes `near.stride`, and the rest is worthless.
    unsigned (*encode_tile)(const BankView&, const float* shift, const float* const* x, const NearLimits& limits, void* codes, NearTile& near);

    // `values` of all panels and a tile's queries, of which each four have the codes from column `shared` on in
    // common; `count` is a multiple of 4.
    void (*values_of_fours)(const Shadow&, const void* codes, const Probe* probes, int count, std::int64_t shared, int panels, float* out);

    // `least` and `seen` of a tile: a value that the k nearest rows, and few others, will probably not
    // exceed. `slack`: how much greater the k-th squared distance may be than it looks. Values: 16 · panels
    // of each query.
    void (*likely)(const float* values, int panels, int k, float slack, float usual_error, NearTile& near);

    // The lists of a tile: rows whose value is seen by one of two (or four) queries, ascending. Where these
    // are more than kRanked, `seen` becomes `least`; returns whether any were.
    bool (*list_rows)(const float* values, std::int64_t rows, NearTile& near);

    // Puts what query t evaluated in order of distance. True when the k nearest are surely apart from
    // each other and from the next, and these distances are sound; where they are not, `kth` is infinite.
    bool (*in_order)(NearTile& near, int t, int k, const NearLimits& limits);

    // The same of all queries with k to kRanked rows: a bit each.
    unsigned (*order_all)(NearTile& near, int k, const NearLimits& limits);

    // Bits of the queries that rows with greater values than `seen` may be as near to as the k-th found.
    unsigned (*not_listed)(const Shadow& s, const float* values, std::int64_t rows, const NearLimits& limits, NearTile& near);

    // A number that at least k <= 16 of the 16 · panels values do not exceed, close to the k-th
    // smallest: the k-th smallest of the lanes' minima.
    float (*roughly_kth)(const float* values, int panels, int k);

    // Squared distances of x (stride values, zero-padded) to the listed rows, in float32. The
    // order of operations is fixed and the same everywhere: 32 running sums by fused multiply-add, the
    // last 32 columns first, then lanes i and i + 16, i + 8, i + 4, i + 2, i + 1.
    void (*distances)(const BankView&, const float* x, const std::int32_t* rows, int count,
                      float* out);

    // The same of a tile's queries to the rows of their lists, of which those with more than kRanked are left out.
    void (*listed_distances)(const BankView&, const float* const* x, NearTile& near);

    // The same for `count` queries and every row: out[q * 16 * panels + row]; infinite in the padding.
    void (*all_distances)(const BankView&, const float* const* x, int count, float* out);

    // How many of `count` <= kRanked values (room for kRanked) come before each, equal ones in order.
    void (*ranks)(const float* values, int count, std::uint8_t* ranks);

    // Distances in double precision: 16 running sums in a fixed order, products rounded before they
    // are added. Decides what float32 cannot.
    void (*precise)(const float* x, const float* const* rows, int count, std::int64_t stride,
                    double* out);

    // For the coreset: the rows of the masks that `sift` gave one probe. Room for 16 more. Returns how many.
    int (*within)(const std::uint16_t* masks, std::int64_t first_panel, int panels, std::int32_t* rows);

    // For each probe, the place of the row with the least of the `values`, of up to kTagged panels; which of two that
    // are alike but for some 2^-16 is left open. `least`: room for 16 of each probe.
    void (*closest)(const Shadow&, const void* codes, const Probe* probes, int count, std::int64_t first_panel, int panels,
                    float* least, std::int32_t* rows);

    // What `check` would give for probe i and rows[i], whether in reach or not.
    void (*pairs)(const BankView&, const Probe* probes, const std::int32_t* rows, int count, float* values);

    // Where in 16 * panels values there is one <= limit, ascending. Room for 16 more. Returns how many.
    int (*listed)(const float* values, int panels, float limit, std::int32_t* at);

    // `project` the other way: out[16 * j + a] += the sum over n rows of u_i[j] * z_i[a].
    void (*spread)(const BankView&, const float* u, const float* z, int n, float* out);

    // Of every 32 values those numbered order[0 … 15] go to the first half of `out`, those numbered
    // order[16 … 31] to the second.
    void (*halve)(const float* values, const std::uint8_t* order, std::int64_t count, float* out);
};

// Null when the machine cannot run it.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();
const Kernels* neon_kernels();
const Kernels* neondot_kernels();

}  // namespace adc::search

#endif
