// Resizing of 8-bit pictures in Pillow's and OpenCV's conventions; see runtime/resample.py.
#include <cmath>
#include <cstdlib>

#include "preprocess.hpp"

namespace adc {

namespace {

constexpr int kPilBits = 22;
constexpr int kCvOne = 2048;

unsigned char clamp_byte(std::int64_t value) {
  return static_cast<unsigned char>(value < 0 ? 0 : value > 255 ? 255 : value);
}

std::size_t as_size(int value) { return static_cast<std::size_t>(value); }

/// Taps of one side: output i reads `count` inputs from first[i] on.
struct Weights22 {
  int most = 0;
  std::vector<int> first;
  std::vector<int> count;
  std::vector<std::int32_t> weight;  // out x most
};

double triangle(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

Weights22 pil_weights(int size, int out) {
  const double scale = static_cast<double>(size) / static_cast<double>(out);
  const double reach = std::max(scale, 1.0);
  const double inverse = 1.0 / reach;
  Weights22 w;
  w.most = static_cast<int>(std::ceil(reach)) * 2 + 1;
  w.first.resize(as_size(out));
  w.count.resize(as_size(out));
  w.weight.assign(as_size(out) * as_size(w.most), 0);
  std::vector<double> share;
  for (int i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int low = std::max(static_cast<int>(centre - reach + 0.5), 0);
    const int high = std::min(static_cast<int>(centre + reach + 0.5), size);
    share.clear();
    double total = 0.0;
    for (int x = low; x < high; ++x) {
      share.push_back(triangle((static_cast<double>(x) - centre + 0.5) * inverse));
      total += share.back();
    }
    w.first[as_size(i)] = low;
    w.count[as_size(i)] = high - low;
    for (std::size_t k = 0; k < share.size(); ++k) {
      w.weight[as_size(i) * as_size(w.most) + k] =
          static_cast<std::int32_t>(0.5 + share[k] / total * static_cast<double>(1 << kPilBits));
    }
  }
  return w;
}

Image pil_across(const Image& image, int width) {
  const Weights22 w = pil_weights(image.width, width);
  Image out = make_image(width, image.height, image.channels, "resize");
  const int channels = image.channels;
  for (int y = 0; y < image.height; ++y) {
    const unsigned char* row = image.at(y, 0);
    unsigned char* to = out.at(y, 0);
    for (int x = 0; x < width; ++x) {
      const std::int32_t* weight = w.weight.data() + as_size(x) * as_size(w.most);
      const unsigned char* from = row + w.first[as_size(x)] * channels;
      const int count = w.count[as_size(x)];
      for (int c = 0; c < channels; ++c) {
        std::int32_t total = 1 << (kPilBits - 1);
        for (int k = 0; k < count; ++k) total += from[k * channels + c] * weight[k];
        *to++ = clamp_byte(total >> kPilBits);
      }
    }
  }
  return out;
}

Image pil_down(const Image& image, int height) {
  const Weights22 w = pil_weights(image.height, height);
  Image out = make_image(image.width, height, image.channels, "resize");
  const std::size_t row = as_size(image.width) * as_size(image.channels);
  std::vector<std::int32_t> total(row);
  for (int y = 0; y < height; ++y) {
    std::fill(total.begin(), total.end(), 1 << (kPilBits - 1));
    for (int k = 0; k < w.count[as_size(y)]; ++k) {
      const std::int32_t weight = w.weight[as_size(y) * as_size(w.most) + as_size(k)];
      const unsigned char* from = image.at(w.first[as_size(y)] + k, 0);
      for (std::size_t i = 0; i < row; ++i) total[i] += from[i] * weight;
    }
    unsigned char* to = out.at(y, 0);
    for (std::size_t i = 0; i < row; ++i) to[i] = clamp_byte(total[i] >> kPilBits);
  }
  return out;
}

Image pil_bilinear(const Image& image, int height, int width) {
  if (width == image.width && height == image.height) return image;
  if (width == image.width) return pil_down(image, height);
  const Image across = pil_across(image, width);
  return height == image.height ? across : pil_down(across, height);
}

Image pick(const Image& image, const std::vector<int>& rows, const std::vector<int>& columns) {
  Image out = make_image(static_cast<int>(columns.size()), static_cast<int>(rows.size()),
                         image.channels, "resize");
  unsigned char* to = out.pixels.data();
  for (const int y : rows) {
    for (const int x : columns) {
      const unsigned char* from = image.at(y, x);
      for (int c = 0; c < image.channels; ++c) *to++ = from[c];
    }
  }
  return out;
}

std::vector<int> pil_nearest_index(int size, int out) {
  const double step = static_cast<double>(size) / static_cast<double>(out);
  std::vector<int> index;
  double position = 0.0 + step * 0.5;
  for (int i = 0; i < out; ++i, position += step) {
    index.push_back(std::min(static_cast<int>(position), size - 1));
  }
  return index;
}

std::vector<int> cv_nearest_index(int size, int out) {
  const double step = 1.0 / (static_cast<double>(out) / static_cast<double>(size));
  std::vector<int> index;
  for (int i = 0; i < out; ++i) {
    const double position = std::floor(static_cast<double>(i) * step);
    index.push_back(std::min(static_cast<int>(position), size - 1));
  }
  return index;
}

struct CvTaps {
  std::vector<int> first;
  std::vector<int> second;
  std::vector<std::int32_t> weight;  // two per output
};

CvTaps cv_taps(int size, int out) {
  const double scale = 1.0 / (static_cast<double>(out) / static_cast<double>(size));
  CvTaps taps;
  for (int i = 0; i < out; ++i) {
    const auto position = static_cast<float>((static_cast<double>(i) + 0.5) * scale - 0.5);
    const float start = std::floor(position);
    float fraction = position - start;
    if (start < 0.0f || start >= static_cast<float>(size - 1)) fraction = 0.0f;
    const int index = std::min(std::max(static_cast<int>(start), 0), size - 1);
    taps.first.push_back(index);
    taps.second.push_back(std::min(index + 1, size - 1));
    for (const float w : {1.0f - fraction, fraction}) {
      taps.weight.push_back(static_cast<std::int32_t>(std::nearbyint(w * float{kCvOne})));
    }
  }
  return taps;
}

Image cv_bilinear(const Image& image, int height, int width) {
  if (width == image.width && height == image.height) return image;
  const CvTaps x = cv_taps(image.width, width);
  const CvTaps y = cv_taps(image.height, height);
  const int channels = image.channels;
  Image out = make_image(width, height, channels, "resize");
  std::array<std::vector<std::int32_t>, 2> line;
  std::array<int, 2> held{-1, -1};
  const auto across = [&](int row, std::vector<std::int32_t>& to) {
    to.resize(as_size(width) * as_size(channels));
    const unsigned char* from = image.at(row, 0);
    for (int i = 0; i < width; ++i) {
      const std::int32_t w0 = x.weight[as_size(2 * i)];
      const std::int32_t w1 = x.weight[as_size(2 * i + 1)];
      const unsigned char* a = from + x.first[as_size(i)] * channels;
      const unsigned char* b = from + x.second[as_size(i)] * channels;
      for (int c = 0; c < channels; ++c) {
        to[as_size(i * channels + c)] = a[c] * w0 + b[c] * w1;
      }
    }
  };
  for (int i = 0; i < height; ++i) {
    const std::array<int, 2> rows{y.first[as_size(i)], y.second[as_size(i)]};
    if (held[0] != rows[0] && held[1] == rows[0]) {
      line[0].swap(line[1]);
      std::swap(held[0], held[1]);
    }
    for (std::size_t k = 0; k < 2; ++k) {
      if (held[k] == rows[k]) continue;
      across(rows[k], line[k]);
      held[k] = rows[k];
    }
    const std::int32_t v0 = y.weight[as_size(2 * i)];
    const std::int32_t v1 = y.weight[as_size(2 * i + 1)];
    unsigned char* to = out.at(i, 0);
    for (std::size_t k = 0; k < line[0].size(); ++k) {
      const std::int32_t mixed =
          (((line[0][k] >> 4) * v0) >> 16) + (((line[1][k] >> 4) * v1) >> 16);
      to[k] = clamp_byte((mixed + 2) >> 2);
    }
  }
  return out;
}

}  // namespace

Image resample(const Image& image, int height, int width, const std::string& convention) {
  if (convention == "pil_bilinear") return pil_bilinear(image, height, width);
  if (convention == "cv_bilinear") return cv_bilinear(image, height, width);
  if (convention == "pil_nearest") {
    return pick(image, pil_nearest_index(image.height, height),
                pil_nearest_index(image.width, width));
  }
  if (convention == "cv_nearest") {
    return pick(image, cv_nearest_index(image.height, height),
                cv_nearest_index(image.width, width));
  }
  fail("unknown resampling '" + convention + "'");
}

}  // namespace adc
