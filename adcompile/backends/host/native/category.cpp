#include "category.hpp"

#include <cmath>
#include <filesystem>

#include "manifest.hpp"
#include "npy.hpp"
#include "sha256.hpp"

namespace adc {

namespace {

namespace fs = std::filesystem;
constexpr std::size_t kMaxCategory = std::size_t{4} << 20;

/// A number that may be null in the file.
bool number(const Json& object, const std::string& name, double& value) {
  const Json* found = object.find(name);
  if (found == nullptr || found->kind != Json::Kind::number) return false;
  value = found->number;
  return true;
}

Scale read_scale(const Json& root, const std::string& where) {
  const Json& score = root.at("score", Json::Kind::object, where);
  Scale scale;
  scale.normalisation = score.at("normalisation", Json::Kind::text, where).text;
  const std::string& compare = score.at("compare", Json::Kind::text, where).text;
  if (compare != ">" && compare != ">=") fail(where + ": 'compare' is neither > nor >=");
  scale.or_equal = compare == ">=";
  scale.has_threshold = number(score, "threshold", scale.threshold);
  number(score, "decision", scale.decision);
  const bool range = number(score, "minimum", scale.minimum) &&
                     number(score, "maximum", scale.maximum) && scale.maximum > scale.minimum;
  const bool spread = number(score, "std", scale.std) && scale.std > 0 && scale.threshold > 0;
  const std::string& kind = scale.normalisation;
  const bool ranged = kind == "min_max" || kind == "sigma6";
  if (!ranged && kind != "cdf" && kind != "none") fail(where + ": unknown normalisation");
  if (!scale.has_threshold || (kind == "cdf" && !spread) ||
      (ranged && !range)) {
    fail(where + ": the score has no usable threshold and range");
  }
  return scale;
}

/// The category lists the ONNX files of the parts it was made for; the manifest must list the same.
void check_engine(const Json& root, const std::string& bundle, const std::string& where) {
  const Json manifest = read_manifest(bundle);
  const Json& files = manifest.at("files", Json::Kind::object, "manifest.json");
  for (const auto& [name, digest] : root.at("engine", Json::Kind::object, where).members) {
    const Json* record = files.find(name);
    const Json* own = record == nullptr ? nullptr : record->find("sha256");
    const bool texts = own != nullptr && own->kind == Json::Kind::text && digest.kind == Json::Kind::text;
    if (!texts || own->text != digest.text) {
      fail(where + ": the category belongs to another build (" + name + " differs)");
    }
  }
}

/// A file of the category, as a full path; the category's list must have it, and its digest.
std::string checked(const Json& root, const std::string& folder, const std::string& name,
                    const std::string& where) {
  const Json* record = root.at("files", Json::Kind::object, where).find(name);
  const Json* digest = record == nullptr ? nullptr : record->find("sha256");
  if (!is_bundle_path(name) || digest == nullptr) {
    fail(where + ": '" + name + "' is not one of its files");
  }
  const std::string full = folder + "/" + name;
  if (sha256_of(full) != digest->text) fail(full + ": not the file of this category");
  return full;
}

}  // namespace

double Scale::score(double raw) const {
  if (normalisation == "none" || std::isnan(raw)) return raw;
  if (normalisation == "cdf") {
    const double z = (std::log(std::max(raw, 1e-30)) - std::log(threshold)) / std;
    return 0.5 * (1.0 + std::erf(z / std::sqrt(2.0)));
  }
  return std::min(1.0, std::max(0.0, (raw - threshold) / (maximum - minimum) + 0.5));
}

std::optional<Rule> Scale::rule() const {
  const bool normalised = normalisation != "none";
  if (!normalised && !has_threshold) return std::nullopt;
  return Rule{!normalised, or_equal, normalised ? decision : threshold};
}

bool Rule::anomalous(double score) const {
  return std::isnan(score) || (or_equal ? score >= limit : score > limit);
}

Scale scale_of(const ScoreInfo& info) {
  Scale scale;
  scale.normalisation = info.normalisation;
  scale.has_threshold = info.has_threshold;
  scale.threshold = info.threshold;
  scale.minimum = info.minimum;
  scale.maximum = info.maximum;
  scale.decision = info.decision;
  scale.or_equal = info.or_equal;
  return scale;
}

Category read_category(const std::string& bundle, const std::string& name) {
  if (name.empty() || name[0] == '.' || name.find_first_of("/\\:") != std::string::npos) {
    fail("'" + name + "' cannot be a category's name");
  }
  const std::string folder = bundle + "/categories/" + name;
  const std::string path = folder + "/category.json";
  std::error_code error;
  if (!fs::is_regular_file(path, error)) fail(path + ": the bundle has no such category");
  const std::vector<unsigned char> bytes = read_file(path, kMaxCategory);
  const Json root = parse_json(bytes.data(), bytes.size(), path);
  if (root.at("schema_version", Json::Kind::number, path).number > 1) {
    fail(path + ": made by a newer adcompile");
  }
  check_engine(root, bundle, path);
  Category category;
  category.name = name;
  category.scale = read_scale(root, path);
  for (const Json& bank : root.at("banks", Json::Kind::list, path).items) {
    category.banks.push_back(checked(root, folder, bank.text, path));
  }
  const std::string& statistics = root.at("statistics", Json::Kind::text, path).text;
  if (!statistics.empty()) {
    category.statistics = checked(root, folder, statistics, path);
    const Json& files = root.at("files", Json::Kind::object, path);
    category.statistics_sha256 = files.find(statistics)->find("sha256")->text;
  }
  if (category.banks.empty() && category.statistics.empty()) {
    fail(path + ": this category runs from Python only");
  }
  return category;
}

}  // namespace adc
