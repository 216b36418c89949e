// Reductions over any set of axes, and normalisation along an axis.
#pragma once

#include "move.hpp"

namespace adc::op {

/// Sums need more room than their terms: 32-bit integers and smaller add up in 64 bits.
template <class T>
using Total = std::conditional_t<std::is_integral_v<T>, std::int64_t, Compute<T>>;

// A reduction has a state per result: start, one more element, two states joined, and the result
// for n elements.
template <class T>
struct SumState {
  Total<T> total{};
  void add(Total<T> x) { total = math::add(total, x); }
  void join(const SumState& other) { add(other.total); }
};

template <class T>
struct ReduceSum : SumState<T> {
  void step(T x) { this->add(static_cast<Total<T>>(x)); }
  [[nodiscard]] T result(Index) const { return static_cast<T>(this->total); }
};
template <class T>
struct ReduceMean : SumState<T> {
  void step(T x) { this->add(static_cast<Total<T>>(x)); }
  [[nodiscard]] T result(Index n) const {
    if constexpr (std::is_integral_v<T>) {
      return n == 0 ? T{0} : static_cast<T>(this->total / n);
    } else {
      return T(this->total / static_cast<Compute<T>>(n));
    }
  }
};
template <class T>
struct ReduceSumSquare : SumState<T> {
  void step(T x) {
    const auto v = static_cast<Total<T>>(x);
    this->add(math::mul(v, v));
  }
  [[nodiscard]] T result(Index) const { return static_cast<T>(this->total); }
};
template <class T>
struct ReduceL2 : ReduceSumSquare<T> {
  [[nodiscard]] T result(Index) const {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(std::sqrt(static_cast<double>(this->total)));
    } else {
      return T(std::sqrt(this->total));
    }
  }
};
template <class T>
struct ReduceL1 : SumState<T> {
  void step(T x) { this->add(math::abs(static_cast<Total<T>>(x))); }
  [[nodiscard]] T result(Index) const { return static_cast<T>(this->total); }
};
template <class T>
struct ReduceLogSum : SumState<T> {
  void step(T x) { this->add(static_cast<Total<T>>(x)); }
  [[nodiscard]] T result(Index) const {
    return static_cast<T>(std::log(static_cast<double>(this->total)));
  }
};
template <class T>
struct ReduceProd {
  Total<T> total{1};
  void step(T x) { total = math::mul(total, static_cast<Total<T>>(x)); }
  void join(const ReduceProd& other) { total = math::mul(total, other.total); }
  [[nodiscard]] T result(Index) const { return static_cast<T>(total); }
};
template <class T>
struct ReduceMax {
  T best = lowest();
  static T lowest() {
    if constexpr (is_real<T>) return T(-std::numeric_limits<float>::infinity());
    return std::numeric_limits<T>::lowest();
  }
  void step(T x) { best = math::max(x, best); }
  void join(const ReduceMax& other) { step(other.best); }
  [[nodiscard]] T result(Index) const { return best; }
};
template <class T>
struct ReduceMin {
  T best = highest();
  static T highest() {
    if constexpr (is_real<T>) return T(std::numeric_limits<float>::infinity());
    return std::numeric_limits<T>::max();
  }
  void step(T x) { best = math::min(x, best); }
  void join(const ReduceMin& other) { step(other.best); }
  [[nodiscard]] T result(Index) const { return best; }
};
/// log(sum(exp(x))) with the largest exponent taken out, in one pass.
template <class T>
struct ReduceLogSumExp {
  double top = -std::numeric_limits<double>::infinity();
  double total = 0;
  void step(T x) {
    const auto v = static_cast<double>(x);
    join({v, 1.0});
  }
  void join(const ReduceLogSumExp& other) {
    const double larger = std::max(top, other.top);
    if (std::isinf(larger) && larger < 0) return;
    const auto scaled = [larger](double t, double s) {
      return s == 0 ? 0.0 : s * std::exp(t - larger);
    };
    total = scaled(top, total) + scaled(other.top, other.total);
    top = larger;
  }
  [[nodiscard]] T result(Index) const { return static_cast<T>(top + std::log(total)); }
};

