// What the compiler knows about the bundle, as tables that it writes into the program.
#pragma once

#include <string>
#include <vector>

#include "part.hpp"

namespace adc {

struct FileInfo {
  const char* use;   // "plan", "device", "model@8" …
  const char* path;  // relative to the bundle
};

struct OptionInfo {
  const char* name;
  const char* value;
};

/// One part, in execution order. Tensors are numbers of `BundleInfo::values`.
struct PartInfo {
  const char* name;
  const char* role;
  const char* executor;   // family: trt, npu, drpai, cpu
  const char* precision;
  double snr_db;          // a device part's smallest signal-to-noise ratio; 0: bound by role instead
  int generated;          // number in parts::table(), -1: runs on a device
  bool by_row;            // the first dimension counts regions, not images
  std::vector<Index> row_sizes;  // row counts the device model takes; empty: any
  std::vector<int> inputs;
  std::vector<int> outputs;
  std::vector<FileInfo> files;
  std::vector<OptionInfo> options;
};

struct GoldenTensor {
  int value;
  const char* path;
};
struct GoldenInfo {
  const char* source;
  std::vector<GoldenTensor> tensors;  // inputs, boundaries and outputs
};

/// |difference| <= atol (times the largest |reference| unless `absolute`) + rtol * |reference|.
struct ToleranceInfo {
  const char* role;
  double rtol;
  double atol;
  bool absolute;
  double snr_db;  // above 0: only this signal-to-noise ratio counts
};

/// When two runs have found the same things.
struct MatchInfo {
  double fraction;  // of the larger number of detections, which must have a partner
  double iou;       // from which two boxes are partners
  double apart;     // and up to which difference of their scores
};

struct OutputInfo {
  int value;
  const char* role;
};

/// Contract of an image input; see preprocess.hpp.
struct ImageInput {
  int value;
  int height, width;
  const char* resize;      // stretch, letterbox, shorter, none
  int resize_height, resize_width;  // 0: as height and width; for shorter: both the side
  const char* resample;    // pil_bilinear, pil_nearest, cv_bilinear, cv_nearest
  const char* channels;    // rgb, bgr, gray
  float scale;
  std::vector<float> mean;
  std::vector<float> std;
  const char* layout;      // nchw, nhwc, chw, hwc
  const char* dtype;       // float32, float16, uint8
  int pad_value;
};

/// Contract of an anomaly score.
struct ScoreInfo {
  const char* method;         // "" when the model is no anomaly detector
  const char* normalisation;  // none, min_max, cdf, sigma6
  bool has_threshold;
  double threshold;
  double decision;
  bool or_equal;              // >= instead of >
  double minimum;
  double maximum;
};

struct BankInfo {
  const char* path;
  std::int64_t columns;
  int neighbours;  // the bank needs at least as many rows
  const char* sha256;
};

struct BundleInfo {
  const char* model;
  const char* target;
  std::vector<Port> values;
  std::vector<int> inputs;
  std::vector<OutputInfo> outputs;
  std::vector<PartInfo> parts;
  std::vector<GoldenInfo> golden;
  std::vector<ToleranceInfo> tolerances;      // host parts on recorded inputs: they compute in float
  std::vector<ToleranceInfo> run_tolerances;  // the model's outputs, where devices had a part in them
  MatchInfo match;
  std::vector<ImageInput> images;
  ScoreInfo score;
  std::vector<const char*> classes;
  std::vector<BankInfo> banks;
};

/// The generated tables.
const BundleInfo& bundle_info();

}  // namespace adc
