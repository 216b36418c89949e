#include "provider_session.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "manifest.hpp"
#include "sha256.hpp"

namespace adc {

namespace {

namespace fs = std::filesystem;

constexpr const char* kInstall = "RYZEN_AI_INSTALLATION_PATH";
constexpr const char* kBelowInstall = "${RYZEN_AI_INSTALLATION_PATH}/";
constexpr const char* kFirmware = "XLNX_VART_FIRMWARE";  // the xclbin of old releases
constexpr const char* kReport = "XLNX_ONNX_EP_REPORT_FILE";
constexpr std::array<const char*, 3> kVariables{kFirmware, "XLNX_TARGET_NAME", kReport};
constexpr std::array<const char*, 3> kFiles{"config_file", "xclbin", kFirmware};
constexpr std::array<const char*, 2> kCacheDir{"cache_dir", "cacheDir"};
constexpr std::array<const char*, 2> kCacheKey{"cache_key", "cacheKey"};
constexpr std::array<const char*, 3> kEncryption{"", "encryptionKey", "encryption_key"};
constexpr const char* kNoFallback = "session.disable_cpu_ep_fallback";

template <std::size_t N>
bool among(const std::array<const char*, N>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name(const std::string& text) {
  const auto fits = [](char c) { return is_letter(c) || is_digit(c) || c == '.'; };
  return !text.empty() && is_letter(text[0]) && std::all_of(text.begin(), text.end(), fits);
}

bool is_plain(const std::string& text) {
  const auto fits = [](char c) {
    return is_letter(c) || is_digit(c) || c == '.' || c == '+' || c == '-';
  };
  return std::all_of(text.begin(), text.end(), fits);
}

/// One table of the file: names to plain words. Paths are judged when they are resolved.
Settings table(const Json& root, const std::string& key, const std::string& where) {
  Settings found;
  const Json* object = root.find(key);
  if (object == nullptr) return found;
  if (object->kind != Json::Kind::object) fail(where + ": " + key + " is not an object");
  for (const auto& [name, value] : object->members) {
    if (value.kind != Json::Kind::text || !is_name(name)) {
      fail(where + ": " + key + " is not text to text");
    }
    if (!among(kFiles, name) && !is_plain(value.text)) {
      fail(where + ": " + key + "." + name + " is no plain word");
    }
    found.emplace_back(name, value.text);
  }
  return found;
}

std::string* find(Settings& settings, const std::string& name) {
  for (auto& [known, value] : settings) {
    if (known == name) return &value;
  }
  return nullptr;
}

/// The value of the option that the release calls by one of two names; added when it has none.
std::string& place(Settings& settings, const std::array<const char*, 2>& names) {
  for (const char* name : names) {
    if (std::string* found = find(settings, name)) return *found;
  }
  return settings.emplace_back(names[0], "").second;
}

std::string asked_for(const SessionRequest& request, const std::string& name) {
  const auto found = request.asked.find(name == kFirmware ? "xclbin" : name);
  return found == request.asked.end() ? "" : found->second;
}

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

std::string installation() {
  const char* folder = std::getenv(kInstall);
  if (folder == nullptr || folder[0] == '\0') {
    fail(std::string(kInstall) + " is not set: set it to the folder of the Ryzen AI software");
  }
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    fail(std::string(kInstall) + " names no folder: " + folder);
  }
  return folder;
}

/// False for a link that leads out of `base`.
bool stays_in(const std::string& path, const std::string& base) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  const fs::path root = fs::canonical(base, error);
  if (error) return false;
  return std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end();
}

/// A file of the part, or of the installation.
std::string inside(const std::string& name, const std::string& value, const std::string& folder) {
  const std::string prefix = kBelowInstall;
  const bool below = value.rfind(prefix, 0) == 0;
  const std::string rest = below ? value.substr(prefix.size()) : value;
  const std::string leads_out = name + "=" + value + ": leads out of the bundle";
  if (!is_bundle_path(rest)) fail(leads_out);
  const std::string base = below ? installation() : folder;
  const std::string path = base + "/" + rest;
  if (!is_file(path)) {
    const std::string why = below ? std::string("look whether ") + kInstall + " names the right release"
                                  : "build the bundle again";
    fail(path + ": the file that " + name + " names is missing: " + why +
         ", or give --device-option " + (name == kFirmware ? "xclbin" : name) + "=PATH");
  }
  if (!stays_in(path, base)) fail(leads_out);
  return path;
}

/// Real paths in `settings`; digests instead of paths in what is returned.
Settings settle_files(Settings& settings, const SessionRequest& request) {
  Settings identity = settings;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    auto& [name, value] = settings[i];
    if (!among(kFiles, name)) continue;
    const std::string own = asked_for(request, name);
    if (!own.empty() && !is_file(own)) fail(own + ": no such file for " + name);
    value = own.empty() ? inside(name, value, request.folder) : own;
    identity[i].second = sha256_of(value);
  }
  return identity;
}