namespace detail {

/// The axes to reduce, sorted out: [outer][n][inner] when they are neighbours.
struct Reduction {
  std::array<bool, kMaxRank> drop{};
  Shape shape;         // of the result
  bool neighbours = true;
  int first = 0;       // reduced dimensions [first, last) when neighbours
  int last = 0;
};

inline Reduction plan_reduction(const Shape& x, const Shape& axes, bool all, bool keep) {
  Reduction r;
  for (const Index axis : axes) r.drop[static_cast<std::size_t>(wrap_axis(axis, x.rank()))] = true;
  if (all) std::fill_n(r.drop.begin(), x.rank(), true);
  int runs = 0;
  for (int i = 0; i < x.rank(); ++i) {
    const bool dropped = r.drop[static_cast<std::size_t>(i)];
    if (dropped) {
      if (i == 0 || !r.drop[static_cast<std::size_t>(i - 1)]) {
        ++runs;
        r.first = i;
      }
      r.last = i + 1;
    }
    if (!dropped) {
      r.shape.push_back(x[i]);
    } else if (keep) {
      r.shape.push_back(1);
    }
  }
  r.neighbours = runs <= 1;
  return r;
}

/// A row of n numbers: sixteen states side by side keep the vector units busy and round less.
template <class State, class T>
State reduce_row(const T* x, Index n) {
  constexpr Index kLanes = 16;
  State first;
  if (n < 2 * kLanes) {
    for (Index i = 0; i < n; ++i) first.step(x[i]);
    return first;
  }
  std::array<State, kLanes> lane{};
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (Index k = 0; k < kLanes; ++k) lane[static_cast<std::size_t>(k)].step(x[i + k]);
  }
  for (Index k = 0; i < n; ++i, ++k) lane[static_cast<std::size_t>(k)].step(x[i]);
  for (std::size_t gap = kLanes / 2; gap > 0; gap /= 2) {
    for (std::size_t k = 0; k < gap; ++k) lane[k].join(lane[k + gap]);
  }
  return lane[0];
}

/// n rows of `inner` numbers, column by column.
template <class State, class T>
void reduce_columns(const T* x, Index n, Index inner, T* y) {
  constexpr Index kWidth = 64;
  for (Index from = 0; from < inner; from += kWidth) {
    const Index width = std::min(kWidth, inner - from);
    std::array<State, kWidth> state{};
    for (Index j = 0; j < n; ++j) {
      const T* row = x + j * inner + from;
      if (width == kWidth) {
        for (Index k = 0; k < kWidth; ++k) state[static_cast<std::size_t>(k)].step(row[k]);
      } else {
        for (Index k = 0; k < width; ++k) state[static_cast<std::size_t>(k)].step(row[k]);
      }
    }
    for (Index k = 0; k < width; ++k) y[from + k] = state[static_cast<std::size_t>(k)].result(n);
  }
}

}  // namespace detail

/// Reduces the given axes (`all`: every axis). `keep` leaves them with size one.
template <template <class> class State, class T>
View<T> reduce(Out<T> out, Scratch& scratch, View<T> x, const Shape& axes, bool all, bool keep) {
  const detail::Reduction plan = detail::plan_reduction(x.shape(), axes, all, keep);
  T* y = out.make(plan.shape);
  const Index results = plan.shape.size();
  if (plan.neighbours) {
    const Index n = x.shape().product(plan.first, plan.last);
    const Index inner = x.shape().product(plan.last, x.rank());
    const Index outer = x.shape().product(0, plan.first);
    const Index grain = 1 + kMapGrain / (n * inner + 1);
    parallel_for(outer, grain, [&](Index from, Index to) {
      for (Index o = from; o < to; ++o) {
        if (inner == 1) {
          y[o] = detail::reduce_row<State<T>>(x.data() + o * n, n).result(n);
        } else {
          detail::reduce_columns<State<T>>(x.data() + o * n * inner, n, inner, y + o * inner);
        }
      }
    });
    return {y, plan.shape};
  }
  // Axes with others in between: one state per result, one pass over x.
  auto* state = scratch.take<State<T>>(0, results);
  std::uninitialized_fill_n(state, results, State<T>{});
  Axes step{};
  Index stride = 1;
  for (int i = x.rank() - 1; i >= 0; --i) {
    const auto u = static_cast<std::size_t>(i);
    step[u] = plan.drop[u] ? 0 : stride;
    if (!plan.drop[u]) stride *= x.dim(i);
  }
  Axes at{};
  Index place = 0;
  const Index size = x.size();
  for (Index i = 0; i < size; ++i) {
    state[place].step(x[i]);
    for (int d = x.rank() - 1; d >= 0; --d) {
      const auto u = static_cast<std::size_t>(d);
      place += step[u];
      if (++at[u] < x.dim(d)) break;
      place -= step[u] * x.dim(d);
      at[u] = 0;
    }
  }
  Index per_result = 1;
  for (int i = 0; i < x.rank(); ++i) {
    if (plan.drop[static_cast<std::size_t>(i)]) per_result *= x.dim(i);
  }
  for (Index i = 0; i < results; ++i) y[i] = state[i].result(per_result);
  return {y, plan.shape};
}

// --- along one axis ----------------------------------------------------------------------------

