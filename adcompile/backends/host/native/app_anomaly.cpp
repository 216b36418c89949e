// Anomaly detectors: score, decision and heat map of every picture.
#include <cmath>

#include "app.hpp"
#include "category.hpp"
#include "draw.hpp"

namespace adc::app {

namespace {

/// How a score becomes a decision: the contract's rule, or -t on the raw scale (strictly above).
struct Rule {
  bool raw = false;
  bool or_equal = false;
  double limit = 0;

  [[nodiscard]] bool anomalous(double score) const {
    // A NaN means that something is broken: never "normal".
    return std::isnan(score) || (or_equal ? score >= limit : score > limit);
  }
};

Rule rule_of(const Options& options, const Scale& score) {
  if (options.threshold) return {true, false, *options.threshold};
  const bool normalised = score.normalisation != "none";
  if (!normalised && !score.has_threshold) {
    fail("the contract has no threshold: give one with -t");
  }
  return {!normalised, score.or_equal, normalised ? score.decision : score.threshold};
}

double single(const AnyView& tensor) {
  if (tensor.dtype != DType::kFloat32 || tensor.shape.size() != 1) {
    fail("the score is not one float32 number");
  }
  return static_cast<double>(*static_cast<const float*>(tensor.data));
}

/// The map on a scale of 0 … 1 for drawing: the contract's range, else its own.
View<float> drawable(const AnyView& tensor, const Scale& score, std::vector<float>& values) {
  if (tensor.dtype != DType::kFloat32) fail("the anomaly map is not float32");
  const View<float> raw(static_cast<const float*>(tensor.data), tensor.shape);
  values.assign(raw.data(), raw.data() + raw.size());
  if (values.empty()) fail("the anomaly map is empty");
  double low = *std::min_element(values.begin(), values.end());
  double high = *std::max_element(values.begin(), values.end());
  if (score.maximum > score.minimum && score.has_threshold) {
    const double range = score.maximum - score.minimum;
    low = score.threshold - range / 2;
    high = score.threshold + range / 2;
  }
  const double range = high > low ? high - low : 1.0;
  for (float& v : values) v = static_cast<float>((static_cast<double>(v) - low) / range);
  return {values.data(), raw.shape()};
}

void check_size(const Options& options, const BundleInfo& info) {
  if (options.image_size == 0 || info.images.empty()) return;
  const ImageInput& image = info.images[0];
  if (options.image_size != image.height || options.image_size != image.width) {
    fail("-i " + std::to_string(options.image_size) + ": this model takes " +
         std::to_string(image.height) + " x " + std::to_string(image.width) + " pictures");
  }
}

}  // namespace

int run_anomaly(const Options& options) {
  OpenOptions open = options.open;
  Scale scale = scale_of(bundle_info().score);
  if (!options.category.empty()) {
    if (!open.banks.empty()) fail("give either --category or -m");
    const Category category = read_category(options.bundle, options.category);
    scale = category.scale;
    open.banks = category.banks;
    open.weights = category.weights;
    open.weights_sha256 = category.weights_sha256;
  }
  Bundle bundle(options.bundle, open);
  const BundleInfo& info = bundle.info();
  check_size(options, info);
  const Rule rule = rule_of(options, scale);
  const int score_value = output_with_role(info, "score");
  const int raw_value = output_with_role(info, "raw_score");
  const int map_value = output_with_role(info, "map");
  if (score_value < 0) fail("the model has no output with the role 'score'");
  if (!options.category.empty() && raw_value < 0) {
    fail("a category needs the model's output with the role 'raw_score'");
  }
  const int decided_value = rule.raw && raw_value >= 0 ? raw_value : score_value;
  const std::string table =
      options.csv.empty() ? std::string("result_") + info.score.method + ".csv" : options.csv;
  Source source(options);
  if (!options.output.empty()) make_folder(options.output);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> csv(std::fopen(table.c_str(), "wb"),
                                                            std::fclose);
  if (!csv) fail(table + ": cannot write");
  std::fprintf(csv.get(), "filename,raw_score,decision\n");
  Times all;
  Image image;
  Array tensor;
  std::string name;
  std::vector<float> shades;
  Clock reading;
  while (source.next(image, name)) {
    Times times;
    times.read = reading.lap();
    const Placement where = run_image(bundle, image, tensor, times);
    double score = single(bundle.get(decided_value));
    const double raw = raw_value < 0 ? score : single(bundle.get(raw_value));
    // The graph normalises with the bundle's own numbers.
    if (!options.category.empty() && !rule.raw) score = scale.score(raw);
    const bool anomalous = rule.anomalous(score);
    const char* decision = anomalous ? "Anomaly" : "Normal";
    std::fprintf(csv.get(), "%s,%.9g,%s\n", csv_field(name).c_str(), raw, decision);
    std::printf("%s: %s (score %.4f, limit %.4f)\n", name.c_str(), decision, score, rule.limit);
    if (!options.output.empty()) {
      Image drawn = image;
      if (map_value >= 0) {
        drawn = overlay(image, drawable(bundle.get(map_value), scale, shades), where);
      }
      const Verdict verdict{anomalous,        score,           rule.limit,
                            times.preprocess, times.inference, times.postprocess};
      const std::size_t dot = name.rfind('.');
      write_image(options.output + "/" + name.substr(0, dot) + "_result.bmp",
                  with_panel(drawn, verdict));
    }
    all.add(times);
    reading.lap();
  }
  if (std::fflush(csv.get()) != 0) fail(table + ": cannot write");
  all.print(stdout);
  return source.skipped() > 0 || all.images == 0 ? 1 : 0;
}

}  // namespace adc::app
