// Elementwise computation with broadcasting: one loop per fused chain of operators.
#pragma once

#include <tuple>

#include "math.hpp"
#include "tensor.hpp"
#include "threads.hpp"

namespace adc::op {

/// Common shape under numpy's broadcasting rule.
inline Shape broadcast(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out = Shape::filled(rank, 1);
  for (int i = 1; i <= rank; ++i) {
    const Index x = i <= a.rank() ? a[a.rank() - i] : 1;
    const Index y = i <= b.rank() ? b[b.rank() - i] : 1;
    if (x != y && x != 1 && y != 1) {
      fail("shapes " + a.text() + " and " + b.text() + " do not broadcast");
    }
    out[rank - i] = x == 1 ? y : x;
  }
  return out;
}

namespace detail {

/// Loop nest over a broadcast: dimensions that all operands step through alike are merged, so the
/// innermost loop is as long as possible and every operand moves by 0 or 1 in it.
template <std::size_t N>
struct Nest {
  int depth = 0;
  std::array<Index, kMaxRank> count{};
  std::array<std::array<Index, N>, kMaxRank> stride{};
};

template <std::size_t N>
Nest<N> plan_nest(const Shape& out, const std::array<Shape, N>& in) {
  Nest<N> nest;
  std::array<Index, N> running;
  running.fill(1);
  // From the innermost dimension outwards; nest.count[0] is the innermost loop.
  for (int i = 1; i <= out.rank(); ++i) {
    const Index n = out[out.rank() - i];
    if (n == 1) continue;
    std::array<Index, N> step{};
    for (std::size_t k = 0; k < N; ++k) {
      const Index d = i <= in[k].rank() ? in[k][in[k].rank() - i] : 1;
      step[k] = d == 1 ? 0 : running[k];
      running[k] *= d;
    }
    bool merges = nest.depth > 0;
    const auto last = static_cast<std::size_t>(nest.depth > 0 ? nest.depth - 1 : 0);
    for (std::size_t k = 0; merges && k < N; ++k) {
      merges = step[k] == nest.stride[last][k] * nest.count[last];
    }
    if (merges) {
      nest.count[last] *= n;
    } else {
      nest.count[static_cast<std::size_t>(nest.depth)] = n;
      nest.stride[static_cast<std::size_t>(nest.depth)] = step;
      ++nest.depth;
    }
  }
  if (nest.depth == 0) {
    nest.depth = 1;
    nest.count[0] = 1;
  }
  return nest;
}

/// The innermost loop, with the operands of `Mask` fixed and the others contiguous.
template <unsigned Mask, class F, class O, class... T, std::size_t... K>
inline void row(O* __restrict__ y, Index n, F& f, std::index_sequence<K...>, const T*... in) {
  for (Index i = 0; i < n; ++i) {
    y[i] = static_cast<O>(f(in[((Mask >> K) & 1u) != 0 ? 0 : i]...));
  }
}

/// Operands up to which every choice of fixed ones has a loop of its own, which can be vectorised.
constexpr std::size_t kMostChoices = 4;

template <unsigned Mask, class F, class O, std::size_t... K, class... T>
inline void any_row(O* y, Index n, F& f, unsigned mask, std::index_sequence<K...> ks,
                    const T*... in) {
  constexpr std::size_t N = sizeof...(T);
  if constexpr (N > kMostChoices) {
    const std::array<Index, N> step{(((mask >> K) & 1u) != 0 ? Index{0} : Index{1})...};
    for (Index i = 0; i < n; ++i) y[i] = static_cast<O>(f(in[i * step[K]]...));
  } else if constexpr (Mask + 1 == (1u << N)) {
    row<Mask>(y, n, f, ks, in...);
  } else {
    if (mask == Mask) return row<Mask>(y, n, f, ks, in...);
    any_row<Mask + 1>(y, n, f, mask, ks, in...);
  }
}

template <class F, class O, class... T, std::size_t... K>
void run_nest(O* y, const Nest<sizeof...(T)>& nest, F& f, std::index_sequence<K...> ks,
              const T*... in) {
  constexpr std::size_t N = sizeof...(T);
  const Index inner = nest.count[0];
  unsigned mask = 0;
  for (std::size_t k = 0; k < N; ++k) {
    if (nest.stride[0][k] == 0) mask |= 1u << k;
  }
  if (inner == 1) mask = 0;
  std::array<Index, kMaxRank> at{};
  std::array<Index, N> offset{};
  const auto depth = static_cast<std::size_t>(nest.depth);
  while (true) {
    any_row<0>(y, inner, f, mask, ks, (in + offset[K])...);
    y += inner;
    std::size_t d = 1;
    for (; d < depth; ++d) {
      for (std::size_t k = 0; k < N; ++k) offset[k] += nest.stride[d][k];
      if (++at[d] < nest.count[d]) break;
      for (std::size_t k = 0; k < N; ++k) offset[k] -= nest.stride[d][k] * nest.count[d];
      at[d] = 0;
    }
    if (d == depth) return;
  }
}

}  // namespace detail

inline constexpr Index kMapGrain = 1 << 15;

/// out[...] = f(in[...]...) over the broadcast shape of the inputs.
template <class O, class F, class... T>
View<O> map(Out<O> out, F f, View<T>... in) {
  constexpr std::size_t N = sizeof...(T);
  const std::array<Shape, N> shapes{in.shape()...};
  Shape shape = shapes[0];
  bool alike = true;
  for (std::size_t k = 1; k < N; ++k) {
    if (shapes[k] == shape) continue;
    alike = false;
    shape = broadcast(shape, shapes[k]);
  }
  O* y = out.make(shape);
  const Index size = shape.size();
  if (size == 0) return {y, shape};
  if (alike) {
    parallel_for(size, kMapGrain, [&](Index first, Index last) {
      detail::row<0>(y + first, last - first, f, std::index_sequence_for<T...>{},
                     (in.data() + first)...);
    });
  } else {
    detail::run_nest(y, detail::plan_nest<N>(shape, shapes), f, std::index_sequence_for<T...>{},
                     in.data()...);
  }
  return {y, shape};
}

}  // namespace adc::op