void check_asked(SessionPlan& plan, const SessionRequest& request) {
  const bool firmware =
      find(plan.options, "xclbin") != nullptr || find(plan.environment, kFirmware) != nullptr;
  const bool config = find(plan.options, "config_file") != nullptr;
  if (!asked_for(request, "xclbin").empty() && !firmware) {
    fail("part " + request.part + ": its session takes no xclbin");
  }
  if (!asked_for(request, "config_file").empty() && !config) {
    fail("part " + request.part + ": its session takes no config_file");
  }
}

/// Everything that shapes the compiled model, and nothing else, as 32 hexadecimal digits: a stale
/// cache is never met, and its place does not count.
std::string identity_of(Settings counted, const SessionRequest& request) {
  std::sort(counted.begin(), counted.end());
  const std::string driver = asked_for(request, "driver");
  std::string text = "model " + sha256_of(request.model) + "\nprovider " +
                     request.provider_version + "\ndriver " +
                     (driver.empty() ? "unknown" : driver);
  for (const auto& [name, value] : counted) {
    const bool cache = name.rfind("cache", 0) == 0;
    if (!cache && name != kReport) text += "\n" + name + "=" + value;
  }
  Sha256 digest;
  digest.update(text.data(), text.size());
  return digest.hex().substr(0, 32);
}

void add_encryption(SessionPlan& plan, const SessionRequest& request) {
  const std::string key = asked_for(request, "encryption_key");
  if (key.empty()) return;
  if (plan.encryption_option.empty()) {
    fail("part " + request.part + ": its release has no encryption");
  }
  const bool hexadecimal = key.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
  if (key.size() != 64 || !hexadecimal) fail("an encryption key is 64 hexadecimal digits");
  plan.options.emplace_back(plan.encryption_option, key);
}

}  // namespace

SessionPlan parse_session(const unsigned char* data, std::size_t size, const std::string& where) {
  const Json root = parse_json(data, size, where);
  SessionPlan plan;
  plan.provider = root.at("provider", Json::Kind::text, where).text;
  if (!is_name(plan.provider)) fail(where + ": names no provider");
  plan.options = table(root, "provider_options", where);
  plan.environment = table(root, "environment", where);
  plan.config = table(root, "session_config", where);
  plan.planned = table(root, "planned", where);
  for (const auto& variable : plan.environment) {
    if (!among(kVariables, variable.first)) {
      fail(where + ": the variable " + variable.first + " is none of the provider's");
    }
  }
  const Json* encryption = root.find("encryption_option");
  if (encryption != nullptr) plan.encryption_option = encryption->text;
  if (!among(kEncryption, plan.encryption_option)) {
    fail(where + ": encryption_option is none of the provider's");
  }
  return plan;
}

SessionPlan settle_session(const SessionPlan& plan, const SessionRequest& request) {
  SessionPlan settled = plan;
  check_asked(settled, request);
  Settings counted = settle_files(settled.options, request);
  const Settings more = settle_files(settled.environment, request);
  counted.insert(counted.end(), more.begin(), more.end());
  const std::string key = request.part + "-" + identity_of(counted, request);
  std::string& cache = place(settled.options, kCacheDir);
  const std::string own = asked_for(request, "cache_dir");
  cache = own.empty() ? request.folder + "/" + (cache.empty() ? "cache" : cache) : own;
  place(settled.options, kCacheKey) = key;
  add_encryption(settled, request);
  if (asked_for(request, "no_cpu_fallback") == "true") {
    std::string* known = find(settled.config, kNoFallback);
    (known == nullptr ? settled.config.emplace_back(kNoFallback, "").second : *known) = "1";
  }
  return settled;
}

void set_environment(const SessionPlan& plan) {
  for (const auto& [name, value] : plan.environment) {
#if defined(_WIN32)
    const bool failed = ::_putenv_s(name.c_str(), value.c_str()) != 0;
#else
    const bool failed = ::setenv(name.c_str(), value.c_str(), 1) != 0;
#endif
    if (failed) fail("cannot set the environment variable " + name);
  }
}

}  // namespace adc
