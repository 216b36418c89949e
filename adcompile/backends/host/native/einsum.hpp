// Sums of products over named dimensions.
#pragma once

#include "gemm.hpp"

namespace adc::op {

/// For each operand, the loop (number) that each of its dimensions follows. Loops [0, outputs) make
/// the result's dimensions, the rest are summed.
struct Contraction {
  int loops;
  int outputs;
  Shape first;
  Shape second;  // empty when there is one operand
};

namespace detail {

template <class T>
void contraction_strides(View<T> x, const Shape& loops, Shape& extent, Axes& stride) {
  require(loops.rank() == x.rank(), "Einsum: rank does not match the equation");
  const Axes own = strides_of(x.shape());
  for (int i = 0; i < x.rank(); ++i) {
    const auto loop = static_cast<int>(loops[i]);
    Index& n = extent[loop];
    if (x.dim(i) == 1 && n > 1) continue;  // broadcast
    require(n <= 1 || n == x.dim(i), "Einsum: sizes differ");
    n = x.dim(i);
    stride[static_cast<std::size_t>(loop)] += own[static_cast<std::size_t>(i)];
  }
}

}  // namespace detail

template <class T>
View<T> einsum(Out<T> out, View<T> a, const View<T>* b, const Contraction& c) {
  require(c.loops <= kMaxRank, "Einsum: more than 8 letters");
  Shape extent = Shape::filled(c.loops, 1);
  Axes sa{};
  Axes sb{};
  // Twice: a size met in the second operand decides whether a 1 in the first is broadcast.
  detail::contraction_strides(a, c.first, extent, sa);
  if (b != nullptr) {
    detail::contraction_strides(*b, c.second, extent, sb);
    sa = Axes{};
    detail::contraction_strides(a, c.first, extent, sa);
  }
  Shape shape;
  for (int i = 0; i < c.outputs; ++i) shape.push_back(extent[i]);
  T* y = out.make(shape);
  using F = Compute<T>;
  const int sums = c.loops - c.outputs;
  const Index inner = sums > 0 ? extent[c.loops - 1] : 1;
  const auto last = static_cast<std::size_t>(sums > 0 ? c.loops - 1 : 0);
  const Index ia = sums > 0 ? sa[last] : 0;
  const Index ib = sums > 0 ? sb[last] : 0;
  const Index middle = sums > 0 ? extent.product(c.outputs, c.loops - 1) : 1;
  const Index results = shape.size();
  for (Index r = 0; r < results; ++r) {
    Index at_a = 0;
    Index at_b = 0;
    Index rest = r;
    for (int d = c.outputs - 1; d >= 0; --d) {
      const auto u = static_cast<std::size_t>(d);
      at_a += rest % extent[d] * sa[u];
      at_b += rest % extent[d] * sb[u];
      rest /= extent[d];
    }
    F total{};
    for (Index m = 0; m < middle; ++m) {
      Index pa = at_a;
      Index pb = at_b;
      Index left = m;
      for (int d = c.loops - 2; d >= c.outputs; --d) {
        const auto u = static_cast<std::size_t>(d);
        pa += left % extent[d] * sa[u];
        pb += left % extent[d] * sb[u];
        left /= extent[d];
      }
      for (Index k = 0; k < inner; ++k) {
        const F p = static_cast<F>(a[pa + k * ia]);
        total = b == nullptr
                    ? math::add(total, p)
                    : detail::multiply_add(p, static_cast<F>((*b)[pb + k * ib]), total);
      }
    }
    y[r] = T(total);
  }
  return {y, shape};
}

}  // namespace adc::op
