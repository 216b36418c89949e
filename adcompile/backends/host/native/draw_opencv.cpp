// Text and frames through OpenCV: smooth edges, small letters, every printable character.
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "draw.hpp"

namespace adc {

namespace {

/// The picture's own pixels as OpenCV sees them (channels stay RGB).
cv::Mat view_of(Image& image) {
  return {image.height, image.width, image.channels == 1 ? CV_8UC1 : CV_8UC3,
          image.pixels.data()};
}

cv::Scalar scalar(const std::array<unsigned char, 3>& colour) {
  return {static_cast<double>(colour[0]), static_cast<double>(colour[1]),
          static_cast<double>(colour[2])};
}

}  // namespace

void draw_text(Image& image, int x, int y, const std::string& text, int scale,
               const std::array<unsigned char, 3>& colour) {
  // Hershey capitals are 21 units high; the built-in font has 7 dots of `scale` pixels.
  const double size = 7.0 * scale / 21.0;
  cv::Mat pixels = view_of(image);
  cv::putText(pixels, text, {x, y + 7 * scale}, cv::FONT_HERSHEY_SIMPLEX, size, scalar(colour),
              std::max(1, scale / 2), cv::LINE_AA);
}

void draw_box(Image& image, const float* box, const std::array<unsigned char, 3>& colour) {
  const auto pixel = [](float v) {
    return static_cast<int>(std::min(std::max(v, 0.0f), 65536.0f));
  };
  cv::Mat pixels = view_of(image);
  cv::rectangle(pixels, cv::Point(pixel(box[0]), pixel(box[1])),
                cv::Point(pixel(box[2]), pixel(box[3])), scalar(colour),
                std::max(1, image.height / 300), cv::LINE_AA);
}

}  // namespace adc
