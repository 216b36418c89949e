#include "placement_report.hpp"

#include <algorithm>

#include "json.hpp"
#include "npy.hpp"

namespace adc {

namespace {

namespace fs = std::filesystem;

constexpr const char* kReport = "vitisai_ep_report.json";
constexpr std::size_t kMaxReport = std::size_t{256} << 20;
constexpr double kMaxCount = 1e9;

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return text;
}

Index count_of(const Json& device, const std::string& where) {
  const double count = device.at("nodeNum", Json::Kind::number, where).number;
  if (!(count >= 0 && count <= kMaxCount)) fail(where + ": nodeNum is no number of operators");
  return static_cast<Index>(count);
}

/// "domain::Type" without the domain.
std::vector<std::string> types_of(const Json& device, const std::string& where) {
  std::vector<std::string> found;
  if (device.find("supportedOpType") == nullptr) return found;
  for (const Json& item : device.at("supportedOpType", Json::Kind::list, where).items) {
    if (item.kind != Json::Kind::text) fail(where + ": supportedOpType is no list of texts");
    const std::size_t colons = item.text.rfind("::");
    found.push_back(colons == std::string::npos ? item.text : item.text.substr(colons + 2));
  }
  return found;
}

std::string value_of(const Settings& settings, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    for (const auto& [known, value] : settings) {
      if (known == name) return value;
    }
  }
  return "";
}

/// When the file was written; min() when it is not there.
fs::file_time_type written(const fs::path& path) {
  std::error_code error;
  const fs::file_time_type time = fs::last_write_time(path, error);
  return error ? fs::file_time_type::min() : time;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

ProviderReport parse_report(const unsigned char* data, std::size_t size,
                            const std::string& where) {
  const Json root = parse_json(data, size, where);
  ProviderReport report;
  Index sum = 0;
  bool counted = false;  // the provider's own total
  bool named_npu = false;
  for (const Json& device : root.at("deviceStat", Json::Kind::list, where).items) {
    const std::string name = upper(device.at("name", Json::Kind::text, where).text);
    const Index count = count_of(device, where);
    const std::vector<std::string> types = types_of(device, where);
    sum += count;
    if (name == "ALL") {
      report.total = count;
      counted = true;
    } else if (name == "CPU") {
      report.cpu_types = types;
    } else if (name == "NPU" || (name == "DPU" && !named_npu)) {  // DPU up to Ryzen AI 1.4
      report.npu = count;
      report.npu_types = types;
      named_npu = name == "NPU";
    }
  }
  if (!counted) report.total = sum;
  return report;
}

std::vector<std::string> taken_to_cpu(const Settings& planned, const ProviderReport& report) {
  std::vector<std::string> found;
  for (const auto& type : planned) {
    const auto& on_cpu = report.cpu_types;
    if (std::find(on_cpu.begin(), on_cpu.end(), type.first) != on_cpu.end()) {
      found.push_back(type.first);
    }
  }
  return found;
}

ReportWatch::ReportWatch(const SessionPlan& plan)
    : provider_(plan.provider), planned_(plan.planned) {
  const fs::path cache = value_of(plan.options, {"cache_dir", "cacheDir"});
  own_ = cache / value_of(plan.options, {"cache_key", "cacheKey"}) / kReport;
  for (const fs::path& path : {cache / kReport, fs::path(kReport)}) {
    elsewhere_.push_back({path, written(path)});
  }
}

fs::path ReportWatch::find() const {
  std::error_code error;
  if (fs::is_regular_file(own_, error)) return own_;
  for (const Known& known : elsewhere_) {
    if (fs::is_regular_file(known.path, error) && written(known.path) != known.written) {
      return known.path;
    }
  }
  return {};
}

std::string ReportWatch::describe(bool insist) const {
  const fs::path path = find();
  if (path.empty()) {
    const std::string none = provider_ + " left no report of where the operators ran";
    if (insist) fail(none);
    return none;
  }
  ProviderReport report;
  try {
    const std::vector<unsigned char> text = read_file(path.string(), kMaxReport);
    report = parse_report(text.data(), text.size(), path.string());
  } catch (const Error& error) {
    if (insist) throw;
    return error.what();
  }
  const std::string taken = joined(taken_to_cpu(planned_, report));
  const std::string moved = taken.empty() ? "" : "planned NPU, ran on CPU: " + taken;
  if (insist && !moved.empty()) fail(moved);
  const std::string counts = "NPU through " + provider_ + ": " + std::to_string(report.npu) +
                             " of " + std::to_string(report.total) + " operators";
  return moved.empty() ? counts : counts + "; " + moved;
}

}  // namespace adc
