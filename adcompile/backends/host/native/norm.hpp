// Normalisation layers at inference.
#pragma once

#include "reduce.hpp"

namespace adc::op {

/// scale * (x - mean) / sqrt(variance + epsilon) + bias, per channel (dimension 1).
template <class T, class S, class M>
View<T> batch_norm(Out<T> out, View<T> x, View<S> scale, View<S> bias, View<M> mean,
                   View<M> variance, float epsilon) {
  using F = Compute<T>;
  const Index channels = x.rank() > 1 ? x.dim(1) : 1;
  require(scale.size() == channels && bias.size() == channels && mean.size() == channels &&
              variance.size() == channels,
          "BatchNormalization: parameters do not fit the channels");
  T* y = out.make(x.shape());
  const Index inner = x.shape().product(std::min(2, x.rank()), x.rank());
  const Index outer = x.rank() > 0 ? x.dim(0) : 1;
  for (Index n = 0; n < outer; ++n) {
    for (Index c = 0; c < channels; ++c) {
      const F factor = static_cast<F>(scale[c]) /
                       std::sqrt(static_cast<F>(variance[c]) + static_cast<F>(epsilon));
      const F center = static_cast<F>(mean[c]);
      const F shift = static_cast<F>(bias[c]);
      const T* from = x.data() + (n * channels + c) * inner;
      T* to = y + (n * channels + c) * inner;
      for (Index i = 0; i < inner; ++i) {
        to[i] = T((static_cast<F>(from[i]) - center) * factor + shift);
      }
    }
  }
  return {y, x.shape()};
}

namespace detail {

/// Mean and one over the deviation of n numbers, in two passes.
template <class T>
std::pair<Compute<T>, Compute<T>> moments(const T* x, Index n, float epsilon) {
  using F = Compute<T>;
  F mean{};
  for (Index i = 0; i < n; ++i) mean += static_cast<F>(x[i]);
  mean /= static_cast<F>(n);
  F square{};
  for (Index i = 0; i < n; ++i) {
    const F d = static_cast<F>(x[i]) - mean;
    square += d * d;
  }
  return {mean, F{1} / std::sqrt(square / static_cast<F>(n) + static_cast<F>(epsilon))};
}

}  // namespace detail

/// Each [n, c] plane to mean 0 and deviation 1, then scale and bias per channel.
template <class T>
View<T> instance_norm(Out<T> out, View<T> x, View<T> scale, View<T> bias, float epsilon) {
  using F = Compute<T>;
  require(x.rank() >= 3 && scale.size() == x.dim(1) && bias.size() == x.dim(1),
          "InstanceNormalization: parameters do not fit");
  T* y = out.make(x.shape());
  const Index inner = x.shape().product(2, x.rank());
  for (Index p = 0; p < x.dim(0) * x.dim(1); ++p) {
    const T* from = x.data() + p * inner;
    const auto [mean, factor] = detail::moments(from, inner, epsilon);
    const F s = factor * static_cast<F>(scale[p % x.dim(1)]);
    const F b = static_cast<F>(bias[p % x.dim(1)]);
    for (Index i = 0; i < inner; ++i) y[p * inner + i] = T((static_cast<F>(from[i]) - mean) * s + b);
  }
  return {y, x.shape()};
}

/// Groups of channels to mean 0 and deviation 1. Scale and bias per channel, or (older) per group.
template <class T>
View<T> group_norm(Out<T> out, View<T> x, View<T> scale, View<T> bias, Index groups,
                   float epsilon) {
  using F = Compute<T>;
  require(x.rank() >= 2 && groups > 0 && x.dim(1) % groups == 0, "GroupNormalization: groups");
  const Index channels = x.dim(1);
  require(bias.size() == scale.size() && (scale.size() == channels || scale.size() == groups),
          "GroupNormalization: parameters do not fit");
  const bool per_channel = scale.size() == channels;
  T* y = out.make(x.shape());
  const Index inner = x.shape().product(2, x.rank());
  const Index width = channels / groups;
  for (Index p = 0; p < x.dim(0) * groups; ++p) {
    const T* from = x.data() + p * width * inner;
    const auto [mean, factor] = detail::moments(from, width * inner, epsilon);
    for (Index c = 0; c < width; ++c) {
      const Index g = p % groups;
      const Index k = per_channel ? g * width + c : g;
      const F s = factor * static_cast<F>(scale[k]);
      const F b = static_cast<F>(bias[k]);
      for (Index i = 0; i < inner; ++i) {
        const Index at = c * inner + i;
        y[p * width * inner + at] = T((static_cast<F>(from[at]) - mean) * s + b);
      }
    }
  }
  return {y, x.shape()};
}

/// Rows over the dimensions from `axis` on to mean 0 and deviation 1, then scale and bias.
/// Also returns mean and one over the deviation per row, in the type S that the model wants.
template <class T, class S>
std::tuple<View<T>, View<S>, View<S>> layer_norm(
    Out<T> out, Out<S> mean_out, Out<S> factor_out, View<T> x, View<T> scale,
    const View<T>* bias, Index axis, float epsilon) {
  using F = Compute<T>;
  const int a = wrap_axis(axis, x.rank());
  const Index rows = x.shape().product(0, a);
  const Index n = x.shape().product(a, x.rank());
  const auto fits = [n](Index size) { return size > 0 && n % size == 0; };
  require(fits(scale.size()) && (bias == nullptr || fits(bias->size())),
          "LayerNormalization: parameters do not fit");
  T* y = out.make(x.shape());
  Shape kept = x.shape();
  for (int i = a; i < x.rank(); ++i) kept[i] = 1;
  S* means = mean_out.make(kept);
  S* factors = factor_out.make(kept);
  for (Index r = 0; r < rows; ++r) {
    const T* from = x.data() + r * n;
    const auto [mean, factor] = detail::moments(from, n, epsilon);
    means[r] = static_cast<S>(mean);
    factors[r] = static_cast<S>(factor);
    for (Index i = 0; i < n; ++i) {
      F value = (static_cast<F>(from[i]) - mean) * factor * static_cast<F>(scale[i % scale.size()]);
      if (bias != nullptr) value += static_cast<F>((*bias)[i % bias->size()]);
      y[r * n + i] = T(value);
    }
  }
  return {View<T>(y, x.shape()), View<S>(means, kept), View<S>(factors, kept)};
}

/// The first two of three results.
template <class A, class B, class C>
std::pair<A, B> front(const std::tuple<A, B, C>& all) {
  return {std::get<0>(all), std::get<1>(all)};
}

/// x / sqrt(mean(x²) + epsilon) * scale over the dimensions from `axis` on.
template <class T>
View<T> rms_norm(Out<T> out, View<T> x, View<T> scale, Index axis, float epsilon) {
  using F = Compute<T>;
  const int a = wrap_axis(axis, x.rank());
  const Index n = x.shape().product(a, x.rank());
  require(scale.size() > 0 && n % scale.size() == 0, "RMSNormalization: scale does not fit");
  T* y = out.make(x.shape());
  for (Index r = 0; r < x.shape().product(0, a); ++r) {
    const T* from = x.data() + r * n;
    F square{};
    for (Index i = 0; i < n; ++i) square += static_cast<F>(from[i]) * static_cast<F>(from[i]);
    const F factor = F{1} / std::sqrt(square / static_cast<F>(n) + static_cast<F>(epsilon));
    for (Index i = 0; i < n; ++i) {
      y[r * n + i] = T(static_cast<F>(from[i]) * factor * static_cast<F>(scale[i % scale.size()]));
    }
  }
  return {y, x.shape()};
}

/// Local response normalisation over `size` neighbouring channels.
template <class T>
View<T> lrn(Out<T> out, View<T> x, Index size, float alpha, float beta, float bias) {
  using F = Compute<T>;
  require(x.rank() >= 2 && size > 0, "LRN: no channels");
  T* y = out.make(x.shape());
  const Index channels = x.dim(1);
  const Index inner = x.shape().product(2, x.rank());
  for (Index n = 0; n < x.dim(0); ++n) {
    const T* from = x.data() + n * channels * inner;
    for (Index c = 0; c < channels; ++c) {
      const Index low = std::max(c - (size - 1) / 2, Index{0});
      const Index high = std::min(c + size / 2, channels - 1);
      for (Index i = 0; i < inner; ++i) {
        F square{};
        for (Index k = low; k <= high; ++k) {
          const F v = static_cast<F>(from[k * inner + i]);
          square += v * v;
        }
        const F base = static_cast<F>(bias) + static_cast<F>(alpha) / static_cast<F>(size) * square;
        const Index at = c * inner + i;
        y[n * channels * inner + at] =
            T(static_cast<F>(from[at]) / std::pow(base, static_cast<F>(beta)));
      }
    }
  }
  return {y, x.shape()};
}

/// (x - mean) / deviation over the given axes.
template <class T>
View<T> mean_variance_norm(Out<T> out, Scratch& scratch, View<T> x, const Shape& axes) {
  using F = Compute<T>;
  const detail::Reduction plan = detail::plan_reduction(x.shape(), axes, false, true);
  const Index results = plan.shape.size();
  F* mean = scratch.take<F>(0, results);
  F* square = scratch.take<F>(1, results);
  std::fill_n(mean, results, F{});
  std::fill_n(square, results, F{});
  T* y = out.make(x.shape());
  const Index size = x.size();
  const F per_result = results == 0 ? F{1} : static_cast<F>(size / results);
  const auto each = [&](auto body) {
    const Axes step = strides_of(plan.shape);
    Axes at{};
    for (Index i = 0; i < size; ++i) {
      Index place = 0;
      for (int d = 0; d < x.rank(); ++d) {
        const auto u = static_cast<std::size_t>(d);
        if (!plan.drop[u]) place += at[u] * step[u];
      }
      body(i, place);
      for (int d = x.rank() - 1; d >= 0; --d) {
        if (++at[static_cast<std::size_t>(d)] < x.dim(d)) break;
        at[static_cast<std::size_t>(d)] = 0;
      }
    }
  };
  each([&](Index i, Index r) { mean[r] += static_cast<F>(x[i]) / per_result; });
  each([&](Index i, Index r) {
    const F d = static_cast<F>(x[i]) - mean[r];
    square[r] += d * d / per_result;
  });
  each([&](Index i, Index r) {
    y[i] = T((static_cast<F>(x[i]) - mean[r]) / (std::sqrt(square[r]) + F{1e-9f}));
  });
  return {y, x.shape()};
}

}  // namespace adc::op
