// Ordering: the k best, the position of the best, distinct values. Ties go to the lower index.
#pragma once

#include <numeric>
#include <vector>

#include "move.hpp"

namespace adc::op {

namespace detail {

/// a comes before b: by value, NaN as the largest number, then by position.
template <class T>
struct Before {
  const T* x;
  bool largest;
  bool operator()(Index i, Index j) const {
    const T a = x[i];
    const T b = x[j];
    if constexpr (is_real<T>) {
      const bool a_nan = a != a;
      const bool b_nan = b != b;
      if (a_nan != b_nan) return a_nan == largest;
      if (a_nan) return i < j;
    }
    if (a != b) return largest ? a > b : a < b;
    return i < j;
  }
};

/// A key whose unsigned order is the order of the floats (NaN above infinity).
inline std::uint32_t sortable(float f) {
  const auto bits = adc::detail::bit_cast<std::uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  if (bits == 0x80000000u) return 0x80000000u;  // -0 equals +0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/// Positions (in elements from x) of the k best of n numbers that lie `step` apart, into `order`,
/// which has room for n.
template <class T>
void best(const T* x, Index n, Index step, Index k, bool largest, bool sorted, Index* order) {
  if constexpr (std::is_same_v<T, float>) {
    if (n <= Index{0xffffffff}) {
      // One 64-bit number per element, smaller is better: inverted key, then position.
      auto* keys = reinterpret_cast<std::uint64_t*>(order);
      for (Index i = 0; i < n; ++i) {
        const std::uint32_t key = sortable(x[i * step]);
        keys[i] = (static_cast<std::uint64_t>(largest ? ~key : key) << 32) |
                  static_cast<std::uint32_t>(i);
      }
      if (k < n) std::nth_element(keys, keys + k, keys + n);
      if (sorted) std::sort(keys, keys + k);
      for (Index i = 0; i < k; ++i) order[i] = static_cast<Index>(keys[i] & 0xffffffffu) * step;
      return;
    }
  }
  for (Index i = 0; i < n; ++i) order[i] = i * step;
  const Before<T> before{x, largest};
  if (k < n) std::nth_element(order, order + k, order + n, before);
  if (sorted) std::sort(order, order + k, before);
}

}  // namespace detail

/// The k largest (or smallest) along an axis, and where they were.
template <class T>
std::pair<View<T>, View<Index>> topk(Out<T> values, Out<Index> positions, Scratch& scratch,
                                     View<T> x, Index k, Index axis, bool largest, bool sorted) {
  const int a = wrap_axis(axis, x.rank());
  const Index n = x.dim(a);
  if (k < 0 || k > n) {
    fail("TopK: k = " + std::to_string(k) + " of " + std::to_string(n) + " values");
  }
  Shape shape = x.shape();
  shape[a] = k;
  T* v = values.make(shape);
  Index* p = positions.make(shape);
  const Index outer = x.shape().product(0, a);
  const Index inner = x.shape().product(a + 1, x.rank());
  Index* order = scratch.take<Index>(0, n);
  for (Index o = 0; o < outer; ++o) {
    for (Index i = 0; i < inner; ++i) {
      const T* from = x.data() + o * n * inner + i;
      detail::best(from, n, inner, k, largest, sorted, order);
      for (Index j = 0; j < k; ++j) {
        const Index at = order[j];
        v[(o * k + j) * inner + i] = from[at];
        p[(o * k + j) * inner + i] = at / inner;
      }
    }
  }
  return {View<T>(v, shape), View<Index>(p, shape)};
}

/// Position of the largest (or smallest) element along an axis.
template <class T>
View<Index> arg_best(Out<Index> out, View<T> x, Index axis, bool keep, bool largest, bool last) {
  const int a = wrap_axis(axis, x.rank());
  const Index n = x.dim(a);
  require(n > 0, "ArgMax or ArgMin of nothing");
  Shape shape;
  for (int i = 0; i < x.rank(); ++i) {
    if (i != a) shape.push_back(x.dim(i));
    if (i == a && keep) shape.push_back(1);
  }
  Index* y = out.make(shape);
  const Index outer = x.shape().product(0, a);
  const Index inner = x.shape().product(a + 1, x.rank());
  for (Index o = 0; o < outer; ++o) {
    for (Index i = 0; i < inner; ++i) {
      const T* from = x.data() + o * n * inner + i;
      Index at = 0;
      for (Index j = 1; j < n; ++j) {
        const T a_value = from[j * inner];
        const T b_value = from[at * inner];
        const bool better = largest ? a_value > b_value : a_value < b_value;
        if (better || (last && a_value == b_value)) at = j;
      }
      y[o * inner + i] = at;
    }
  }
  return {y, shape};
}


/// Distinct slices along `axis` (or elements, when the axis is kMaxRank).
template <class T>
std::tuple<View<T>, View<Index>, View<Index>, View<Index>> unique(
    Out<T> values, Out<Index> first_out, Out<Index> inverse_out, Out<Index> counts_out, View<T> x,
    Index axis, bool sorted) {
  const bool flat = axis >= kMaxRank;
  const int a = flat ? 0 : wrap_axis(axis, x.rank());
  const Index n = flat ? x.size() : x.dim(a);
  const Index outer = flat ? 1 : x.shape().product(0, a);
  const Index inner = flat ? 1 : x.shape().product(a + 1, x.rank());
  const auto element = [&](Index slice, Index o, Index i) { return x[(o * n + slice) * inner + i]; };
  const auto compare = [&](Index s, Index t) {
    for (Index o = 0; o < outer; ++o) {
      for (Index i = 0; i < inner; ++i) {
        const T p = element(s, o, i);
        const T q = element(t, o, i);
        if (p != q) return p < q ? -1 : 1;
      }
    }
    return 0;
  };
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [&](Index s, Index t) { return compare(s, t) < 0; });
  // Classes in sorted order; `leader` is the first slice of each.
  std::vector<Index> leader;
  std::vector<Index> cls(static_cast<std::size_t>(n));
  std::vector<Index> count;
  for (std::size_t k = 0; k < order.size(); ++k) {
    if (k == 0 || compare(order[k - 1], order[k]) != 0) {
      leader.push_back(order[k]);
      count.push_back(0);
    }
    cls[static_cast<std::size_t>(order[k])] = static_cast<Index>(leader.size()) - 1;
    ++count.back();
  }
  std::vector<Index> rank(leader.size());
  std::iota(rank.begin(), rank.end(), Index{0});
  if (!sorted) {
    std::sort(rank.begin(), rank.end(), [&](Index s, Index t) {
      return leader[static_cast<std::size_t>(s)] < leader[static_cast<std::size_t>(t)];
    });
  }
  std::vector<Index> place(leader.size());
  const auto m = static_cast<Index>(leader.size());
  Shape shape = x.shape();
  if (flat) {
    shape = Shape{m};
  } else {
    shape[a] = m;
  }
  T* v = values.make(shape);
  Index* f = first_out.make(Shape{m});
  Index* c = counts_out.make(Shape{m});
  Index* inv = inverse_out.make(Shape{n});
  for (Index k = 0; k < m; ++k) {
    const auto u = static_cast<std::size_t>(rank[static_cast<std::size_t>(k)]);
    place[u] = k;
    f[k] = leader[u];
    c[k] = count[u];
    for (Index o = 0; o < outer; ++o) {
      for (Index i = 0; i < inner; ++i) v[(o * m + k) * inner + i] = element(leader[u], o, i);
    }
  }
  for (Index s = 0; s < n; ++s) {
    inv[s] = place[static_cast<std::size_t>(cls[static_cast<std::size_t>(s)])];
  }
  return {View<T>(v, shape), View<Index>(f, Shape{m}), View<Index>(inv, Shape{n}),
          View<Index>(c, Shape{m})};
}

}  // namespace adc::op
