// Anomaly detectors: score, decision and heat map of every picture.
#include "app.hpp"
#include "category.hpp"
#include "draw.hpp"

namespace adc::app {

namespace {

/// The contract's rule, or -t on the raw scale (strictly above).
Rule rule_of(const Options& options, const Scale& score) {
  if (options.threshold) return {true, false, *options.threshold};
  const std::optional<Rule> rule = score.rule();
  if (!rule) fail("the contract has no threshold: give one with -t");
  return *rule;
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

/// Numbers of the outputs by role; -1 where the model has none.
struct Outputs {
  int score;
  int raw;
  int map;

  explicit Outputs(const BundleInfo& info)
      : score(output_with_role(info, "score")),
        raw(output_with_role(info, "raw_score")),
        map(output_with_role(info, "map")) {
    if (score < 0) fail("the model has no output with the role 'score'");
  }
};

/// NAME_heatmap: the map's colours alone; NAME_result: over the picture, with the verdict's panel.
void draw(const Options& options, const Done& done, const AnyView* map, const Scale& scale,
          const Verdict& verdict) {
  const std::string stem = options.output + "/" + done.stem();
  Image shown = done.image;
  if (map != nullptr) {
    std::vector<float> values;
    const View<float> shades = drawable(*map, scale, values);
    write_image(stem + "_heatmap" + picture_suffix(), heat_map(shades));
    shown = overlay(done.image, shades, done.where);
  }
  write_image(stem + "_result" + picture_suffix(), with_panel(shown, verdict));
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
    open.statistics = category.statistics;
    open.statistics_sha256 = category.statistics_sha256;
  }
  Bundle bundle(options.bundle, open);
  const BundleInfo& info = bundle.info();
  const Rule rule = rule_of(options, scale);
  const Outputs outputs(info);
  if (!options.category.empty() && outputs.raw < 0) {
    fail("a category needs the model's output with the role 'raw_score'");
  }
  const int decided = rule.raw && outputs.raw >= 0 ? outputs.raw : outputs.score;
  if (!options.maps.empty() && outputs.map < 0) fail("--maps: the model has no anomaly map");
  make_folder(options.output);
  make_folder(options.maps);
  Csv csv(options.csv.empty() ? std::string("result_") + info.score.method + ".csv" : options.csv,
          "filename,raw_score,decision");
  const int code = each_picture(options, bundle, [&](const Done& done) {
    double score = single(bundle.get(decided));
    const double raw = outputs.raw < 0 ? score : single(bundle.get(outputs.raw));
    // The graph normalises with the bundle's own numbers.
    if (!options.category.empty() && !rule.raw) score = scale.score(raw);
    const bool anomalous = rule.anomalous(score);
    const char* decision = anomalous ? "Anomaly" : "Normal";
    std::fprintf(csv.file(), "%s,%.9g,%s\n", Csv::field(done.name).c_str(), raw, decision);
    std::printf("%s: %s (score %.4f, limit %.4f)\n", done.name.c_str(), decision, score,
                rule.limit);
    const AnyView* map = outputs.map < 0 ? nullptr : &bundle.get(outputs.map);
    if (!options.maps.empty()) write_npy(options.maps + "/" + done.stem() + ".npy", *map);
    if (!options.output.empty()) {
      draw(options, done, map, scale,
           {anomalous, score, rule.limit, done.times.preprocess, done.times.inference,
            done.times.postprocess});
    }
  });
  csv.finish();
  return code;
}

}  // namespace adc::app
