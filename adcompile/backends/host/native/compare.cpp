#include "compare.hpp"

#include <cmath>
#include <cstdio>

#include "numbers.hpp"

namespace adc {

namespace {

double largest(const AnyView& t) {
  const Reader read = reader_of(t.dtype);
  double top = 0;
  for (Index i = 0; i < t.shape.size(); ++i) {
    const double v = std::fabs(read(t.data, i));
    if (std::isfinite(v)) top = std::max(top, v);
  }
  return top;
}

/// Infinities must agree, and so must NaN.
bool close(double a, double b, double atol, double rtol, double& worst) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return true;
  const double d = std::fabs(a - b);
  worst = d > worst || std::isnan(d) ? d : worst;
  return std::isfinite(d) && d <= atol + rtol * std::fabs(b);
}

double absolute_bound(const ToleranceInfo& t, const AnyView& wanted) {
  return t.absolute ? t.atol : t.atol * std::max(1.0, largest(wanted));
}

std::string text(double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%g", value);
  return buffer.data();
}

bool same_kind(const AnyView& got, const AnyView& wanted, Difference& d) {
  if (got.dtype != wanted.dtype) {
    d.why = std::string(dtype_name(got.dtype)) + ", expected " + dtype_name(wanted.dtype);
  } else if (got.shape != wanted.shape) {
    d.why = "shape " + got.shape.text() + ", expected " + wanted.shape.text();
  }
  return d.why.empty();
}

}  // namespace

ToleranceInfo tolerance_of(const std::vector<ToleranceInfo>& table, const std::string& role) {
  ToleranceInfo fallback{"tensor", 1e-4, 1e-4, false, 0};
  for (const ToleranceInfo& t : table) {
    if (role == t.role) return t;
    if (std::string("tensor") == t.role) fallback = t;
  }
  return fallback;
}

Difference compare(const AnyView& got, const AnyView& wanted, const ToleranceInfo& tolerance) {
  if (tolerance.snr_db > 0) return compare_signal(got, wanted, tolerance.snr_db);
  Difference d;
  if (!same_kind(got, wanted, d)) return d;
  const Reader read = reader_of(got.dtype);
  const double atol = absolute_bound(tolerance, wanted);
  d.fits = true;
  for (Index i = 0; i < got.shape.size(); ++i) {
    if (!close(read(got.data, i), read(wanted.data, i), atol, tolerance.rtol, d.worst)) {
      d.fits = false;
    }
  }
  if (!d.fits) d.why = "differs by " + text(d.worst) + ", allowed " + text(atol);
  return d;
}

Difference compare_signal(const AnyView& got, const AnyView& wanted, double snr_db) {
  Difference d;
  if (!same_kind(got, wanted, d)) return d;
  const Reader read = reader_of(got.dtype);
  double signal = 0;
  double noise = 0;
  Index broken = 0;
  for (Index i = 0; i < got.shape.size(); ++i) {
    const double a = read(got.data, i);
    const double b = read(wanted.data, i);
    if (!std::isfinite(a) || !std::isfinite(b)) {
      if (a != b && !(std::isnan(a) && std::isnan(b))) ++broken;
      continue;
    }
    const double difference = std::fabs(a - b);
    d.worst = std::max(d.worst, difference);
    signal += b * b;
    noise += difference * difference;
  }
  const double ratio = noise == 0 ? snr_db : 10 * std::log10(signal / noise);
  d.fits = ratio >= snr_db && broken == 0;
  d.detail = noise == 0 ? "no noise" : text(ratio) + " dB of signal to noise";
  if (broken > 0) {
    d.why = std::to_string(broken) + " values are NaN or infinite on one side only";
  } else if (!d.fits) {
    d.snr_db = ratio;
    d.why = d.detail + ", at least " + text(snr_db) + " dB wanted";
  }
  return d;
}

std::vector<Difference> compare_rows(const std::vector<AnyView>& got,
                                     const std::vector<AnyView>& wanted,
                                     const std::vector<ToleranceInfo>& tolerances) {
  std::vector<Difference> all;
  bool fits = true;
  bool rows_known = !got.empty() && wanted[0].shape.rank() > 0;
  for (std::size_t k = 0; k < got.size(); ++k) {
    all.push_back(compare(got[k], wanted[k], tolerances[k]));
    fits = fits && all[k].fits;
    rows_known = rows_known && got[k].shape == wanted[k].shape && got[k].dtype == wanted[k].dtype &&
                 got[k].shape.rank() > 0 && got[k].shape[0] == wanted[0].shape[0];
  }
  if (fits || !rows_known) return all;
  const Index rows = wanted[0].shape[0];
  std::vector<double> bound;
  for (std::size_t k = 0; k < got.size(); ++k) {
    bound.push_back(absolute_bound(tolerances[k], wanted[k]));
  }
  // Every wanted row must be found once, in all tensors at the same place.
  const auto row_fits = [&](Index w, Index g, std::vector<double>& worst) {
    for (std::size_t k = 0; k < got.size(); ++k) {
      const Reader read = reader_of(got[k].dtype);
      const Index n = got[k].shape.product(1, got[k].shape.rank());
      for (Index i = 0; i < n; ++i) {
        const double a = read(got[k].data, g * n + i);
        const double b = read(wanted[k].data, w * n + i);
        if (!close(a, b, bound[k], tolerances[k].rtol, worst[k])) return false;
      }
    }
    return true;
  };
  std::vector<bool> used(static_cast<std::size_t>(rows), false);
  std::vector<double> worst(got.size(), 0.0);
  Index moved = 0;
  for (Index w = 0; w < rows; ++w) {
    Index place = -1;
    for (Index k = 0; k < rows && place < 0; ++k) {
      const Index g = (w + k) % rows;
      std::vector<double> here(got.size(), 0.0);
      if (used[static_cast<std::size_t>(g)] || !row_fits(w, g, here)) continue;
      place = g;
      for (std::size_t i = 0; i < here.size(); ++i) worst[i] = std::max(worst[i], here[i]);
    }
    if (place < 0) return all;  // no reordering helps: report the plain comparison
    used[static_cast<std::size_t>(place)] = true;
    if (place != w) ++moved;
  }
  for (std::size_t k = 0; k < got.size(); ++k) {
    all[k] = Difference{true, worst[k], moved, "", std::nullopt, ""};
  }
  return all;
}

}  // namespace adc
