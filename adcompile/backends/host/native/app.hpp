// The command-line programs: options, pictures from folders or streams, times.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "bundle.hpp"
#include "image.hpp"
#include "preprocess.hpp"

namespace adc::app {

struct Options {
  std::string bundle;            // folder; found by its manifest when not given
  std::string data;              // folder of pictures, or one picture
  std::string frames;            // stream of PNM pictures; "-": standard input
  std::string output;            // folder for drawn results
  std::string maps;              // folder for anomaly maps as .npy
  std::string csv;
  std::optional<double> threshold;  // raw scale
  std::string category;          // of the bundle; "" is the bundle's own bank and threshold
  int image_size = 0;            // must be the contract's
  double min_score = 0.5;        // detections below it are not drawn
  bool help = false;
  OpenOptions open;
};

/// What the roles of the outputs make of the program.
[[nodiscard]] bool is_anomaly_detector(const BundleInfo& info);
[[nodiscard]] bool is_object_detector(const BundleInfo& info);

/// Parses the command line; fails with a sentence, also for an option that is not for this model.
[[nodiscard]] Options parse(int argc, char** argv, const BundleInfo& info);
[[nodiscard]] std::string usage(const BundleInfo& info);

/// Pictures one after the other, from wherever the options say.
class Source {
 public:
  explicit Source(const Options& options);
  ~Source();
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  /// The next picture; false at the end. An unreadable file is reported and skipped.
  bool next(Image& image, std::string& name);
  [[nodiscard]] int skipped() const { return skipped_; }

 private:
  std::string folder_;
  std::vector<std::string> names_;
  std::size_t at_ = 0;
  std::FILE* stream_ = nullptr;
  int frame_ = 0;
  int skipped_ = 0;
};

/// Milliseconds since construction or the last lap.
class Clock {
 public:
  Clock();
  double lap();

 private:
  double last_;
};

struct Times {
  double read = 0;
  double preprocess = 0;
  double inference = 0;    // device parts
  double postprocess = 0;  // host parts
  double total = 0;
  int images = 0;

  void add(const Times& one);
  void print(std::FILE* to) const;
};

/// One picture after the bundle has run on it.
struct Done {
  const Image& image;
  const std::string& name;   // file name, or frame_N
  const Placement& where;    // of the tensor in the picture
  const Times& times;

  /// The name without its suffix, for files made from it.
  [[nodiscard]] std::string stem() const { return name.substr(0, name.rfind('.')); }
};

/// Runs the bundle on every picture of the source and hands each to `use`; prints the times at the
/// end. The result is the program's exit code: 1 when a picture could not be read or none was there.
int each_picture(const Options& options, Bundle& bundle, const std::function<void(const Done&)>& use);

/// The first output with this role, -1 when there is none.
[[nodiscard]] int output_with_role(const BundleInfo& info, const std::string& role);

/// A table of results being written.
class Csv {
 public:
  Csv(const std::string& path, const char* header);
  [[nodiscard]] std::FILE* file() const { return file_.get(); }
  /// The last lines reach the disk here, so a full disk shows here.
  void finish();

  /// A field, quoted when it has to be.
  [[nodiscard]] static std::string field(const std::string& text);

 private:
  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

/// Folder for results: made when it is missing; an empty name is no folder.
void make_folder(const std::string& path);

int run_anomaly(const Options& options);
int run_detection(const Options& options);
/// Any other model: writes every output as .npy.
int run_plain(const Options& options);

}  // namespace adc::app
