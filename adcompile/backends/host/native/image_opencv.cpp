// Picture files through OpenCV (cmake -DADC_WITH_OPENCV=ON): formats that image.cpp has no reader
// for, such as TIFF and WebP, and PNG and JPEG where their libraries are missing.
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "image_format.hpp"

namespace adc {

Image decode_other(const unsigned char* data, std::size_t size, const std::string& where,
                   const char*) {
  if (size > static_cast<std::size_t>(std::numeric_limits<int>::max())) fail(where + ": too large");
  const cv::Mat bytes(1, static_cast<int>(size), CV_8UC1, const_cast<unsigned char*>(data));
  cv::Mat decoded;
  try {
    // Like the other readers: 8 bits, no transparency, the orientation tag ignored.
    decoded = cv::imdecode(bytes, cv::IMREAD_ANYCOLOR | cv::IMREAD_IGNORE_ORIENTATION);
    if (decoded.channels() == 3) cv::cvtColor(decoded, decoded, cv::COLOR_BGR2RGB);
  } catch (const cv::Exception& error) {
    damaged(where, error.err);
  }
  if (decoded.empty()) fail(where + ": not a picture that OpenCV knows");
  Image image = make_image(decoded.cols, decoded.rows, decoded.channels(), where);
  const Index row = Index{image.width} * image.channels;
  for (int y = 0; y < image.height; ++y) copy_elements(decoded.ptr(y), row, image.at(y, 0));
  return image;
}

void write_other(const std::string& path, const Image& image, const char*) {
  const int type = image.channels == 1 ? CV_8UC1 : CV_8UC3;
  const cv::Mat pixels(image.height, image.width, type,
                       const_cast<unsigned char*>(image.pixels.data()));
  try {
    cv::Mat bgr = pixels;
    if (image.channels == 3) cv::cvtColor(pixels, bgr, cv::COLOR_RGB2BGR);
    if (!cv::imwrite(path, bgr)) fail(path + ": cannot write");
  } catch (const cv::Exception& error) {
    fail(path + ": cannot write: " + error.err);
  }
}

}  // namespace adc