namespace detail {

/// Calls row(from, to) for every line along the dimensions [first, last), gathered when strided.
template <class T, class F>
void each_line(Scratch& scratch, View<T> x, T* y, int first, int last, F row) {
  const Index outer = x.shape().product(0, first);
  const Index n = x.shape().product(first, last);
  const Index inner = x.shape().product(last, x.rank());
  if (inner == 1) {
    parallel_for(outer, 1 + kMapGrain / (16 * n + 1), [&](Index from, Index to) {
      for (Index o = from; o < to; ++o) row(x.data() + o * n, y + o * n, n);
    });
    return;
  }
  T* line = scratch.take<T>(0, n);
  T* result = scratch.take<T>(1, n);
  for (Index o = 0; o < outer; ++o) {
    for (Index i = 0; i < inner; ++i) {
      const Index at = o * n * inner + i;
      for (Index j = 0; j < n; ++j) line[j] = x[at + j * inner];
      row(line, result, n);
      for (Index j = 0; j < n; ++j) y[at + j * inner] = result[j];
    }
  }
}

}  // namespace detail

/// softmax over the dimensions [first, last) taken as one.
template <class T>
View<T> softmax(Out<T> out, Scratch& scratch, View<T> x, int first, int last) {
  T* y = out.make(x.shape());
  detail::each_line(scratch, x, y, first, last, [](const T* from, T* to, Index n) {
    using F = Compute<T>;
    const F top = static_cast<F>(detail::reduce_row<ReduceMax<T>>(from, n).result(n));
    if constexpr (std::is_same_v<T, F>) {
      for (Index i = 0; i < n; ++i) to[i] = math::exp(from[i] - top);
      const F scale = F{1} / detail::reduce_row<ReduceSum<T>>(to, n).result(n);
      for (Index i = 0; i < n; ++i) to[i] *= scale;
    } else {
      F total{};
      for (Index i = 0; i < n; ++i) total += math::exp(static_cast<F>(from[i]) - top);
      for (Index i = 0; i < n; ++i) to[i] = T(math::exp(static_cast<F>(from[i]) - top) / total);
    }
  });
  return {y, x.shape()};
}

template <class T>
View<T> log_softmax(Out<T> out, Scratch& scratch, View<T> x, int first, int last) {
  T* y = out.make(x.shape());
  detail::each_line(scratch, x, y, first, last, [](const T* from, T* to, Index n) {
    using F = Compute<T>;
    const F top = static_cast<F>(detail::reduce_row<ReduceMax<T>>(from, n).result(n));
    F total{};
    for (Index i = 0; i < n; ++i) total += math::exp(static_cast<F>(from[i]) - top);
    const F shift = top + std::log(total);
    for (Index i = 0; i < n; ++i) to[i] = T(static_cast<F>(from[i]) - shift);
  });
  return {y, x.shape()};
}

/// 1 at the first largest element of each line, 0 elsewhere.
template <class T>
View<T> hardmax(Out<T> out, Scratch& scratch, View<T> x, int first, int last) {
  T* y = out.make(x.shape());
  detail::each_line(scratch, x, y, first, last, [](const T* from, T* to, Index n) {
    Index at = 0;
    for (Index i = 1; i < n; ++i) {
      if (from[i] > from[at]) at = i;
    }
    std::fill_n(to, n, T(0));
    if (n > 0) to[at] = T(1);
  });
  return {y, x.shape()};
}

/// Division by the L1 or L2 norm along one axis.
template <class T>
View<T> lp_normalize(Out<T> out, Scratch& scratch, View<T> x, Index axis, int p) {
  const int a = wrap_axis(axis, x.rank());
  T* y = out.make(x.shape());
  detail::each_line(scratch, x, y, a, a + 1, [p](const T* from, T* to, Index n) {
    using F = Compute<T>;
    const F norm = p == 1 ? static_cast<F>(detail::reduce_row<ReduceL1<T>>(from, n).result(n))
                          : static_cast<F>(detail::reduce_row<ReduceL2<T>>(from, n).result(n));
    for (Index i = 0; i < n; ++i) to[i] = norm == F{} ? T(0) : T(static_cast<F>(from[i]) / norm);
  });
  return {y, x.shape()};
}

/// Running sum along an axis.
template <class T>
View<T> cumulative_sum(Out<T> out, View<T> x, Index axis, bool exclusive, bool reverse) {
  const int a = wrap_axis(axis, x.rank());
  T* y = out.make(x.shape());
  const Index n = x.dim(a);
  const Index outer = x.shape().product(0, a);
  const Index inner = x.shape().product(a + 1, x.rank());
  for (Index o = 0; o < outer; ++o) {
    for (Index i = 0; i < inner; ++i) {
      Total<T> total{};
      for (Index j = 0; j < n; ++j) {
        const Index at = (o * n + (reverse ? n - 1 - j : j)) * inner + i;
        const auto value = static_cast<Total<T>>(x[at]);
        if (exclusive) y[at] = static_cast<T>(total);
        total = math::add(total, value);
        if (!exclusive) y[at] = static_cast<T>(total);
      }
    }
  }
  return {y, x.shape()};
}

}  // namespace adc::op
